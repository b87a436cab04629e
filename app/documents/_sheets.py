"""Workbooks, completed with displayed content that the engine omits: formatted numbers, and formulas without a cached
value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from app.documents import _number_format
from app.documents._package import Package, serialized

_STYLES = "xl/styles.xml"
_SHEETS = "xl/worksheets/"
_MOST_FORMULA = 8192
"""Excel's limit in characters."""
_MOST_MOVED = 200
"""Characters of a shared formula that is adjusted for each row; a longer one is shown unchanged in each row."""
_FORMULA_OR_TRUTH = re.compile(rb"<(?:\w+:)?f[\s/>]|\bt=.b.")
_FAR = re.compile(rb"\br=.(?:[A-Z]{2,}|[A-Z]*\d{5})")
"""Columns from AA, rows from 10000."""
_CELL = re.compile(r"([A-Z]+)(\d+)$")
_MOST_DIGITS, _MOST_LETTERS = 20, 8
_MOST_EMPTY = 500_000
_SPARSE = 10
_TRUTHS = {"1": "TRUE", "0": "FALSE"}


def completed(package: Package) -> bytes:
    """The workbook with these added as text."""
    formats = _formats(package.tree(_STYLES))
    changed: dict[str, bytes] = {}
    for name in package.names:
        if name.startswith(_SHEETS) and name.endswith(".xml") and _may_change(package.part(name), formats):
            sheet = package.tree(name)
            if sheet is not None and _complete(sheet, formats):
                changed[name] = serialized(sheet)
    return package.replaced(changed)


def _may_change(content: bytes, formats: Mapping[str, str]) -> bool:
    """Parsing is expensive, and many sheets need none of this."""
    return bool(formats or _FORMULA_OR_TRUTH.search(content) or _FAR.search(content))


def _formats(styles: Any | None) -> dict[str, str]:
    """The number formats of cells, by a cell's style index."""
    if styles is None:
        return {}
    codes = {str(number): code for number, code in _number_format.BUILT_IN.items()}
    codes |= {
        one.get("numFmtId"): one.get("formatCode")
        for one in styles.iterfind("{*}numFmts/{*}numFmt")
        if one.get("formatCode")
    }
    cells = [form.get("numFmtId") for form in styles.iterfind("{*}cellXfs/{*}xf")]
    return {
        str(place): codes[number]
        for place, number in enumerate(cells)
        if number in codes and _number_format.shown("1", codes[number])
    }


def _complete(sheet: Any, formats: Mapping[str, str]) -> bool:
    space = str(sheet.tag).partition("}")[0] + "}"
    formulas = _show_formulas(sheet, space)
    numbers = _show_numbers(sheet, space, formats)
    return _close_up(sheet, space) or formulas or numbers


def _show_formulas(sheet: Any, space: str) -> bool:
    """A formula without a value is shown itself."""
    shared: dict[str, tuple[str, str]] = {}
    changed = False
    for formula in list(sheet.iter(f"{space}f")):
        cell = formula.getparent()
        text = _formula(cell, formula, shared)
        if text is not None and not cell.findtext(f"{space}v"):
            cell.remove(formula)
            value = cell.find(f"{space}v")
            _write(cell, cell.makeelement(f"{space}v") if value is None else value, text)
            changed = True
    return changed


def _show_numbers(sheet: Any, space: str, formats: Mapping[str, str]) -> bool:
    changed = False
    for cell in sheet.iter(f"{space}c"):
        kind, code = cell.get("t", "n"), formats.get(cell.get("s"))
        if kind != "b" and (kind != "n" or code is None):
            continue
        value = cell.find(f"{space}v")
        if value is None or not value.text:
            continue
        text = _TRUTHS.get(value.text) if code is None or kind == "b" else _shown(value.text, code)
        if text is not None:
            _write(cell, value, text)
            changed = True
    return changed


_shown = lru_cache(maxsize=65_536)(_number_format.shown)


def _close_up(sheet: Any, space: str) -> bool:
    """Rows and columns without cells are removed if they far outnumber the others: the whole sheet would not fit in
    memory.
    """
    rows = [row for row in sheet.findall(f"{space}sheetData/{space}row") if len(row)]
    if _extent(rows) <= max(_MOST_EMPTY, _SPARSE * sum(map(len, rows))):
        return False
    _renumber(rows)
    for name in ("dimension", "mergeCells"):
        for other in sheet.findall(f"{space}{name}"):
            sheet.remove(other)
    return True


def _extent(rows: Sequence[Any]) -> int:
    """Cells of the smallest rectangle with all the rows, empty ones included."""
    ends = [found for row in rows if (found := _CELL.match(row[-1].get("r") or ""))]
    height = max((int(found[2].lstrip("0").rjust(_MOST_DIGITS, "0")[:_MOST_DIGITS]) for found in ends), default=0)
    return height * max((_place(found[1]) for found in ends), default=0)


def _renumber(rows: Sequence[Any]) -> None:
    placed = [(cell, found) for row in rows for cell in row if (found := _CELL.match(cell.get("r") or ""))]
    columns = sorted({found[1] for _, found in placed}, key=lambda letters: (len(letters), letters))
    letters = {old: _letters(place) for place, old in enumerate(columns)}
    numbers = {row: str(place) for place, row in enumerate(rows, 1)}
    for row, number in numbers.items():
        row.set("r", number)
    for cell, found in placed:
        cell.set("r", letters[found[1]] + numbers[cell.getparent()])


def _place(letters: str) -> int:
    """A is 1."""
    place = 0
    for letter in letters[:_MOST_LETTERS]:
        place = place * 26 + ord(letter) - ord("A") + 1
    return place


def _letters(place: int) -> str:
    """0 is A."""
    return (_letters(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)  # noqa: PLR2004 - letters


def _formula(cell: Any, formula: Any, shared: dict[str, tuple[str, str]]) -> str | None:
    """As entered. Of a shared formula only the first is in the file; the others are derived from it."""
    written, place = str(formula.text or "")[:_MOST_FORMULA], str(cell.get("r") or "")
    if formula.get("t") != "shared":
        return f"={written}" if written else None
    if written:
        shared[formula.get("si")] = (f"={written}", place)
        return f"={written}"
    first = shared.get(formula.get("si"))
    if first is None or len(first[0]) > _MOST_MOVED:
        return first and first[0]
    from openpyxl.formula.translate import Translator  # noqa: PLC0415 # pyright: ignore[reportMissingModuleSource] - heavy

    translate: Any = Translator
    try:
        return str(translate(first[0], origin=first[1]).translate_formula(place))
    except (ValueError, TypeError, IndexError):
        return first[0]


def _write(cell: Any, value: Any, text: str) -> None:
    cell.set("t", "str")
    value.text = text
    if value.getparent() is None:
        cell.append(value)
