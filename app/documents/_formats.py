"""The format of a document, and its reader. Runs in a worker process."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from posixpath import basename
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from app.documents import _beside, _compound, _office, _opendocument, _pdf, _plain, _sheets, _source, _web, _word
from app.documents._package import Package
from app.documents.base import Article, Reading, UnreadableDocument, with_note

T = TypeVar("T")

_MOST_CHARACTERS = 20_000_000
_PDF_WITHIN = 1024
"""The header need not be at the very beginning (ISO 32000-1, annex H.3.4.1)."""
_PAGE = re.compile(rb"(?:doctype\s+html|html|head|body)\b", re.IGNORECASE)
_SPACE = re.compile(rb"\s*")
_PAGE_NAMES = (".html", ".htm", ".xhtml", ".shtml")
_PAGE_TYPES = ("text/html", "application/xhtml+xml")
_MAIL_NAMES = (".eml", ".mht", ".mhtml")
_MAIL_TYPES = ("message/rfc822", "multipart/related", "application/x-mimearchive")
_MAIL = re.compile(
    rb"(?:From|To|Cc|Date|Subject|Received|Return-Path|Message-ID|MIME-Version|X-[\w-]+|Delivered-To):[ \t]",
    re.IGNORECASE,
)
_BEFORE_MARKUP = ((b"<!--", b"-->"), (b"<?xml", b"?>"))
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_CHARSET = re.compile(rb"charset=\"?([\w-]+)", re.IGNORECASE)
_NOTEBOOK = ".ipynb"
_DRAWN = re.compile(r'"image/[\w+.-]+"\s*:')
"""A picture in the output of a notebook cell."""


class _Format(msgspec.Struct, frozen=True):
    """A format that is recognised by its first bytes, and its reader."""

    begins: bytes
    read: Callable[[bytes], Reading]


def _refusal(reason: str) -> Callable[[bytes], Reading]:
    def refuse(_: bytes) -> Reading:
        raise UnreadableDocument(reason)

    return refuse


_COMPLETED: Mapping[str, Callable[[Package], bytes]] = {
    "docx": _word.completed,
    "xlsx": _sheets.completed,
    "odt": _opendocument.completed,
    "ods": _opendocument.completed,
    "odp": _opendocument.completed,
}
"""What is done to a package before the engine reads it."""


def _package(content: bytes) -> Reading:
    package = Package(content)
    complete = _COMPLETED.get(package.kind)
    found = _office.read(complete(package) if complete else content, package.kind, _beside.read(package))
    return Reading(_word.with_equations(found.text), found.unread)


def _rich_text(content: bytes) -> Reading:
    return _office.read(content, "rtf", Reading("", ("comments",) if b"\\annotation" in content else ()))


_image = _refusal("The file is an image, not a document.")

_FORMATS = (
    _Format(b"%PDF-", _pdf.read),
    _Format(b"PK\x03\x04", _package),
    _Format(_compound.BEGINS, _compound.read),
    _Format(b"{\\rtf", _rich_text),
    *(_Format(begins, _image) for begins in (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*")),
)


def text(content: bytes, filename: str, content_type: str | None) -> str:
    """The text of a document; its content, name and type determine the format. Raises UnreadableDocument."""
    told, _, parameters = (content_type or "").partition(";")
    declared = parameters.rpartition("charset=")[2].strip(" \"'") or None
    return _guarded(lambda: _checked(with_note(_read(content, filename, told.strip().lower(), declared))))


def article(content: bytes, url: str, content_type: str, charset: str | None) -> Article:
    """The main text of a web page, or the whole text of another document. Raises UnreadableDocument."""
    name = unquote(basename(urlsplit(url).path)) or url
    if not _is_page(content, name, content_type):
        return Article(name, _guarded(lambda: _checked(with_note(_read(content, name, content_type, charset)))))
    page = _guarded(lambda: _web.article(_plain.decode(content, charset or _web.declared_charset(content)), url))
    return Article(page.title or name, _checked(page.text))


def _read(content: bytes, filename: str, content_type: str, charset: str | None) -> Reading:
    known = _known(content)
    name = filename.lower()
    if known is not None and not _is_page(content, name, content_type):
        return known(content)
    if _is_page(content, name, content_type):
        return _web.document(_plain.decode(content, charset or _web.declared_charset(content)))
    if _is_mail(content, name, content_type):
        return _office.read(_with_readable_head(content), "mhtml" if name.endswith(_MAIL_NAMES[1:]) else "eml")
    written = _plain.decode(content, charset or _web.declared_charset(content))
    if name.endswith(_NOTEBOOK) and _source.is_json(written):
        found = _office.read(written.encode(), "ipynb")
        return Reading(found.text, (*found.unread, *_source.pictures(len(_DRAWN.findall(written)))))
    return _source.readable(written, name)


def _is_page(content: bytes, name: str, content_type: str | None) -> bool:
    named = name.lower().endswith(_PAGE_NAMES) or content_type in _PAGE_TYPES
    return _begins_as_page(content) or (named and _known(content) is None)


def _begins_as_page(content: bytes) -> bool:
    """After a byte order mark, an XML declaration, comments and a doctype, the first element is an HTML element."""
    at = len(b"\xef\xbb\xbf") if content.startswith(b"\xef\xbb\xbf") else 0
    while found := _SPACE.match(content, at):
        at = found.end()
        ends = next((end for start, end in _BEFORE_MARKUP if content.startswith(start, at)), None)
        if ends is None:
            break
        end = content.find(ends, at)
        if end < 0:
            return False
        at = end + len(ends)
    return content.startswith(b"<", at) and _PAGE.match(content, at + 1 + content.startswith(b"<!", at)) is not None


def _is_mail(content: bytes, name: str, content_type: str) -> bool:
    return (name.endswith(_MAIL_NAMES) or content_type in _MAIL_TYPES) and _MAIL.search(
        content[:_PDF_WITHIN]
    ) is not None


def _with_readable_head(mail: bytes) -> bytes:
    """The mail with header lines in a legacy encoding, which the standard does not allow, converted to UTF-8."""
    end = _BLANK_LINE.search(mail)
    head = mail[: end.start()] if end else mail
    if head.isascii():
        return mail
    said = _CHARSET.search(mail)
    return _plain.decode(head, said[1].decode() if said else None).encode() + mail[len(head) :]


def _known(content: bytes) -> Callable[[bytes], Reading] | None:
    found = next((known.read for known in _FORMATS if content.startswith(known.begins)), None)
    return found or (_pdf.read if b"%PDF-" in content[:_PDF_WITHIN] and b"\0" in content else None)


def _checked(text: str) -> str:
    if len(text) > _MOST_CHARACTERS:
        raise UnreadableDocument(f"The document is too long: at most {_MOST_CHARACTERS:,} characters are read.")
    return text


def _guarded(read: Callable[[], T]) -> T:
    try:
        return read()
    except (UnreadableDocument, MemoryError):
        raise
    except Exception as error:  # malformed files make the libraries raise anything
        raise UnreadableDocument("The document is damaged.") from error
