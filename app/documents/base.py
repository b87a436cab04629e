"""The result of reading a document."""

from __future__ import annotations

import msgspec

SUPPORTED = (
    "PDF, Word (docx, doc), PowerPoint (pptx, ppt), Excel (xlsx, xlsb, xls), OpenDocument (odt, ods, odp), RTF, EPUB, "
    "mail (eml, msg), HTML, Markdown, CSV, JSON, XML, notebooks, source code and other text"
)
"""The supported formats, for users."""


class Reading(msgspec.Struct, frozen=True):
    """The text of a document."""

    text: str
    unread: tuple[str, ...] = ()
    """What of the document is not in the text, one clause each: "page 2, an image"."""


_BEGINS, _ENDS = "[Not in this text: ", "]"


def with_note(reading: Reading) -> str:
    """The text, with a last line saying what is missing from it."""
    return f"{reading.text}\n\n{_BEGINS}{'; '.join(reading.unread)}{_ENDS}" if reading.unread else reading.text


def counted(number: int, what: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def note(text: str) -> str | None:
    """What is missing from a document's text, according to its last line."""
    last = text[text.rfind("\n") + 1 :]
    return last[len(_BEGINS) : -len(_ENDS)] if last.startswith(_BEGINS) and last.endswith(_ENDS) else None


class Article(msgspec.Struct, frozen=True):
    """The main text of a web page, or the whole text of another document."""

    title: str
    text: str


class UnreadableDocument(Exception):
    """No text can be extracted; the message is a sentence that says why, without internals."""
