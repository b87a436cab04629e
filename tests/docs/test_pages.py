"""The documents hang together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.settings import Limits, Settings
from app.settings_sources import secret_variables

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
DECISIONS = sorted(path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))

_LINK = re.compile(r"\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")

_CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)

_VARIABLE = re.compile(r"GATEWAY_[A-Z0-9_]*[A-Z0-9]")
_SETTINGS = {f"GATEWAY_{name.upper()}" for name in Settings.model_fields} | {"GATEWAY_CONFIG"}
_SECRETS = {f"{variable}_FILE" for variable in secret_variables(Settings)}
_LIMITS = {f"GATEWAY_LIMITS__{name.upper()}" for name in Limits.model_fields}
_OF_THE_COMPOSE_FILE = {"GATEWAY_IMAGE"}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = {match["target"] for match in _LINK.finditer(_CODE.sub("", (ROOT / page).read_text(encoding="utf-8")))}

    assert not [
        target
        for target in sorted(targets)
        if "://" not in target and not (ROOT / page).parent.joinpath(target).exists()
    ]


@pytest.mark.parametrize("page", PAGES)
def test_settings_exist(page: str) -> None:
    named = set(_VARIABLE.findall((ROOT / page).read_text(encoding="utf-8")))

    assert not sorted({name for name in named if name.startswith("GATEWAY_LIMITS__")} - _LIMITS)
    assert not sorted({name.split("__")[0] for name in named} - _SETTINGS - _SECRETS - _OF_THE_COMPOSE_FILE)


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")

    assert _LINK.findall(index) == DECISIONS


@pytest.mark.parametrize("decision", DECISIONS)
def test_a_decision_has_the_form_of_the_others(decision: str) -> None:
    page = (ROOT / "docs" / "adr" / decision).read_text(encoding="utf-8")

    title = re.match(r"# (\d+)", page)
    assert title is not None
    assert int(title[1]) == int(decision[:4])
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert "\nStatus: " in page
