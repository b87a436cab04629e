"""Characters that no parameter may contain:

NUL, which Postgres cannot store, and unpaired surrogates, which UTF-8 cannot encode.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from app.protocol.wire.errors import InvalidRequest

_NUL_ESCAPE = re.compile(rb"\\u0000")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""An escaped NUL, unless its backslash is itself escaped."""
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|\xed[\xa0-\xbf]")
_IN_TEXT = re.compile("[\x00\ud800-\udfff]")
_IN_BYTES = re.compile(rb"\x00|\xed[\xa0-\xbf]")
_LONGEST_NAME = 200
_NAMED_BYTES = 1024 * 1024
"""Largest body in which the position is looked up, which means decoding it again."""


def check_json(body: bytes) -> None:
    """Raises InvalidRequest with the position of such a character in keys or values.

    Its parser reports other mistakes in the JSON.
    """
    if b"\0" in body:  # UTF-16, or not JSON
        raise InvalidRequest(
            "We could not parse the JSON body of your request: it must be UTF-8.", code="json_parse_error"
        )
    if _SUSPECT.search(body):
        _check_values(body)


def check_nul(body: bytes) -> None:
    """Raises InvalidRequest with the position of a NUL, for a body whose parser refuses all other invalid text."""
    if _NUL_ESCAPE.search(body):
        if len(body) <= _NAMED_BYTES:
            _check_values(body)
        if _NUL.search(body):
            raise _refusal(None)


def check_query(query: bytes) -> None:
    """Raises InvalidRequest with the name of the parameter that is not valid text."""
    if b"%" in query:
        for field in query.split(b"&"):
            name, _, value = field.partition(b"=")
            if not (_is_text(unquote_to_bytes(name)) and _is_text(unquote_to_bytes(value))):
                raise _refusal(unquote_to_bytes(name).decode(errors="replace"))


def form_text(data: bytes, name: str) -> str:
    """The text of a form field or file name; bytes that are not UTF-8 become U+FFFD. Raises InvalidRequest."""
    if _IN_BYTES.search(data):
        raise _refusal(name)
    return data.decode(errors="replace")


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def _check_values(body: bytes) -> None:
    try:
        place = next(_found(json.loads(body), ""), None)
    except (ValueError, RecursionError):
        return
    if place is not None:
        raise _refusal(place)


def _found(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, str):
        if _IN_TEXT.search(value):
            yield place
    elif isinstance(value, dict):
        for key, member in cast("dict[str, Any]", value).items():
            there = f"{place}.{key}" if place else key
            if _IN_TEXT.search(key):
                yield there
            yield from _found(member, there)
    elif isinstance(value, list):
        for number, member in enumerate(cast("list[Any]", value)):
            yield from _found(member, f"{place}[{number}]")


def _refusal(place: str | None) -> InvalidRequest:
    shown = _IN_TEXT.sub("\ufffd", place or "")[:_LONGEST_NAME]
    characters = "NUL (U+0000) or unpaired surrogates (U+D800 to U+DFFF)"
    message = (
        f"Invalid '{shown or 'body'}': text must not contain {characters}; remove or replace them, also in tool "
        f"outputs."
    )
    return InvalidRequest(message, code="invalid_value", param=shown or None)
