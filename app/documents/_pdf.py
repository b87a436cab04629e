"""PDF to text, by PDFium."""

from __future__ import annotations

from typing import Any

from app.documents.base import UnreadableDocument


def read(content: bytes) -> str:
    """The text of all pages, each under a line `[Page 3]` where there are several."""
    import pypdfium2  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs] - heavy, and has no types

    pdfium: Any = pypdfium2
    try:
        document = pdfium.PdfDocument(content)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise UnreadableDocument("The PDF is protected by a password.") from error
        raise UnreadableDocument("The PDF is damaged.") from error
    pages = [_page(document, number) for number in range(len(document))]
    if not any(pages):
        raise UnreadableDocument("The PDF has no text: its pages seem to be scanned. Send them as images, or recognise the text first.")
    if len(pages) == 1:
        return pages[0]
    return "\n\n".join(f"[Page {number}]\n{page}" for number, page in enumerate(pages, 1) if page)


def _page(document: Any, number: int) -> str:
    page = document[number]
    try:
        text_page = page.get_textpage()
        try:
            text: str = text_page.get_text_range(errors="replace")
        finally:
            text_page.close()
    finally:
        page.close()
    # PDFium marks the hyphen of a word that goes on in the next line as U+0002 (or U+FFFE).
    for mark in ("\ufffe\r\n", "\x02\r\n", "\ufffe", "\x02"):
        text = text.replace(mark, "")
    return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").replace("\0", "").split("\n")).strip()
