"""The output of code, as a terminal would show it."""

from __future__ import annotations

import codecs
import re

CONTINUATION = bytes(range(0x80, 0xC0))
"""Bytes that never begin a UTF-8 character."""

_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\n\r])")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def as_seen(data: bytes) -> str:
    """Text without colours and without what a carriage return overwrote.

    Other bytes and control characters as `\\x00`.
    """
    text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    text = _OVERWRITTEN.sub("", _ESCAPE.sub("", text)).replace("\r", "")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def whole(data: bytes) -> bytes:
    """Without an incomplete character at the end."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    pending, _ = decoder.getstate()
    return data.removesuffix(pending) if pending else data
