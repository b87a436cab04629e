"""Splits a text into overlapping passages, at headings, paragraphs and sentences where possible.

Tokens are estimated, since every model has its own tokenizer: 4 bytes of UTF-8 per token, or 1.5 characters of Chinese,
Japanese or Korean. For Qwen's and OpenAI's vocabularies that is about 10 % too high for prose, and too low for digits
and rare words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from app.knowledge.ports.passages import Passage
from app.knowledge.words import DENSE
from app.offload.protocol import Limits
from app.offload.workers import Workers

_WORKERS = Workers(Limits(seconds=120.0), places=2)
_LONGEST_HEADING = 160
"""Characters of a heading that is put before a passage."""
_BYTES_A_TOKEN = 4
_DENSE_A_TOKEN = 1.5
_PIECES = 8
"""No piece is larger than this fraction of a passage, so that passages can be nearly full and overlap nearly as
requested.
"""
_RANK_OF_HEADING = 3
_MOST_HEADING = 0.25
"""Of a passage: with a heading that fills it, each would say little more than the heading, and there would be ten times
as many.
"""
_LEAST_FULL = 0.75
"""A passage ends at the best position in its last quarter.

With an overlap of at most half, every passage adds at least a quarter.
"""

_DENSE = re.compile(f"[{DENSE}]")
_HEADING_LINE = r"(?:#{1,6}[ \t]+\S[^\n]*|第[一二三四五六七八九十百零〇\d]{1,6}[章节條条篇部][^\n。]{0,80})\n[ \t\r\n]*"
_HEADING = re.compile(_HEADING_LINE)

# Chinese punctuation, as escapes where it is easily confused: ! ? ; and closing quotation marks and bracket; then , and
# :
_MARKS, _CLOSING, _COMMAS = "。…\uff01\uff1f\uff1b", "”\u2019」』\uff09", "、\uff0c\uff1a"
_STOP = re.compile(
    rf"^{_HEADING_LINE}|\n[ \t\r\n]*|[{_MARKS}]+[{_CLOSING}]*|(?<=[.!?])[\"'{_CLOSING})\]]*[ \t]+", re.MULTILINE
)
_BREAKS = re.compile(rf"[,;:{_COMMAS}]\s*|\s+")


class _Piece(NamedTuple):
    text: str
    cost: float
    """Tokens."""
    rank: int
    """How good a split before it is: 0 within a sentence, 1 at a sentence or a line, 2 at a paragraph, 3 at a
    heading.
    """
    heading: str
    """The heading of its section; of a heading, itself."""


async def split(text: str, *, size: int, overlap: int, project: str) -> list[Passage]:
    """Split a text into passages of `size` tokens that share `overlap`, in a worker process. Raises OffloadFailed."""
    return await _WORKERS.run(passages, text, size, overlap, project=project)


def passages(text: str, size: int, overlap: int) -> list[Passage]:
    """Passages of at most `size` tokens, sharing at most `overlap`, which is at most half of `size`, with the previous
    one.

    One that begins within a section is prefixed with the section's heading, or with as much of it as a quarter holds.
    Takes time in proportion to the text.
    """
    clean = text.replace("\0", "").encode("utf-8", "replace").decode()
    pieces = list(_pieces(clean, size / _PIECES))
    costs = [0.0, *accumulate(piece.cost for piece in pieces)]
    found: list[Passage] = []
    start = 0
    while start < len(pieces):
        heading = _cut(_heading(pieces, start), size * _MOST_HEADING)
        end = _end(pieces, costs, start, size - estimate(heading))
        body = "".join(piece.text for piece in pieces[start:end]).strip()
        if body:
            found.append(Passage(len(found), f"{heading}\n\n{body}" if heading else body))
        if end == len(pieces):
            break
        start = _next(pieces, costs, start, end, overlap)
    return found


def estimate(text: str) -> float:
    """Tokens."""
    if text.isascii():
        return len(text) / _BYTES_A_TOKEN
    dense = _DENSE.findall(text)
    rest = len(text.encode()) - sum(len(one.encode()) for one in dense)
    return len(dense) / _DENSE_A_TOKEN + rest / _BYTES_A_TOKEN


def _pieces(text: str, most: float) -> Iterator[_Piece]:
    heading, rank = "", 2
    for unit in _units(text):
        is_heading = rank > 0 and _HEADING.fullmatch(unit) is not None
        if is_heading:
            heading, rank = unit.strip()[:_LONGEST_HEADING], _RANK_OF_HEADING
        cost = estimate(unit)
        if cost <= most:
            yield _Piece(unit, cost, rank, heading)
        else:
            for number, part in enumerate(_parts(unit, most)):
                yield _Piece(part, estimate(part), rank if number == 0 else 0, heading)
        rank = 2 if unit.count("\n") > 1 else 1


def _units(text: str) -> Iterator[str]:
    """Sentences, or lines where these end earlier, each with the whitespace after it."""
    start = 0
    for stop in _STOP.finditer(text):
        yield text[start : stop.end()]
        start = stop.end()
    if start < len(text):
        yield text[start:]


def _parts(unit: str, most: float) -> Iterator[str]:
    """A sentence that is too long, split at commas and spaces, or anywhere if there are none."""
    widest = max(1, int(most))
    """A number of characters that is always within the limit: none costs more than one token."""
    start = 0
    while start < len(unit):
        stop = _reach(unit, start, widest, most)
        if stop < len(unit):
            breaks = [match.end() for match in _BREAKS.finditer(unit, start + (stop - start) // 2, stop)]
            stop = breaks[-1] if breaks else stop
        yield unit[start:stop]
        start = stop


def _reach(unit: str, start: int, widest: int, most: float) -> int:
    """How far the limit reaches from `start`."""
    stop = start + widest
    left = most - estimate(unit[start:stop])
    while stop < len(unit) and left >= 1:
        step = max(1, int(left))
        left -= estimate(unit[stop : stop + step])
        stop += step
    return stop


def _cut(heading: str, most: float) -> str:
    return heading[: _reach(heading, 0, int(most), most)]


def _heading(pieces: Sequence[_Piece], start: int) -> str:
    return "" if pieces[start].rank == _RANK_OF_HEADING else pieces[start].heading


def _end(pieces: Sequence[_Piece], costs: Sequence[float], start: int, size: float) -> int:
    """Where the passage from `start` ends: as far as the limit allows, then back to the best position nearby."""
    end = start + 1
    while end < len(pieces) and costs[end + 1] - costs[start] <= size:
        end += 1
    if end == len(pieces):
        return end
    best = end
    for place in range(end, start, -1):
        if costs[place] - costs[start] < size * _LEAST_FULL:
            break
        if pieces[place].rank > pieces[best].rank:
            best = place
    return best


def _next(pieces: Sequence[_Piece], costs: Sequence[float], start: int, end: int, overlap: int) -> int:
    """Where the passage after the one from `start` to `end` begins: as far back as the overlap allows, at the best
    position there.
    """
    if pieces[end].rank == _RANK_OF_HEADING:
        return end
    first = end
    while first - 1 > start and costs[end] - costs[first - 1] <= overlap:
        first -= 1
    sentence = first
    while sentence < end and pieces[sentence].rank == 0:
        sentence += 1
    return sentence if sentence < end else first
