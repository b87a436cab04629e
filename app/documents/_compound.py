"""Compound files: the formats of Word, Excel and PowerPoint before 2007, and Outlook messages."""

from __future__ import annotations

from app.documents import _office
from app.documents.base import SUPPORTED, Reading, UnreadableDocument, counted

BEGINS = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1")
_STREAMS = (
    ("__properties_version1.0", "msg"),  # first: messages may contain the others
    ("WordDocument", "doc"),
    ("PowerPoint Document", "ppt"),
    ("Workbook", "xls"),
    ("Book", "xls"),
)


def kind(content: bytes) -> str:
    """Its usual file name extension, determined by its streams. Raises UnreadableDocument."""
    if _name("EncryptedPackage") in content:
        raise UnreadableDocument("The document is protected by a password.")
    for stream, extension in _STREAMS:
        if _name(stream) in content:
            return extension
    raise UnreadableDocument(f"The format of the file is not supported. Supported are {SUPPORTED}.")


def read(content: bytes) -> Reading:
    """The document, and how many pictures it seems to contain: the engine ignores them."""
    extension = kind(content)
    pictures = sum(map(content.count, _PICTURES))
    unread = [counted(pictures, "picture")] if pictures and extension != "msg" else []
    if extension == "xls":
        unread.append("number formats")
    return _office.read(content, extension, Reading("", tuple(unread)))


def _name(stream: str) -> bytes:
    return stream.encode("utf-16-le") + b"\0\0"
