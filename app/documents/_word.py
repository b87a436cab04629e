"""Word documents, completed with content that Word displays and the engine omits: list numbers, and values of form
fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from app.documents import _numbering
from app.documents._package import Package, serialized

_BODY = "word/document.xml"
_STYLES = "word/styles.xml"
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_STRICT_MATH = "{http://purl.oclc.org/ooxml/officeDocument/math}"
_MARK = "\ue0f1"
"""A private-use character, which has no meaning in any text."""
_EQUATION = re.compile(r"\$\$[^$]+\$\$")
_COMPATIBLE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_MARKS = (b"Fallback", b"ffData", b":sym ", b":cr/", b":moveFrom ", b":oMath")
_SYMBOLS = {
    "symbol": dict(zip(range(0x41, 0x5B), "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ", strict=True))
    | dict(zip(range(0x61, 0x7B), "αβχδεφγηιϕκλμνοπθρστυϖωξψζ", strict=True))
    | {
        0xA3: "≤",
        0xB3: "≥",
        0xB1: "±",
        0xB4: "\u00d7",
        0xB8: "÷",
        0xB9: "≠",
        0xBB: "≈",
        0xA5: "∞",
        0xD6: "√",
        0xE5: "∑",
        0xF2: "∫",
        0xB0: "°",
    },
    "wingdings": {
        0x6C: "●",
        0x6E: "■",
        0x6F: "□",
        0xA7: "▪",
        0xA8: "☐",
        0xD8: "➢",
        0xE0: "→",
        0xFB: "✗",
        0xFC: "✓",
        0xFD: "☒",
        0xFE: "☑",
    },
    "wingdings 2": {0x4F: "✗", 0x50: "✓", 0x51: "☒", 0x52: "☑", 0xA3: "☐"},
}
"""Characters of fonts that have symbols in place of letters."""
_UNKNOWN_SYMBOL = "[Symbol]"


def completed(package: Package) -> bytes:
    """The document with these added as text, and without the second copy of text boxes."""
    numbering, written = package.tree("word/numbering.xml"), package.part(_BODY)
    if numbering is None and not any(mark in written for mark in _MARKS):
        return package.content
    body, styles = package.tree(_BODY), package.tree(_STYLES)
    if body is None:
        return package.content
    _drop_copies(body)
    _drop_moved(body)
    _spell_out(body)
    _fill_in(body)
    _mark_equations(body, _headings(styles))
    if numbering is not None:
        _numbering.write(body, numbering, styles)
    return package.replaced({_BODY: serialized(body)} | ({} if styles is None else {_STYLES: serialized(styles)}))


def _drop_copies(body: Any) -> None:
    """Drop the copies of text boxes for older readers."""
    for copy in list(body.iter(f"{_COMPATIBLE}Fallback")):
        choice = copy.getparent().find(f"{_COMPATIBLE}Choice")
        if choice is not None and next(_boxes(choice), None) is not None and next(_boxes(copy), None) is not None:
            copy.getparent().remove(copy)


def _boxes(parent: Any) -> Iterator[Any]:
    return parent.iter("{*}txbxContent")


def _drop_moved(body: Any) -> None:
    """Drop text that a tracked change moved away: it is also where it was moved to."""
    for moved in list(body.iter("{*}moveFrom")):
        moved.getparent().remove(moved)


def _spell_out(body: Any) -> None:
    """Symbols given by font and number, and an old kind of line break."""
    for sign in list(body.iter("{*}sym")):
        attributes = {str(name).rpartition("}")[2]: str(value) for name, value in sign.attrib.items()}
        character = _sign(attributes.get("font", "").lower(), attributes.get("char", ""))
        text = sign.makeelement(str(sign.tag).replace("}sym", "}t"))
        text.text = character
        sign.getparent().replace(sign, text)
    for end in body.iter("{*}cr"):
        end.tag = str(end.tag).replace("}cr", "}br")


def _headings(styles: Any | None) -> frozenset[str]:
    """The ids of the heading styles."""
    found = () if styles is None else styles.findall("{*}style")
    return frozenset(
        str(_named(style, "styleId"))
        for style in found
        if _value(style.find("{*}name"), "").lower().startswith(("heading", "title"))
    )


def _mark_equations(body: Any, headings: frozenset[str]) -> None:
    """The engine puts the equations of a paragraph before it, and drops those of headings.

    A mark keeps the position of each.
    """
    for equation in list(body.iter(f"{_MATH}oMath", f"{_STRICT_MATH}oMath")):
        paragraph = equation.getparent()
        if not str(paragraph.tag).endswith("}p"):
            continue
        space = str(paragraph.tag).removesuffix("p")
        run, text = paragraph.makeelement(f"{space}r"), paragraph.makeelement(f"{space}t")
        is_heading = _value(paragraph.find("{*}pPr/{*}pStyle"), "") in headings
        text.text = "".join(str(part.text or "") for part in equation.iter("{*}t")) if is_heading else _MARK
        run.append(text)
        equation.addprevious(run)


def with_equations(text: str) -> str:
    """The text with each equation at its mark."""
    if _MARK not in text:
        return text
    blocks: list[str] = []
    for block in text.split("\n\n"):
        pieces = block.split(_MARK)
        marks = len(pieces) - 1
        equations = blocks[len(blocks) - marks :] if marks else []
        if len(equations) == marks and all(map(_EQUATION.fullmatch, equations)):
            del blocks[len(blocks) - marks :]
        else:
            equations = [""] * marks
        inline = [f"${equation.strip('$').strip()}$" if equation else "" for equation in equations]
        blocks.append("".join(piece + shown for piece, shown in zip(pieces, [*inline, ""], strict=True)))
    return "\n\n".join(blocks)


def _sign(font: str, number: str) -> str:
    try:
        code = int(number, 16)
    except ValueError:
        return _UNKNOWN_SYMBOL
    if font in _SYMBOLS:
        return _SYMBOLS[font].get(code & 0xFF, _UNKNOWN_SYMBOL)
    private = 0xE000 <= code < 0xF900  # noqa: PLR2004 - where each font has its own symbols
    return _UNKNOWN_SYMBOL if private or not chr(min(code, 0x10FFFF)).isprintable() else chr(code)


def _fill_in(body: Any) -> None:
    """Word renders the value of a legacy check box or drop-down list itself; here it becomes text."""
    for field in body.iter("{*}ffData"):
        shown = _entered(field)
        run = field.getparent().getparent()
        if shown is None or run is None:
            continue
        space = str(run.tag).partition("}")[0]
        text = run.makeelement(f"{space}}}t")
        text.text = shown
        copy = run.makeelement(f"{space}}}r")
        copy.append(text)
        run.addprevious(copy)


def _entered(field: Any) -> str | None:
    box, choices = field.find("{*}checkBox"), field.find("{*}ddList")
    if box is not None:
        state = box.find("{*}checked")
        state = box.find("{*}default") if state is None else state
        return "\u2610" if state is None or _value(state, "1") in ("0", "false", "off") else "\u2612"
    if choices is None:
        return None
    entries = [_value(entry, "") for entry in choices.findall("{*}listEntry")]
    chosen = _value(choices.find("{*}result"), "0")
    return entries[int(chosen)] if chosen.isdecimal() and int(chosen) < len(entries) else None


def _value(element: Any | None, otherwise: str) -> str:
    """The value of an element; `otherwise` if the element or the value is missing."""
    found = None if element is None else _named(element, "val")
    return otherwise if found is None else found


def _named(element: Any, attribute: str) -> str | None:
    return next((str(value) for name, value in element.attrib.items() if str(name).endswith(f"}}{attribute}")), None)
