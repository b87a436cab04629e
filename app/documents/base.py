"""What reading a document brings."""

from __future__ import annotations

import msgspec

SUPPORTED = "PDF, Word (docx), PowerPoint (pptx), Excel (xlsx), HTML, Markdown, CSV, JSON, XML, source code and other text"
"""What can be read, for people."""


class Article(msgspec.Struct, frozen=True):
    """The main text of a web page, or the whole text of another document."""

    title: str
    text: str


class UnreadableDocument(Exception):
    """No text can be got out of it; the message is a sentence that says why, without internals."""
