"""What a fetched body is, if headers are missing or wrong: its compression, type and charset, and whether it redirects.

By the first bytes, as browsers do (WHATWG, MIME Sniffing), and never by the URL, which can say anything.
"""

from __future__ import annotations

import codecs
import re
from html import unescape

_VAGUE = frozenset(
    {
        "application/octet-stream",
        "binary/octet-stream",
        "application/binary",
        "application/x-binary",
        "application/unknown",
    }
    | {
        "unknown/unknown",
        "application/x-unknown",
        "application/download",
        "application/x-download",
        "application/force-download",
    }
    | {
        "application/x-force-download",
        "application/x-msdownload",
        "content/unknown",
        "*/*",
        "application/x-pdf",
        "application/acrobat",
    }
    | {"application/zip", "application/x-zip-compressed", "text/plain"}
)
_BINARY = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "image/avif"),
    (re.compile(rb"BM.{12}", re.DOTALL), "image/bmp"),
    (re.compile(rb"II\*\x00|MM\x00\*"), "image/tiff"),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "application/msword"),
    (re.compile(rb"\{\\rtf"), "application/rtf"),
)
_OFFICE = "application/vnd.openxmlformats-officedocument."
_PARTS = (
    (b"word/", "wordprocessingml.document"),
    (b"xl/", "spreadsheetml.sheet"),
    (b"ppt/", "presentationml.presentation"),
)
_MIMETYPE = re.compile(rb"mimetype(application/(?:vnd\.oasis\.opendocument\.[a-z-]{1,40}|epub\+zip))")
_PROLOGUE = re.compile(rb"\A(?:\xef\xbb\xbf)?(?:\s|<!--.{0,2000}?-->|<\?xml[^>]{0,200}>)*", re.DOTALL)
_TAGS = rb"!doctype\s+html|html|head|body|title|meta|script|style|link|div|table|p|h1|a|iframe|br|center"
_PAGE = re.compile(rb"<(?:" + _TAGS + rb")[\s>/]", re.IGNORECASE)
_SVG = re.compile(rb"<(?:!doctype\s+svg|svg)\b", re.IGNORECASE)
_CONTROLS = bytes(set(range(32)) - set(b"\b\t\n\f\r\x1b"))
_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LOOKED_AT = 4096
_PDF_WITHIN = 1024

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_PACKINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", "br": "br", "brotli": "br", "zstd": "zstd"}

_META = re.compile(
    rb"<meta[^>]{1,500}?charset\s*=\s*[\"']?\s*([\w-]{1,40})|<\?xml[^>]{1,200}encoding\s*=\s*[\"']([\w-]{1,40})",
    re.IGNORECASE,
)
_META_WITHIN = 16 * 1024
_CHARSET_TRIED = 256 * 1024

_UNSEEN = re.compile(rb"<!--.*?(?:-->|\Z)|<(noscript|script|style|template)\b.*?(?:</\1|\Z)", re.IGNORECASE | re.DOTALL)
_REFRESH = re.compile(rb"<meta\b[^>]{0,500}?http-equiv\s*=\s*[\"']?\s*refresh\b[^>]{0,4000}>", re.IGNORECASE)
_CONTENT = re.compile(rb"\bcontent\s*=\s*(?:\"([^\"]{1,4000})\"|'([^']{1,4000})')", re.IGNORECASE)
_TARGET = re.compile(r"\s*(\d{0,4})(?:\.\d*)?\s*[;,]\s*(?:url\s*=\s*)?[\"']?\s*([^\"'\s]{1,4000})", re.IGNORECASE)
_REFRESH_WITHIN = 16 * 1024
_LONGEST_WAIT = 5
_LARGEST_SIGNPOST = 256 * 1024
"""Pages that only redirect are short."""


def is_vague(content_type: str) -> bool:
    """Whether the type says nothing reliable."""
    return content_type in _VAGUE or "/" not in content_type


def told(body: bytes) -> str | None:
    """The type according to the content; None if unknown."""
    start = body[:_LOOKED_AT]
    if b"%PDF-" in start[:_PDF_WITHIN]:
        return "application/pdf"
    if start.startswith(b"PK\x03\x04"):
        return _package(body)
    known = next((kind for begins, kind in _BINARY if begins.match(start)), None)
    return known or _text(start)


def _package(body: bytes) -> str:
    named = _MIMETYPE.search(body[:_LOOKED_AT])
    if named is not None:  # OpenDocument and EPUB begin with their type
        return named[1].decode()
    part = next((kind for name, kind in _PARTS if name in body), None)
    return _OFFICE + part if part and b"[Content_Types].xml" in body else "application/zip"


def _text(start: bytes) -> str | None:
    if start.startswith(_BOMS):
        return "text/plain"
    if not start or len(start.translate(None, _CONTROLS)) != len(start):
        return None
    plain = _PROLOGUE.sub(b"", start, count=1)
    if _SVG.match(plain):
        return "image/svg+xml"
    if _PAGE.match(plain):
        return "text/html"
    if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<?xml"):
        return "application/xml"
    return "application/json" if plain.startswith((b"{", b"[")) else "text/plain"


def packing(label: str, content_type: str, start: bytes) -> str:
    """The body's compression, "" if there is none: servers label plain bodies as compressed, and compress without a
    label.
    """
    labels = {_PACKINGS.get(one.strip().lower(), "") for one in label.split(",")} - {""}
    if start.startswith(_GZIP):
        return "" if not labels and ("gzip" in content_type or "tar" in content_type) else "gzip"
    if start.startswith(_ZSTD):
        return "zstd"
    if not labels or told(start) is not None:
        return ""
    return min(labels - {"gzip", "zstd"}, default=min(labels))  # these two would have been recognised


def charset(header: str | None, content_type: str, body: bytes) -> str | None:
    """The encoding of a text: a page's own declaration precedes the header if both are possible, since servers use one
    header for all.
    """
    found = _META.search(body[:_META_WITHIN]) if content_type in ("text/html", "application/xhtml+xml") else None
    declared = (found[1] or found[2]).decode() if found else None
    candidates = [name for name in (declared, header) if name]
    proven = next((name for name in candidates if _proves(name, body)), None)
    return proven or next(iter(candidates), None)


def _proves(name: str, body: bytes) -> bool:
    """Whether the bytes are valid in it and hardly by accident: a single-byte encoding accepts nearly everything."""
    try:
        decoder = codecs.getincrementaldecoder(name)()
        text = decoder.decode(body[:_CHARSET_TRIED])
    except (LookupError, ValueError, AttributeError, TypeError):  # some codecs are not text encodings
        return False
    return len(text) < len(body[:_CHARSET_TRIED])


def refresh(header: str, content_type: str, body: bytes) -> str | None:
    """The address a page redirects to at once, by `<meta http-equiv="refresh">` or the header of that name."""
    if content_type not in ("text/html", "application/xhtml+xml") or len(body) > _LARGEST_SIGNPOST:
        return None
    tag = _REFRESH.search(_UNSEEN.sub(b"", body[:_REFRESH_WITHIN]))
    content = _CONTENT.search(tag[0]) if tag else None
    written = unescape((content[1] or content[2]).decode(errors="replace")) if content else header
    target = _TARGET.match(written)
    return target[2] if target and int(target[1] or 0) <= _LONGEST_WAIT else None
