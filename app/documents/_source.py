"""Text formats as they are, made readable: characters instead of escapes in JSON, and no base64 pictures."""

from __future__ import annotations

import re
from json import JSONDecodeError, loads

from app.documents.base import Reading, counted

_JSON_LINES = (".jsonl", ".ndjson")
_ESCAPES = re.compile(r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}")
_KEPT = frozenset(['"', "\\", *map(chr, range(0x20)), "\x7f", "\u2028", "\u2029"])
"""Characters that would end a string or its line."""
_PICTURE = re.compile(r"data:(?P<type>image/[\w.+-]{1,80})(?:;[\w=.-]{1,80})*,(?P<data>[A-Za-z0-9+/=%_-]{200,})")
_LEFT_OUT = "picture-left-out"


def readable(text: str, name: str) -> Reading:
    """The file with these changes; any other text is unchanged."""
    if "\\u" in text and (name.endswith(_JSON_LINES) or is_json(text)):
        text = _ESCAPES.sub(_character, text)
    text, left_out = _PICTURE.subn(_LEFT_OUT, text)
    return Reading(text, pictures(left_out))


def pictures(number: int) -> tuple[str, ...]:
    """A clause saying that so many are not in the text."""
    return (counted(number, "picture"),) if number else ()


def is_json(text: str) -> bool:
    """Whether it is a single JSON value."""
    if not text.lstrip("\ufeff \t\r\n").startswith(("{", "[", '"')):
        return False
    try:
        loads(text)
    except (JSONDecodeError, RecursionError):
        return False
    return True


def _character(escape: re.Match[str]) -> str:
    written = escape[0]
    if written == "\\\\":
        return written
    units = bytes.fromhex(written.replace("\\u", ""))
    character = units.decode("utf-16-be", errors="replace")
    return written if character in _KEPT or "\ufffd" in character else character
