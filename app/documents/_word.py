"""Word documents to Markdown: headings, lists, tables, and the text of links, boxes, content controls and accepted insertions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from app.documents import _markdown

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_LEFT_OUT = frozenset({f"{_W}del", f"{_W}moveFrom", "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"})
"""What was deleted or moved away, and the second copy of a text box for older readers."""
_CHARACTERS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_HEADING = re.compile(r"heading (?P<level>[1-9])$", re.IGNORECASE)
_LIST = re.compile(r"list (?P<kind>bullet|number)(?: (?P<level>[1-9]))?$", re.IGNORECASE)
_DEEPEST = 6


def read(content: bytes) -> str:
    """The document's body."""
    from docx import Document  # noqa: PLC0415 - heavy

    document: Any = Document(BytesIO(content))
    return "\n\n".join(_Reader(document).blocks(document.element.body))


class _Reader:
    def __init__(self, document: Any) -> None:
        self._styles = {style.style_id: str(style.name or "") for style in document.styles}
        self._bullets = _bullets(document)

    def blocks(self, parent: Any) -> Iterator[str]:
        """Paragraphs and tables in order, whatever wraps them. Items of one list are one block."""
        items: list[str] = []
        for element in _children(parent, (f"{_W}p", f"{_W}tbl")):
            block, is_item = self._paragraph(element) if element.tag == f"{_W}p" else (self._table(element), False)
            if is_item:
                items.append(block)
                continue
            if items:
                yield "\n".join(items)
                items = []
            if block:
                yield block
        if items:
            yield "\n".join(items)

    def _paragraph(self, element: Any) -> tuple[str, bool]:
        text = "".join(_text(element)).strip()
        style = self._styles.get(_value(element, "pPr/pStyle") or "", "")
        if not text:
            return "", False
        if style == "Title":
            return f"# {text}", False
        if heading := _HEADING.match(style):
            return f"{'#' * min(int(heading['level']), _DEEPEST)} {' '.join(text.split())}", False
        if marker := self._marker(element, style):
            return marker + text, True
        return text, False

    def _marker(self, element: Any, style: str) -> str:
        number, level = _value(element, "pPr/numPr/numId"), int(_value(element, "pPr/numPr/ilvl") or 0)
        if number is not None and number != "0":
            return "  " * level + ("- " if (number, level) in self._bullets else "1. ")
        if found := _LIST.match(style):
            return "  " * (int(found["level"] or 1) - 1) + ("- " if found["kind"].lower() == "bullet" else "1. ")
        return ""

    def _table(self, element: Any) -> str:
        rows = [["\n".join(self.blocks(cell)) for cell in _children(row, (f"{_W}tc",))] for row in _children(element, (f"{_W}tr",))]
        return _markdown.table(rows)


def _children(parent: Any, wanted: tuple[str, ...]) -> Iterator[Any]:
    """The next elements of these kinds below `parent`, in order."""
    for child in parent:
        if child.tag in wanted:
            yield child
        elif child.tag not in _LEFT_OUT:
            yield from _children(child, wanted)


def _text(element: Any) -> Iterator[str]:
    for child in element:
        if child.tag == f"{_W}t":
            yield child.text or ""
        elif child.tag in _CHARACTERS:
            yield _CHARACTERS[child.tag]
        elif child.tag == f"{_W}p":  # of a text box
            yield from ("\n", *_text(child), "\n")
        elif child.tag not in _LEFT_OUT and child.tag != f"{_W}pPr":
            yield from _text(child)


def _value(element: Any, path: str) -> str | None:
    found = element.find("/".join(f"{_W}{step}" for step in path.split("/")))
    return None if found is None else found.get(f"{_W}val")


def _bullets(document: Any) -> frozenset[tuple[str, int]]:
    """Which (list, level) is marked by bullets instead of numbers."""
    related = (relation for relation in document.part.rels.values() if not relation.is_external)
    root = next((relation.target_part.element for relation in related if relation.reltype.endswith("/numbering")), None)
    if root is None:
        return frozenset()
    kinds: dict[str, set[int]] = {}
    for abstract in root.findall(f"{_W}abstractNum"):
        levels = abstract.findall(f"{_W}lvl")
        bulleted = {int(level.get(f"{_W}ilvl") or 0) for level in levels if _value(level, "numFmt") == "bullet"}
        kinds[abstract.get(f"{_W}abstractNumId")] = bulleted
    return frozenset(
        (number.get(f"{_W}numId"), level)
        for number in root.findall(f"{_W}num")
        for level in kinds.get(_value(number, "abstractNumId") or "", ())
    )
