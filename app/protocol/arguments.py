"""The arguments of a call as models really write them, and what is made of them. Pure.

Right arguments are one JSON object. What is meant, though written otherwise, is taken for it: nothing at all, `null`, the object as a
JSON string, line breaks and tabs inside strings as they are, and the object again, or its closing braces, behind it.
"""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

MALFORMED = "malformed_arguments"
"""Under this key a model reads arguments that were no JSON object: upstreams refuse every request whose history has such a call."""

_CONTROL = re.compile(r"[\x00-\x1f]")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_EXCESS = re.compile(r"[\s}]*")
_MOST_WRAPPED = 3
"""How often an object may be a string inside a string."""

_encode = msgspec.json.encode
_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def is_object(text: str) -> bool:
    """Whether the text is one JSON object."""
    try:
        _object_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def read_object(text: str) -> str | None:
    """The JSON object that is meant, as it was written where it is one already; None when there is none."""
    for _ in range(_MOST_WRAPPED):
        if is_object(text):
            return text
        body = text.strip()
        if body in ("", "null"):
            return "{}"
        if body.startswith('"'):
            inner = _read_string(body)
            if inner is None:
                return None
            text = inner
        else:
            return _read_inexact(body)
    return None


def sendable(text: str) -> str:
    """The arguments for an upstream's eyes, always a JSON object: what is none stands under the key `MALFORMED`."""
    found = read_object(text)
    return found if found is not None else _encode({MALFORMED: text}).decode()


def escape_controls(text: str) -> str:
    """JSON text whose strings hold no raw line breaks, tabs and the like any more."""
    return _STRING.sub(lambda string: _CONTROL.sub(_escaped, string[0]), text)


def _escaped(match: re.Match[str]) -> str:
    return _encode(match[0]).decode()[1:-1]


def _read_inexact(body: str) -> str | None:
    escaped = escape_controls(body) if _CONTROL.search(body) else body
    if is_object(escaped):
        return escaped
    first, rest = split_object(escaped)
    return first if first is not None and is_excess(rest, first) else None


def split_object(text: str) -> tuple[str | None, str]:
    """The JSON object that the text begins with, and what follows it; None when there is none."""
    depth = 0
    for mark in _MARKS.finditer(text):
        if mark[0] in "{[":
            depth += 1
        elif mark[0] in "}]":
            depth -= 1
            if depth <= 0:
                first = text[: mark.end()]
                return (first, text[mark.end() :]) if is_object(first) else (None, text)
    return None, text


_MARKS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)


def is_excess(rest: str, whole: str) -> bool:
    """Whether what stands behind the object adds nothing to it: white space, braces too many, or the same object once more."""
    if _EXCESS.fullmatch(rest):
        return True
    try:
        return msgspec.json.decode(rest) == msgspec.json.decode(whole)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False


def _read_string(text: str) -> str | None:
    try:
        return msgspec.json.decode(escape_controls(text), type=str)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None


def read_text(text: str, key: str = "input") -> str:
    """The free text that a custom tool is called with: the text itself, or what a model has wrapped around it.

    Asked for `{"input": "…"}`, models also write the bare text, a JSON string, or an object with one member of another name.
    """
    body = text.strip()
    if body.startswith('"'):
        inner = _read_string(body)
        return text if inner is None else _unwrapped(inner, key) or inner
    found = _unwrapped(body, key)
    return text if found is None else found


def _unwrapped(body: str, key: str) -> str | None:
    """The text in the object; None where the object is no wrapping."""
    found = read_object(body) if body.startswith("{") else None
    if found is None:
        return _quoted_wrongly(body, key)
    members = cast("dict[str, Any]", msgspec.json.decode(found))
    value = members.get(key) if key in members else next(iter(members.values())) if len(members) == 1 else None
    if isinstance(value, str):
        return value
    return _encode(value).decode() if key in members else None


def _quoted_wrongly(body: str, key: str) -> str | None:
    """The text between the outermost quotes, where quotes inside it were not escaped."""
    match = re.fullmatch(rf'\{{\s*"{re.escape(key)}"\s*:\s*"(.*)"\s*\}}', body, re.DOTALL)
    return _ESCAPE.sub(_unescaped, match[1]) if match else None


_ESCAPE = re.compile(r'\\(["\\/bfnrt])')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[1])
