"""Citation marks in an answer, as models write them: `[1]`, `[1, 2]`, `[1-3]`, `【1†source】`, `[^1]`, `[ref_1]`,
`[[1]](url)`.

Pure, and linear in the length of the text. Lookalikes are ignored: an index or a list in code, prose (`arr[1]`) or
JSON.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator
from itertools import chain

import msgspec

from app.protocol.recovery.markdown_quotes import MarkdownQuotes

URL = r"(?:[^\s()]|\([^\s()]{0,200}\)){1,2000}"
LINK = rf"\((?P<link>{URL}|sandbox:[^()\n]{{1,500}})(?:\s+\"[^\"\n]{{0,200}}\")?\)"
"""What follows the text of a Markdown link."""

_SPACES = r"[ \t\u3000]{0,3}"
_ENGLISH = r"ref(?:erence)?s?|sources?|src|cit(?:e|ations?)|doc(?:ument)?s?|web(?:page)?"
_CHINESE = r"来源|引用|参考|资料|网页|文献|文档"
_WORDS = rf"(?:{_ENGLISH}|{_CHINESE})[ _:：.#-]{{0,2}}"  # noqa: RUF001 - Chinese text
_NUMBER = rf"(?:{_WORDS})?\d{{1,4}}"
_ITEM = rf"{_NUMBER}(?:{_SPACES}[-–—~～至]{_SPACES}{_NUMBER})?"  # noqa: RUF001 - other dashes
_ITEMS = rf"{_ITEM}(?:{_SPACES}[,，、;；]{_SPACES}{_ITEM}){{0,30}}"  # noqa: RUF001 - Chinese text
_INSIDE = rf"{_ITEMS})(?:†[^\[\]【】\n]{{0,80}})?{_SPACES}"
_IN_BRACKETS = rf"[\[【［]{_SPACES}\^?(?P<plain>{_INSIDE}[\]】］]"  # noqa: RUF001 - Chinese text
_IN_TWO = rf"\[\[{_SPACES}\^?(?P<double>{_INSIDE}\]\]"
_IN_WORDS = rf"[(（]{_SPACES}(?=source|来源|引用|参考)(?P<words>{_ITEMS}){_SPACES}[)）]"  # noqa: RUF001 - Chinese text
_MARK = re.compile(rf"(?:{_IN_TWO}|{_IN_BRACKETS})(?:{LINK})?|{_IN_WORDS}", re.IGNORECASE)
_RANGE = re.compile(rf"(\d+){_SPACES}(?:[-–—~～至]{_SPACES}(?:{_WORDS})?(\d+))?", re.IGNORECASE)  # noqa: RUF001 - other dashes
_LABEL = r"[\[【]\^?(?P<label>[^\s\[\]【】^]{1,40})[\]】](?P<colon>[:：]?)"  # noqa: RUF001 - Chinese text
_DEFINITION = re.compile(rf"^[ \t>*-]{{0,8}}{_LABEL}(?P<rest>[^(\n][^\n]{{0,2500}})$", re.MULTILINE)
_LONGEST_RANGE = 20
_LOOK_BACK = 200

_VALUE_BEFORE = re.compile(r"(?:[=∈]\s{0,3}|\\in\s{0,3}|[\"']\s{0,3}:\s{0,3}|[A-Za-z0-9_]\(|[$\\])\Z")
"""Text before a list that is a value."""
_METHOD_AFTER = re.compile(r"\.[a-z]\w*\(|\s{0,3}(?:=(?!=)|\+=)")
_NAME_BEFORE = re.compile(r"[A-Za-z0-9_$@.]+\Z")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_NAME_IN_CODE = re.compile(r"([A-Za-z_]\w*)\s*(?:[\[=]|`)")
_HTML_CODE = re.compile(r"<(?P<ends>/?)(?P<tag>code|pre)\b[^<>]{0,100}>", re.IGNORECASE)
_CAMEL = re.compile(r"[a-z]{2,}[A-Z]")
_OWNERS = frozenset({"self", "this", "np", "sys", "os", "torch", "df"})
_NAMES = frozenset(
    {
        "arr",
        "array",
        "arrays",
        "list",
        "lists",
        "lst",
        "tuple",
        "tuples",
        "dict",
        "items",
        "item",
        "values",
        "vals",
        "val",
    }
    | {
        "data",
        "result",
        "results",
        "res",
        "ret",
        "row",
        "rows",
        "col",
        "cols",
        "cells",
        "matrix",
        "mat",
        "vec",
        "vector",
        "tensor",
    }
    | {
        "args",
        "argv",
        "kwargs",
        "params",
        "nums",
        "num",
        "elem",
        "elems",
        "element",
        "elements",
        "entries",
        "indices",
        "index",
        "idx",
    }
    | {
        "buf",
        "buffer",
        "stack",
        "queue",
        "seq",
        "str",
        "obj",
        "objects",
        "nodes",
        "keys",
        "xs",
        "ys",
        "df",
        "ptr",
        "tmp",
        "foo",
        "bar",
    }
)
"""Words for indexed things; directly after them, brackets hold an index."""


class Mark(msgspec.Struct, frozen=True):
    """A place that cites sources by their numbers."""

    start: int
    end: int
    numbers: tuple[int, ...]


class Definition(msgspec.Struct, frozen=True):
    """A line that defines a label: `[^1]: https://…`, or `[1] Title, https://…`."""

    label: str
    text: str
    explicit: bool
    """Written with a colon."""


def marks(text: str) -> Iterator[Mark]:
    """In the order of the text."""
    names = _names_in_code(text)
    index_ends = mark_ends = -1
    for match in _outside_code(text):
        start, end = match.span()
        followed = start == mark_ends
        if match["words"] is None and not followed and (start == index_ends or _is_index(text, start, end, names)):
            index_ends = end
            continue
        numbers = _numbers(match["double"] or match["plain"] or match["words"])
        if numbers:
            mark_ends = end
            yield Mark(start, end, numbers)


def _outside_code(text: str) -> Iterator[re.Match[str]]:
    quotes = MarkdownQuotes()
    html = _html_code(text)
    read = 0
    for match in _MARK.finditer(text):
        quotes.advance(text[read : match.start()])
        read = match.start()
        if not quotes.quoted and not bisect(html, read) % 2:
            yield match


def _html_code(text: str) -> list[int]:
    """Positions where HTML code elements begin and end, alternating."""
    turns: list[int] = []
    open_tag = ""
    for match in _HTML_CODE.finditer(text):
        tag = match["tag"].lower()
        if bool(match["ends"]) == bool(open_tag) and open_tag in ("", tag):
            turns.append(match.start())
            open_tag = "" if match["ends"] else tag
    return turns


def definitions(text: str) -> Iterator[Definition]:
    """In the order of the text."""
    for match in _DEFINITION.finditer(text):
        yield Definition(match["label"], match["rest"].strip(), bool(match["colon"]))


def _numbers(items: str) -> tuple[int, ...]:
    """Empty if one of them cannot be the number of a source."""
    ranges = [(int(match[1]), int(match[2] or match[1])) for match in _RANGE.finditer(items)]
    if any(first < 1 or not 0 <= last - first <= _LONGEST_RANGE for first, last in ranges):
        return ()
    return tuple(dict.fromkeys(chain.from_iterable(range(first, last + 1) for first, last in ranges)))


def _is_index(text: str, start: int, end: int, names: frozenset[str]) -> bool:
    """Whether the brackets hold an index or a value."""
    before = text[max(0, start - _LOOK_BACK) : start]
    if _VALUE_BEFORE.search(before) or _METHOD_AFTER.match(text, end):
        return True
    while before.endswith(("]", ")")):  # as in `matrix[i][1]`, `f(x)[1]`, or after a link's text
        called = before.endswith(")")
        opening = before.rfind("(" if called else "[")
        before = before[: max(opening, 0)]
        if called and _NAME_BEFORE.search(before):
            return True
    name = _NAME_BEFORE.search(before)
    return name is not None and _is_name(name[0], names)


def _is_name(written: str, names: frozenset[str]) -> bool:
    """Whether a word directly before a bracket is a variable in code rather than the end of a sentence."""
    first, _, last = written.rpartition(".")
    if not last or last.isdecimal():
        return False
    return (
        last.lower() in _NAMES
        or last in names
        or first.partition(".")[0] in _OWNERS
        or any(sign in written for sign in "_$@")
        or (len(last) == 1 and last.islower())
        or (last[0].islower() and any(letter.isdecimal() for letter in last))
        or _CAMEL.match(last) is not None
    )


def _names_in_code(text: str) -> frozenset[str]:
    """Names used in the answer's own code."""
    if "`" not in text:
        return frozenset()
    return frozenset(name for code in _CODE.finditer(text) for name in _NAME_IN_CODE.findall(code[0]))
