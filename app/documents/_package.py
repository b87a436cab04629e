"""Documents that are zip archives: the kind, the parts, and the archive with some of them replaced."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from io import BytesIO
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from app.documents.base import SUPPORTED, UnreadableDocument

_MOST_UNPACKED = 256 * 1024 * 1024
_MOST_PARTS = 10_000
"""The engine takes what has more for a plain archive."""
_LARGEST_PART = 64 * 1024 * 1024
"""Limit for parts that are inspected here."""
_OFFICE = (("word/", "docx"), ("ppt/", "pptx"), ("xl/", "xlsx"))
_BY_TYPE = (
    (b"application/epub+zip", "epub"),
    (b"application/vnd.oasis.opendocument.text", "odt"),
    (b"application/vnd.oasis.opendocument.spreadsheet", "ods"),
    (b"application/vnd.oasis.opendocument.presentation", "odp"),
)
_TYPE_BYTES = 100


class Package:
    """An opened archive."""

    def __init__(self, content: bytes) -> None:
        """Raises UnreadableDocument: damaged, too large when unpacked, not a document, or encrypted."""
        self.content = content
        try:
            self._archive = ZipFile(BytesIO(content))
        except BadZipFile as error:
            raise UnreadableDocument("The document is damaged.") from error
        parts = self._archive.infolist()
        # The module reads no more of a part than the archive's directory declares.
        if len(parts) > _MOST_PARTS:
            raise UnreadableDocument(
                f"The document has more than {_MOST_PARTS:,} parts, such as slides, sheets and pictures."
            )
        if sum(part.file_size for part in parts) > _MOST_UNPACKED:
            raise UnreadableDocument(
                f"The document is too large when unpacked: at most {_MOST_UNPACKED // 2**20} MiB are read."
            )
        self.names = {part.filename: part for part in parts}
        self.kind = self._kind()

    def _kind(self) -> str:
        if "[Content_Types].xml" in self.names:
            for folder, kind in _OFFICE:
                if any(name.startswith(folder) for name in self.names):
                    return "xlsb" if "xl/workbook.bin" in self.names else kind
        declared = self.part("mimetype")[:_TYPE_BYTES]
        kind = next((kind for begins, kind in _BY_TYPE if declared.startswith(begins)), None)
        if kind is None and "META-INF/container.xml" in self.names:
            return "epub"
        if kind is None:
            raise UnreadableDocument(f"The file is an archive, not a document. Supported are {SUPPORTED}.")
        if kind != "epub" and b"encryption-data" in self.part("META-INF/manifest.xml"):
            raise UnreadableDocument("The document is protected by a password.")
        return kind

    def part(self, name: str) -> bytes:
        """Its content; empty if it is missing or too large to be inspected.

        Raises UnreadableDocument if it is damaged.
        """
        found = self.names.get(name)
        if found is None or found.file_size > _LARGEST_PART:
            return b""
        try:
            return self._archive.read(found)
        except Exception as error:  # malformed archives make the module raise anything
            raise UnreadableDocument("The document is damaged.") from error

    def tree(self, name: str) -> Any | None:
        """A part as lxml's tree, without entities; None if it is missing or cannot be parsed."""
        lxml, content = _lxml(), self.part(name)
        if not content:
            return None
        try:
            root = lxml.fromstring(
                content, lxml.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
            )
        except (lxml.XMLSyntaxError, ValueError):
            return None
        return None if root.getroottree().docinfo.internalDTD is not None else root

    def replaced(self, parts: Mapping[str, bytes]) -> bytes:
        """The archive with new content in these parts."""
        if not parts:
            return self.content
        result = BytesIO()
        with ZipFile(result, "w", ZIP_STORED) as new:
            for name in self.names:
                new.writestr(name, parts[name] if name in parts else self.whole(name))
        return result.getvalue()

    def whole(self, name: str) -> bytes:
        """A part of any size."""
        try:
            return self._archive.read(self.names[name])
        except Exception as error:  # as above
            raise UnreadableDocument("The document is damaged.") from error


def serialized(root: Any) -> bytes:
    """A tree serialized as a part."""
    written: bytes = _lxml().tostring(root, xml_declaration=True, encoding="UTF-8", standalone=True)
    return written


def _lxml() -> Any:
    return import_module("lxml.etree")  # heavy, and has no types
