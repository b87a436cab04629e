"""Bytes to text: which character encoding it is, and whether it is text at all."""

from __future__ import annotations

import codecs
import re

from app.documents.base import SUPPORTED, UnreadableDocument

_BOMS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16's, so it is looked for first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "iso8859-1": "cp1252", "ascii": "cp1252"}
"""What people really mean by a name (the WHATWG's Encoding Standard does the same)."""
_CANDIDATES = ["gb18030", "big5hkscs", "cp932", "euc_jp", "cp949", "cp1252", "cp1251", "koi8_r"]
_ESCAPED = ("iso2022", "hz")
"""Encodings in ASCII bytes."""
_NOT_ASCII = re.compile(rb"[\x80-\xff]+")
_CONTROLS = bytes(set(range(32)) - set(b"\b\t\n\f\r\x1b")) + b"\x7f"
_MOST_CONTROLS = 0.02
_MOST_BROKEN = 0.01
_LOOKED_AT = 64 * 1024
_FEW = 32
_COMMON_CHINESE = re.compile(rb"[\x00-\x7f]*(?:[\xb0-\xd7\xa1\xa3][\xa1-\xfe][\x00-\x7f]*)+")
"""GB 2312's most common characters, its punctuation and its wide Latin letters."""


def decode(content: bytes, declared: str | None = None) -> str:
    """The text, with `\\n` line ends; `declared` is the encoding somebody said it has. Raises UnreadableDocument for what is not text."""
    return _decode(content, declared).replace("\r\n", "\n").replace("\r", "\n")


def _decode(content: bytes, declared: str | None) -> str:
    for bom, encoding in _BOMS:
        if content.startswith(bom):
            return content.decode(encoding, errors="replace").removeprefix("\ufeff")
    if wide := _utf16_without_bom(content[:_LOOKED_AT]):
        return content.decode(wide, errors="replace")
    start = content[:_LOOKED_AT]
    if b"\0" in content or len(start) - len(start.translate(None, _CONTROLS)) > _MOST_CONTROLS * len(start):
        raise UnreadableDocument(f"The format of the file is not supported. Supported are {SUPPORTED}.")
    named = _lookup(declared)
    first = _NOT_ASCII.search(content)
    if first is None:
        return content.decode(named if named and named.startswith(_ESCAPED) else "ascii", errors="replace")
    # A wrong declaration is more common than a text in another encoding that happens to be valid UTF-8.
    text = content.decode("utf-8", errors="replace")
    if text.count("\ufffd") <= _MOST_BROKEN * sum(map(len, _NOT_ASCII.findall(content))):
        return text
    if named is not None:
        try:
            return content.decode(named)
        except UnicodeDecodeError:
            pass
    return content.decode(_detect(content, first.start()) or named or "cp1252", errors="replace")


def _utf16_without_bom(start: bytes) -> str | None:
    """Text of mostly Latin letters has a NUL in every other place."""
    pairs = len(start) // 2
    if pairs == 0 or len(start.translate(None, b"\0")) == len(start):
        return None
    for encoding, high, low in (("utf-16-le", start[1::2], start[::2]), ("utf-16-be", start[::2], start[1::2])):
        if high.count(0) > pairs // 2 and low.count(0) == 0:
            return encoding
    return None


def _lookup(name: str | None) -> str | None:
    try:
        known = codecs.lookup(name or "").name
        b"".decode(known)  # not every codec is one of text
    except (LookupError, ValueError):
        return None
    return _SUPERSETS.get(known, known)


def _detect(content: bytes, first: int) -> str | None:
    from charset_normalizer import from_bytes  # noqa: PLC0415 - only text of older encodings needs it

    begin = content.rfind(b"\n", 0, first) + 1
    sample = content[max(begin, first - _LOOKED_AT) : first + _LOOKED_AT]
    if first + _LOOKED_AT < len(content) and b"\n" in sample:
        sample = sample[: sample.rindex(b"\n")]  # not through the middle of a character
    runs = _NOT_ASCII.findall(sample)
    if sum(map(len, runs)) <= _FEW:  # too little to tell by how often characters come
        if all(len(run) == 1 for run in runs):
            return "cp1252"
        if _COMMON_CHINESE.fullmatch(sample):
            return "gb18030"
    best = from_bytes(sample, cp_isolation=_CANDIDATES).best()
    return best.encoding if best else None
