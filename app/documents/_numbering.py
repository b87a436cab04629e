"""The numbers that Word generates (1.2, 第三条, a) ), written into their paragraphs as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from app.documents import _numerals

_DEEPEST = 8
_LONGEST = 200
"""Characters of the text around a number."""
_MOST_DIGITS = 9
_MOST_STEPS = 50
"""In a chain of styles, each based on the next."""


class _Level(msgspec.Struct, frozen=True):
    """How one level of a list is numbered."""

    format: str = "decimal"
    text: str = ""
    start: int = 1
    style: str | None = None
    arabic: bool = False
    """Other levels' numbers are displayed as 1, 2, 3."""
    restarts: bool = True
    separator: str = " "


class _List(msgspec.Struct, frozen=True):
    """What a paragraph refers to by number id."""

    counted_as: str
    levels: Mapping[int, _Level]
    starts: Mapping[int, int]
    """Levels that restart when this list is first used."""


class _Style(msgspec.Struct, frozen=True):
    number: str | None
    level: int | None
    based_on: str | None


def write(document: Any, numbering: Any, styles: Any | None) -> None:
    """Write the numbers into the document's tree (lxml)."""
    lists, known = _lists(numbering), {} if styles is None else _styles(styles)
    found = [(paragraph, *placed) for paragraph in _each(document, "p") if (placed := _place(paragraph, known, lists))]
    counters: dict[str, dict[int, int]] = {}
    begun: set[tuple[str, int]] = set()
    for paragraph, number, level in found:
        label = _label(lists[number], level, _count(lists[number], number, level, (counters, begun)))
        if label is not None:
            _insert(paragraph, label)
    for style in () if styles is None else _each(styles, "style"):
        _take_out(style, lists)


def _take_out(style: Any, lists: Mapping[str, _List]) -> None:
    """The style no longer numbers its paragraphs, whose numbers are text now."""
    membership = _child(style, "pPr", "numPr")
    if membership is None:
        return
    known = lists.get(_value(membership, "numId") or "")
    if known is not None and any(level.format != "bullet" for level in known.levels.values()):
        membership.getparent().remove(membership)


def _each(parent: Any, name: str) -> Iterator[Any]:
    return parent.iter(f"{{{_space(parent)}}}{name}")


def _space(element: Any) -> str:
    return str(element.tag)[1:].partition("}")[0]


def _child(element: Any, *path: str) -> Any | None:
    return None if element is None else element.find("/".join(f"{{{_space(element)}}}{step}" for step in path))


def _value(element: Any, *path: str) -> str | None:
    found = _child(element, *path) if path else element
    return None if found is None else found.get(f"{{{_space(found)}}}val")


def _number(written: str | None, otherwise: int) -> int:
    return int(written) if written and written.isdecimal() and len(written) <= _MOST_DIGITS else otherwise


def _lists(numbering: Any) -> dict[str, _List]:
    space = _space(numbering)
    kinds = {kind.get(f"{{{space}}}abstractNumId"): kind for kind in numbering.findall(f"{{{space}}}abstractNum")}
    by_style = {name: kind for kind in kinds.values() if (name := _value(kind, "styleLink"))}
    lists: dict[str, _List] = {}
    for number in numbering.findall(f"{{{space}}}num"):
        identity = _value(number, "abstractNumId") or ""
        kind = kinds.get(identity)
        linked = (_value(kind, "numStyleLink") if kind is not None else None) or ""
        levels = _levels(by_style.get(linked, kind)) if kind is not None else {}
        starts: dict[int, int] = {}
        for change in number.findall(f"{{{space}}}lvlOverride"):
            levels |= _levels(change)
            if _value(change, "startOverride"):
                starts[_depth(change.get(f"{{{space}}}ilvl"))] = _number(_value(change, "startOverride"), 1)
        lists[number.get(f"{{{space}}}numId")] = _List(identity, levels, starts)
    return lists


