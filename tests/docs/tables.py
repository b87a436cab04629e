"""docs/coverage.md as data, and the built-in tools that there are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from app import discovery
from app.tools.ports.tool import ToolSpec
from tests.docs import examples


class Row(msgspec.Struct, frozen=True):
    """One line of a table."""

    name: str
    state: Literal["served", "refused", "not yet"]
    code: str
    """What a refusal says."""
    tests: tuple[str, ...]
    remark: str


_COLUMN = re.compile(r"(?<!\\)\|")
_STATE = re.compile(r"(served|not yet|refused)(?: `(\w+)`)?")
_TEST = re.compile(r"`(tests/[\w/]+\.py::\w+)`")


def _row(line: str) -> Row:
    _, name, state, shown_by, remark, *_ = (cell.strip() for cell in _COLUMN.split(line))
    match = _STATE.fullmatch(state)
    assert match is not None, f"no such state: {line}"
    found: Any = match[1]
    return Row(name.strip("`"), found, match[2] or "", tuple(_TEST.findall(shown_by)), remark)


def _tables() -> Mapping[str, list[Row]]:
    tables: dict[str, list[Row]] = {}
    section = ""
    for line in examples.page("docs/coverage.md").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
            tables[section] = []
        elif line.startswith("| ") and not line.startswith(("| What |", "| --- |")):
            tables[section].append(_row(line))
    return tables


TABLES = _tables()


def refused(section: str) -> list[Row]:
    """The rows of a section that are refused."""
    return [row for row in TABLES[section] if row.state == "refused"]


def served(section: str) -> set[str]:
    """What is served, by name."""
    return {row.name for row in TABLES[section] if row.state == "served"}


def named(section: str) -> list[str]:
    """Everything that has a row, by name."""
    return sorted(row.name for row in TABLES[section])


TOOLS: Mapping[str, ToolSpec] = {
    spec.type: spec for spec in discovery.constants("app.tools", "TOOL", ToolSpec).values()
}
SPELLINGS = {name for spec in TOOLS.values() for name in (spec.type, *spec.aliases)}
"""Every name that a client may write for a built-in tool."""
