"""Compound files: what Word, Excel and PowerPoint wrote before 2007, and Outlook's messages."""

from __future__ import annotations

from app.documents.base import SUPPORTED, UnreadableDocument

BEGINS = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_STREAMS = (
    ("__properties_version1.0", "msg"),  # first: messages may hold the others
    ("WordDocument", "doc"),
    ("PowerPoint Document", "ppt"),
    ("Workbook", "xls"),
    ("Book", "xls"),
)


def kind(content: bytes) -> str:
    """Its usual file name extension, by the streams that it names. Raises UnreadableDocument."""
    if _name("EncryptedPackage") in content:
        raise UnreadableDocument("The document is protected by a password.")
    for stream, extension in _STREAMS:
        if _name(stream) in content:
            return extension
    raise UnreadableDocument(f"The format of the file is not supported. Supported are {SUPPORTED}.")


def _name(stream: str) -> bytes:
    return stream.encode("utf-16-le") + b"\0\0"
