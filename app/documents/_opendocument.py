"""OpenDocument files, completed with displayed content that the engine omits: formatted numbers, and the columns of
merged cells.
"""

from __future__ import annotations

from typing import Any

from app.documents._package import Package, serialized

_CONTENT = "content.xml"
_TEMPLATE = b"-template"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_CALC = "{urn:org:documentfoundation:names:experimental:calc:xmlns:calcext:1.0}"
_VALUES = ("value", "date-value", "time-value", "boolean-value", "currency")


def completed(package: Package) -> bytes:
    """The document with these added as text."""
    changed: dict[str, bytes] = {}
    declared = package.part("mimetype")
    if _TEMPLATE in declared:  # otherwise unchanged
        changed["mimetype"] = declared.partition(_TEMPLATE)[0]
    content = package.tree(_CONTENT)
    if content is not None and (_show if package.kind == "ods" else _uncover)(content):
        changed[_CONTENT] = serialized(content)
    return package.replaced(changed)


def _show(content: Any) -> bool:
    """A cell displays its text; a formula that was never calculated is displayed itself."""
    changed = _close_up(content)
    for cell in content.iter(f"{_TABLE}table-cell"):
        kind, formula, paragraph = (
            cell.get(f"{_OFFICE}value-type"),
            cell.get(f"{_TABLE}formula"),
            cell.find(f"{_TEXT}p"),
        )
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


def _close_up(content: Any) -> bool:
    """Drop the repetition of rows without text, and of such cells at the end of a row.

    A sheet's last row repeats a million times.
    """
    changed = False
    for row in content.iter(f"{_TABLE}table-row"):
        if len(row) and not _says(row[-1]) and row[-1].attrib.pop(f"{_TABLE}number-columns-repeated", None):
            changed = True
        if row.get(f"{_TABLE}number-rows-repeated") and not any(_says(cell) for cell in row):
            del row.attrib[f"{_TABLE}number-rows-repeated"]
            changed = True
    return changed


def _says(cell: Any) -> bool:
    return cell.get(f"{_OFFICE}value-type") is not None or cell.get(f"{_TABLE}formula") is not None or len(cell) > 0


def _uncover(content: Any) -> bool:
    """Cells covered by a merged one keep their position."""
    covered = list(content.iter(f"{_TABLE}covered-table-cell"))
    for cell in covered:
        cell.tag = f"{_TABLE}table-cell"
    return bool(covered)