def _levels(parent: Any) -> dict[int, _Level]:
    space = _space(parent)
    return {
        _depth(level.get(f"{{{space}}}ilvl")): _Level(
            _value(level, "numFmt") or "decimal",
            (_value(level, "lvlText") or "")[:_LONGEST],
            _number(_value(level, "start"), 0),
            _value(level, "pStyle"),
            _child(level, "isLgl") is not None,
            _value(level, "lvlRestart") != "0",
            "" if _value(level, "suff") == "nothing" else " ",
        )
        for level in parent.findall(f"{{{space}}}lvl")
    }


def _depth(written: str | None) -> int:
    return min(max(_number(written, 0), 0), _DEEPEST)


def _styles(styles: Any) -> dict[str | None, _Style]:
    known: dict[str | None, _Style] = {}
    space = _space(styles)
    for style in styles.findall(f"{{{space}}}style"):
        level = _value(style, "pPr", "numPr", "ilvl")
        known[style.get(f"{{{space}}}styleId")] = _Style(
            _value(style, "pPr", "numPr", "numId"), None if level is None else _depth(level), _value(style, "basedOn")
        )
    return known


def _place(paragraph: Any, styles: Mapping[str | None, _Style], lists: Mapping[str, _List]) -> tuple[str, int] | None:
    """The list and the level of a paragraph, its own or its style's."""
    number, level = _value(paragraph, "pPr", "numPr", "numId"), _value(paragraph, "pPr", "numPr", "ilvl")
    name = _value(paragraph, "pPr", "pStyle")
    depth = None if level is None else _depth(level)
    for _ in range(_MOST_STEPS):
        style = styles.get(name)
        if number is not None or style is None:
            break
        number, depth = style.number, style.level if depth is None else depth
        if number is None:
            name = style.based_on
    known = lists.get(number or "")
    if known is None or number is None:
        return None
    if depth is None:
        depth = next((at for at, one in known.levels.items() if one.style is not None and one.style == name), 0)
    return (number, depth) if depth in known.levels else None


def _count(
    known: _List, number: str, level: int, state: tuple[dict[str, dict[int, int]], set[tuple[str, int]]]
) -> Mapping[int, int]:
    """The counters of all levels, including this paragraph."""
    counters, begun = state
    at = counters.setdefault(known.counted_as, {})
    if level in known.starts and (number, level) not in begun:
        at[level] = known.starts[level]
    else:
        at[level] = at[level] + 1 if level in at else known.levels[level].start
    begun.add((number, level))
    for deeper in [one for one in at if one > level and known.levels.get(one, _Level()).restarts]:
        del at[deeper]
    return at


def _label(known: _List, level: int, at: Mapping[int, int]) -> str | None:
    """What Word displays before the paragraph; None for a bullet."""
    here = known.levels[level]
    if here.format == "bullet":
        return None
    label = here.text
    for upper in range(_DEEPEST + 1):
        if f"%{upper + 1}" in label:
            one = known.levels.get(upper, _Level())
            shown: Callable[[int], str] = _numerals.FORMATS.get("decimal" if here.arabic else one.format, str)
            label = label.replace(f"%{upper + 1}", shown(at.get(upper, one.start)))
    return label + here.separator if label.strip() else ""


def _insert(paragraph: Any, label: str) -> None:
    """Insert the label as text; the paragraph is no longer part of a list."""
    space = _space(paragraph)
    properties = _child(paragraph, "pPr")
    if properties is None:
        properties = paragraph.makeelement(f"{{{space}}}pPr")
        paragraph.insert(0, properties)
    for old in properties.findall(f"{{{space}}}numPr"):
        properties.remove(old)
    run = paragraph.makeelement(f"{{{space}}}r")
    text = run.makeelement(f"{{{space}}}t", {"{http://www.w3.org/XML/1998/namespace}space": "preserve"})
    text.text = label
    run.append(text)
    paragraph.insert(paragraph.index(properties) + 1, run)
