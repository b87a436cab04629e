"""Bytes to text: the character encoding, and whether it is text at all."""

from __future__ import annotations

import codecs
import re

from app.documents.base import SUPPORTED, UnreadableDocument

_BOMS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # a UTF-16 mark is a prefix of it, so it is checked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SUPERSETS = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
}
"""What these names mean in practice (as in the WHATWG's Encoding Standard)."""
_ESCAPED = ("iso2022", "hz")
"""Encodings that use only ASCII bytes."""
_NOT_ASCII = re.compile(rb"[\x80-\xff]+")
_CONTROLS = bytes(set(range(32)) - set(b"\b\t\n\f\r\x1b")) + b"\x7f"
_MOST_CONTROLS = 0.02
_MOST_BROKEN = 0.01
_LOOKED_AT = 64 * 1024
_UNSURE = 0.05
_TOGETHER = 2
_APART = 0.65
_WESTERN = frozenset("ÀÂÄÅÆÇÉÈÊÑÓÔÖØÜßàâäåæçèéêëìíîïñòóôöøùúûüáœ€£§°·©®«»¿¡\u2013—\u2018\u2019“”…•")
_WIDE_NAMES = ("utf-16", "utf-32")


def decode(content: bytes, declared: str | None = None) -> str:
    """The text, with `\\n` line ends; `declared` is the declared encoding, if any.

    Raises UnreadableDocument for what is not text.
    """
    return _decode(content, declared).replace("\r\n", "\n").replace("\r", "\n")


def _decode(content: bytes, declared: str | None) -> str:
    for bom, encoding in _BOMS:
        if content.startswith(bom):
            return content.decode(encoding, errors="replace").removeprefix("\ufeff")
    start = content[:_LOOKED_AT]
    if b"\0" in content or len(start) - len(start.translate(None, _CONTROLS)) > _MOST_CONTROLS * len(start):
        return content.decode(_wide(start), errors="replace")
    named = _lookup(declared)
    first = _NOT_ASCII.search(content)
    if first is None:
        return content.decode(named if named and named.startswith(_ESCAPED) else "ascii", errors="replace")
    # A wrong declaration is more common than text in another encoding that happens to be valid UTF-8.
    text = content.decode("utf-8", errors="replace")
    if text.count("\ufffd") <= _MOST_BROKEN * sum(map(len, _NOT_ASCII.findall(content))):
        return text
    if named is not None:
        try:
            return content.decode(named)
        except UnicodeDecodeError:
            pass
    return content.decode(_detect(content, first.start()) or named or "cp1252", errors="replace")


def _wide(start: bytes) -> str:
    """The encoding of text with two or four bytes per character and no byte order mark.

    Raises UnreadableDocument: then it is not text.
    """
    import chardet  # noqa: PLC0415 - only legacy encodings need it

    encoding = str(chardet.detect(start)["encoding"]).lower()
    if not encoding.startswith(_WIDE_NAMES):
        raise _not_text()
    text = start.decode(encoding, errors="replace")
    if "\0" in text or text.count("\ufffd") > 1:  # one may be cut in two
        raise _not_text()
    return encoding


def _not_text() -> UnreadableDocument:
    return UnreadableDocument(f"The format of the file is not supported. Supported are {SUPPORTED}.")


def _lookup(name: str | None) -> str | None:
    try:
        known = codecs.lookup(name or "").name
        b"".decode(known)  # not every codec is a text encoding
    except (LookupError, ValueError):
        return None
    return _SUPERSETS.get(known, known)


def _detect(content: bytes, first: int) -> str | None:
    import chardet  # noqa: PLC0415 - as above

    begin = content.rfind(b"\n", 0, first) + 1
    sample = content[max(begin, first - _LOOKED_AT) : first + _LOOKED_AT]
    if first + _LOOKED_AT < len(content) and b"\n" in sample:
        sample = sample[: sample.rindex(b"\n")]  # do not split a character
    if _is_western(_NOT_ASCII.findall(sample)):
        return "cp1252"
    best = chardet.detect(sample, prefer_superset=True)
    if best["confidence"] < _UNSURE:  # then prefer one that is still in use
        best = chardet.detect(sample, prefer_superset=True, encoding_era=chardet.EncodingEra.MODERN_WEB)
    return _lookup(best["encoding"])


def _is_western(runs: list[bytes]) -> bool:
    """Accented letters occur singly or in pairs between ASCII letters.

    Other scripts write whole words in non-ASCII bytes.
    """
    letters = b"".join(runs).decode("cp1252", errors="replace")
    return max(map(len, runs)) <= _TOGETHER and len(runs) > _APART * len(letters) and _WESTERN.issuperset(letters)
