"""Which format a document has, and who reads it. Runs in a worker process."""

from __future__ import annotations

import re
from collections.abc import Callable
from posixpath import basename
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from app.documents import _office, _pdf, _plain, _web
from app.documents.base import Article, UnreadableDocument

T = TypeVar("T")

_MOST_CHARACTERS = 20_000_000
_PDF_WITHIN = 1024
"""The header need not be the very first (ISO 32000-1, annex H.3.4.1)."""
_PAGE = re.compile(rb"(?:\xef\xbb\xbf|<\?xml[^>]*>|<!--.*?-->|\s)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_PAGE_NAMES = (".html", ".htm", ".xhtml")
_PAGE_TYPES = ("text/html", "application/xhtml+xml")


class _Format(msgspec.Struct, frozen=True):
    """A format that is known by how it begins, and who reads it."""

    begins: bytes
    read: Callable[[bytes], str]


def _refusal(reason: str) -> Callable[[bytes], str]:
    def refuse(_: bytes) -> str:
        raise UnreadableDocument(reason)

    return refuse


_old_office = _refusal("The document is in an old Office format (doc, xls, ppt) or has a password: save it as docx, xlsx or pptx.")
_rich_text = _refusal("The document is RTF: save it as docx or PDF.")
_image = _refusal("The file is an image, not a document.")

_FORMATS = (
    _Format(b"%PDF-", _pdf.read),
    _Format(b"PK\x03\x04", _office.read),
    _Format(b"\xd0\xcf\x11\xe0", _old_office),
    _Format(b"{\\rtf", _rich_text),
    *(_Format(begins, _image) for begins in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*")),
)


def text(content: bytes, filename: str, content_type: str | None) -> str:
    """See `reading.text`."""
    if _is_page(content, filename, content_type):
        return _guarded(lambda: _checked(_web.document(_plain.decode(content, _web.declared_charset(content)))))
    return _guarded(lambda: _checked(_whole(content, None)))


def article(content: bytes, url: str, content_type: str, charset: str | None) -> Article:
    """See `reading.article`."""
    name = unquote(basename(urlsplit(url).path)) or url
    if not _is_page(content, name, content_type):
        return Article(name, _guarded(lambda: _checked(_whole(content, charset))))
    page = _guarded(lambda: _web.article(_plain.decode(content, charset or _web.declared_charset(content)), url))
    return Article(page.title or name, _checked(page.text))


def _is_page(content: bytes, name: str, content_type: str | None) -> bool:
    named = name.lower().endswith(_PAGE_NAMES) or content_type in _PAGE_TYPES
    return _PAGE.match(content) is not None or (named and _known(content) is None)


def _known(content: bytes) -> Callable[[bytes], str] | None:
    found = next((known.read for known in _FORMATS if content.startswith(known.begins)), None)
    return found or (_pdf.read if b"%PDF-" in content[:_PDF_WITHIN] and b"\0" in content else None)


def _whole(content: bytes, charset: str | None) -> str:
    read = _known(content)
    return read(content) if read else _plain.decode(content, charset)


def _checked(text: str) -> str:
    if len(text) > _MOST_CHARACTERS:
        raise UnreadableDocument(f"The document is too long: at most {_MOST_CHARACTERS:,} characters are read.")
    return text


def _guarded(read: Callable[[], T]) -> T:
    try:
        return read()
    except (UnreadableDocument, MemoryError):
        raise
    except Exception as error:  # the libraries raise whatever a malformed file makes go wrong
        raise UnreadableDocument("The document is damaged.") from error
