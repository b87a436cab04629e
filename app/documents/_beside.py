"""Content outside the text of an Office document, in separate parts that the engine does not read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from app.documents import _markdown
from app.documents._package import Package
from app.documents.base import Reading, counted

_CHART = re.compile(r"(?:word|xl)/charts/chart\d*\.xml$")
_DIAGRAM = re.compile(r"(?:word|xl)/diagrams/data\d*\.xml$")
_DRAWING = re.compile(r"xl/drawings/drawing\d*\.xml$")
_COMMENTS = re.compile(r"xl/(?:comments\d*|comments/comment\d*|threadedComments/threadedComment\d*)\.xml$")
_REMARKS = re.compile(r"ppt/comments/\w+\.xml$")
_PICTURES = "xl/media/"
_EMBEDDED = re.compile(r"(?:word|xl|ppt)/embeddings/(?!Microsoft_Excel_(?:Sheet|Worksheet)\d*\.xlsx$).")
"""A workbook with such a name holds the data of a chart."""
_INSERTED = re.compile(r"word/(?:.*/)?afchunk\d*\.\w+$", re.IGNORECASE)
_MOST_POINTS = 5_000
_NOTED_THREAD = "[Threaded comment]"
"""The beginning of the placeholder that older programs show for a comment with its own part."""


def read(package: Package) -> Reading:
    """Charts, diagrams, text boxes of sheets and comments, and how much of it cannot be read."""
    names = sorted(package.names)
    texts = [text for name in names for text in _texts(package, name) if text]
    counts = (
        (sum(name.startswith(_PICTURES) for name in names), "picture"),
        (sum(_EMBEDDED.match(name) is not None for name in names), "embedded file"),
        (sum(_INSERTED.match(name) is not None for name in names), "inserted document"),
    )
    return Reading("\n\n".join(texts), tuple(counted(number, what) for number, what in counts if number))


def _texts(package: Package, name: str) -> Iterator[str]:
    kinds = ((_CHART, _chart), (_DIAGRAM, _diagram), (_DRAWING, _boxes), (_COMMENTS, _comments), (_REMARKS, _remarks))
    write = next((write for pattern, write in kinds if pattern.match(name)), None)
    root = None if write is None else package.tree(name)
    if write is not None and root is not None:
        yield from write(root)


def _chart(root: Any) -> Iterator[str]:
    """Its title, and a table with one column per series."""
    title = _line(root.find(".//{*}title"))
    series = list(root.iter("{*}ser"))
    names, columns = (
        _scattered(series) if any(one.find("{*}xVal") is not None for one in series) else _categorised(series)
    )
    rows = [
        [column[place] if place < len(column) else "" for column in columns] for place in range(max(map(len, columns)))
    ]
    yield "\n\n".join(
        filter(None, [f"[Chart{': ' if title else ''}{title}]", _markdown.table([names, *rows]) if rows else ""])
    )


_Columns = tuple[list[str], list[list[str]]]
"""Column names and columns."""


def _categorised(series: list[Any]) -> _Columns:
    names = ["", *(_line(one.find("{*}tx")) for one in series)]
    return names, [
        _points(series[0].find("{*}cat") if series else None),
        *(_points(one.find("{*}val")) for one in series),
    ]


def _scattered(series: list[Any]) -> _Columns:
    """Each series has its own x values, and bubbles have a size."""
    axes = [
        (one, axis) for one in series for axis in ("xVal", "yVal", "bubbleSize") if one.find(f"{{*}}{axis}") is not None
    ]
    names = [f"{_line(one.find('{*}tx'))} {axis.removesuffix('Val')}".strip() for one, axis in axes]
    return names, [_points(one.find(f"{{*}}{axis}")) for one, axis in axes]


def _points(values: Any | None) -> list[str]:
    """By index: blank ones are omitted from the file."""
    found: dict[int, str] = {}
    points: list[Any] = [] if values is None else values.findall(".//{*}pt")
    for point in points[:_MOST_POINTS]:
        place = str(point.get("idx") or "")
        if place.isdecimal() and len(place) <= len(str(_MOST_POINTS)) and int(place) < _MOST_POINTS:
            # the innermost level of categories comes first
            found.setdefault(int(place), str(point.findtext("{*}v") or ""))
    return [found.get(place, "") for place in range(max(found, default=-1) + 1)]


def _line(parent: Any | None) -> str:
    """All text below, on one line."""
    found = () if parent is None else parent.iter("{*}t", "{*}v")
    return " ".join(" ".join(str(text.text or "") for text in found).split())


def _paragraphs(parent: Any) -> Iterator[str]:
    for paragraph in parent.iter("{*}p"):
        if line := "".join(str(text.text or "") for text in paragraph.iter("{*}t")).strip():
            yield line


def _diagram(root: Any) -> Iterator[str]:
    lines = [f"- {line}" for line in _paragraphs(root)]
    yield "\n".join(["[Diagram]", *lines]) if lines else ""


def _boxes(root: Any) -> Iterator[str]:
    for box in root.iter("{*}txBody"):
        lines = list(_paragraphs(box))
        yield f"[Text box] {chr(10).join(lines)}" if lines else ""


def _comments(root: Any) -> Iterator[str]:
    for comment in root.iter("{*}comment", "{*}threadedComment"):
        text = " ".join("".join(str(run.text or "") for run in comment.iter("{*}t", "{*}text")).split())
        if text and not text.startswith(_NOTED_THREAD):
            yield f"[Comment on {comment.get('ref')}] {text}"


def _remarks(root: Any) -> Iterator[str]:
    for comment in root.iter("{*}cm"):
        text = " ".join("".join(str(run.text or "") for run in comment.iter("{*}text", "{*}t")).split())
        yield f"[Comment] {text}" if text else ""
