"""What reading a document brings."""

from __future__ import annotations

import msgspec

SUPPORTED = (
    "PDF, Word (docx, doc), PowerPoint (pptx, ppt), Excel (xlsx, xlsb, xls), OpenDocument (odt, ods, odp), RTF, EPUB, mail (eml, msg), "
    "HTML, Markdown, CSV, JSON, XML, notebooks, source code and other text"
)
"""What can be read, for people."""


class Reading(msgspec.Struct, frozen=True):
    """What a document says."""

    text: str
    unread: tuple[str, ...] = ()
    """What of the document is not in the text, a clause each: "page 2, an image"."""


_BEGINS, _ENDS = "[Not in this text: ", "]"


def with_note(reading: Reading) -> str:
    """The text, and in a last line what is not in it."""
    return f"{reading.text}\n\n{_BEGINS}{'; '.join(reading.unread)}{_ENDS}" if reading.unread else reading.text


def note(text: str) -> str | None:
    """What the last line of a document's text says is not in it."""
    last = text[text.rfind("\n") + 1 :]
    return last[len(_BEGINS) : -len(_ENDS)] if last.startswith(_BEGINS) and last.endswith(_ENDS) else None


class Article(msgspec.Struct, frozen=True):
    """The main text of a web page, or the whole text of another document."""

    title: str
    text: str


class UnreadableDocument(Exception):
    """No text can be got out of it; the message is a sentence that says why, without internals."""
