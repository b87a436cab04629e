"""OpenDocument files, completed with what is shown and the engine does not give: numbers as formatted, and the columns of merged cells."""

from __future__ import annotations

from typing import Any

from app.documents._package import Package, serialized

_CONTENT = "content.xml"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_CALC = "{urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0}"
_VALUES = ("value", "date-value", "time-value", "boolean-value", "currency")


def completed(package: Package) -> bytes:
    """The document with these as text."""
    content = package.tree(_CONTENT)
    if content is None:
        return package.content
    change = _show if package.kind == "ods" else _uncover
    return package.replaced({_CONTENT: serialized(content)}) if change(content) else package.content


def _show(content: Any) -> bool:
    """What a cell shows is its text; a formula that was never calculated is shown itself."""
    changed = False
    for cell in content.iter(f"{_TABLE}table-cell"):
        kind, formula, paragraph = cell.get(f"{_OFFICE}value-type"), cell.get(f"{_TABLE}formula"), cell.find(f"{_TEXT}p")
        if kind is None and formula and paragraph is None:
            paragraph = cell.makeelement(f"{_TEXT}p")
            paragraph.text = "=" + formula.partition("=")[2]
            cell.append(paragraph)
        elif kind in (None, "string") or paragraph is None:
            continue
        cell.set(f"{_OFFICE}value-type", "string")
        for name in (*(f"{_OFFICE}{kind}" for kind in _VALUES), f"{_CALC}value-type"):
            cell.attrib.pop(name, None)
        changed = True
    return changed


def _uncover(content: Any) -> bool:
    """Cells that are covered by a merged one keep their place."""
    covered = list(content.iter(f"{_TABLE}covered-table-cell"))
    for cell in covered:
        cell.tag = f"{_TABLE}table-cell"
    return bool(covered)
