"""Word documents, completed with what Word shows and the engine does not: the numbers of lists, and what is entered in forms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.documents import _numbering
from app.documents._package import Package, serialized

_BODY = "word/document.xml"
_STYLES = "word/styles.xml"
_COMPATIBLE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_MARKS = (b"Fallback", b"ffData")


def completed(package: Package) -> bytes:
    """The document with these as text, and without the second copy of text boxes."""
    numbering, written = package.tree("word/numbering.xml"), package.part(_BODY)
    if numbering is None and not any(mark in written for mark in _MARKS):
        return package.content
    body, styles = package.tree(_BODY), package.tree(_STYLES)
    if body is None:
        return package.content
    _drop_copies(body)
    _fill_in(body)
    if numbering is not None:
        _numbering.write(body, numbering, styles)
    return package.replaced({_BODY: serialized(body)} | ({} if styles is None else {_STYLES: serialized(styles)}))


def _drop_copies(body: Any) -> None:
    """What a text box says, said again for older readers."""
    for copy in list(body.iter(f"{_COMPATIBLE}Fallback")):
        choice = copy.getparent().find(f"{_COMPATIBLE}Choice")
        if choice is not None and next(_boxes(choice), None) is not None and next(_boxes(copy), None) is not None:
            copy.getparent().remove(copy)


def _boxes(parent: Any) -> Iterator[Any]:
    return parent.iter("{*}txbxContent")


def _fill_in(body: Any) -> None:
    """What a check box or a list of an old form shows is drawn by Word; here it becomes text."""
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
    """An element that is there without a value is meant."""
    if element is None:
        return otherwise
    return next((str(value) for name, value in element.attrib.items() if str(name).endswith("}val")), otherwise)
