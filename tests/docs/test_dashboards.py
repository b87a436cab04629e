"""The dashboard, the alerts and the table of metrics speak of metrics and labels that there are."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.engine.metrics import Metrics

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
NAMES = Metrics().registry.names

_SELECTOR = re.compile(r"\b(gateway_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_GROUPING = re.compile(r"\b(?:by|without) \(([^)]*)\)")
_ROW = re.compile(r"^\| `(gateway_\w+)` \|(.*?)\|", re.MULTILINE)
_OF_PROMETHEUS = {"job", "instance", "le"}


def _rules() -> Sequence[Any]:
    groups = yaml.safe_load((PROMETHEUS / "gateway.rules.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _panels(dashboard: Path) -> Sequence[Any]:
    panels: Sequence[Any] = json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
    return panels


def _expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in _rules())
    for dashboard in DASHBOARDS:
        yield from (target["expr"] for panel in _panels(dashboard) for target in panel.get("targets", ()))
        variables = json.loads(dashboard.read_text(encoding="utf-8"))["templating"]["list"]
        yield from (variable["query"]["query"] for variable in variables if variable["type"] == "query")


@pytest.mark.parametrize("expression", sorted(set(_expressions())))
def test_what_is_asked_for_exists(expression: str) -> None:
    found = _SELECTOR.findall(expression)
    known = _OF_PROMETHEUS.union(*(NAMES.get(name, ()) for name, _ in found))

    assert [name for name, _ in found if name not in NAMES] == []
    for name, matchers in found:
        assert set(_MATCHER.findall(matchers)) <= {*NAMES[name], *_OF_PROMETHEUS}
    for grouping in _GROUPING.findall(expression):
        assert {label.strip() for label in grouping.split(",")} <= known


def test_every_metric_is_in_the_table_with_its_labels() -> None:
    told = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in _ROW.findall(PAGE)}
    there = {re.sub(r"_(bucket|count|sum)$", "", name): labels for name, labels in NAMES.items()}

    assert told == there


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for expression in _expressions() for name, _ in _SELECTOR.findall(expression)}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in NAMES}

    assert families - {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown} == set()


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_asks_the_data_source_that_is_chosen(dashboard: Path) -> None:
    panels = _panels(dashboard)
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {target["datasource"]["uid"] for panel in panels for target in panel.get("targets", ())} == {"${datasource}"}


def test_every_alert_says_what_it_is_about() -> None:
    for rule in _rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"].endswith((".", ")."))


async def test_prometheus_reads_the_files() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; it comes with Prometheus")
    checking = await asyncio.create_subprocess_exec(promtool, "check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert await checking.wait() == 0
