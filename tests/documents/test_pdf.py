"""PDF: text page by page, and a sentence where there is none."""

from __future__ import annotations

from io import BytesIO

import pypdfium2  # pyright: ignore[reportMissingTypeStubs] - ships no types
import pytest
from PIL import Image

from app.documents import reading
from app.documents.base import UnreadableDocument
from tests.documents.making import pdf

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_one_page_is_its_text() -> None:
    assert await reading.text(pdf("Hello 世界，你好"), filename="a.pdf") == "Hello 世界，你好"


async def test_pages_are_told_apart() -> None:
    assert await reading.text(pdf("first", "", "第三页"), filename="a.pdf") == "[Page 1]\nfirst\n\n[Page 3]\n第三页"


async def test_a_header_that_is_not_the_very_first_is_found() -> None:
    junk = b"\0from a mail\n"
    assert await reading.text(junk + pdf("late"), filename="a.pdf") == "late"


async def test_scanned_pages_are_named_as_such() -> None:
    scan = BytesIO()
    Image.new("L", (50, 50)).save(scan, format="PDF")
    with pytest.raises(UnreadableDocument, match="no text: its pages seem to be scanned"):
        await reading.text(scan.getvalue(), filename="scan.pdf")


async def test_a_damaged_pdf_is_named_as_such() -> None:
    with pytest.raises(UnreadableDocument, match="The PDF is damaged"):
        await reading.text(pdf("x")[:40], filename="a.pdf")


async def test_the_library_reads_what_the_tests_make() -> None:
    assert len(pypdfium2.PdfDocument(pdf("a", "b"))) == 2
