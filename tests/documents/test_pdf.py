"""PDF: text page by page, and a sentence where there is none."""

from __future__ import annotations

from io import BytesIO
from typing import Any

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
    assert (
        await reading.text(pdf("first", "", "第三页"), filename="a.pdf")
        == "[Page 1]\nfirst\n\n[Page 2] (empty)\n\n[Page 3]\n第三页"
    )


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


def _object(number: int, body: bytes) -> bytes:
    return b"%d 0 obj\n%b\nendobj\n" % (number, body)


def _with_annotations(*annotations: bytes) -> bytes:
    """A page "Application" with these annotations, whose fields are one form.

    PDFium finds the objects without a table.
    """
    numbers = range(10, 10 + len(annotations))
    listed = b" ".join(b"%d 0 R" % number for number in numbers)
    shown = b"BT /F1 12 Tf 50 700 Td (Application) Tj ET"
    objects = [
        _object(1, b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[%b]>>>>" % listed),
        _object(2, b"<</Type/Pages/Kids[3 0 R]/Count 1>>"),
        _object(
            3,
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R/Resources<</Font<</F1 5 0 "
            b"R>>>>/Annots[%b]>>" % listed,
        ),
        _object(4, b"<</Length %d>>\nstream\n%b\nendstream" % (len(shown), shown)),
        _object(5, b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"),
        *(_object(number, annotation) for number, annotation in zip(numbers, annotations, strict=True)),
    ]
    return b"%PDF-1.7\n" + b"".join(objects) + b"trailer\n<</Root 1 0 R/Size 99>>\n%%EOF"


async def test_what_is_entered_in_a_form_is_read() -> None:
    box = b"/Type/Annot/Subtype/Widget/Rect[50 50 150 70]"
    states = b"/AP<</N<</Yes null/Off null>>>>"
    form = _with_annotations(
        b"<<%b/FT/Tx/T(name)/TU(Full name)/V(Zhang San)>>" % box,
        b"<<%b/FT/Tx/T(empty)>>" % box,
        b"<<%b/FT/Ch/Ff 131072/T(city)/Opt[(Hangzhou)(Beijing)]/V(Beijing)>>" % box,
        b"<<%b/FT/Btn/T(agree)/V/Yes/AS/Yes%b>>" % (box, states),
        b"<<%b/FT/Btn/T(refuse)/V/Off/AS/Off%b>>" % (box, states),
        b"<</Type/Annot/Subtype/Text/Rect[0 0 20 20]/Contents(Please check)>>",
    )
    assert await reading.text(form, filename="form.pdf") == (
        "Application\nFull name: Zhang San\ncity: Beijing\nagree: Yes\n[Comment: Please check]"
    )


async def test_a_scanned_page_among_others_is_named_in_its_place_and_at_the_end() -> None:
    scan = BytesIO()
    Image.new("L", (500, 500)).save(scan, format="PDF")
    both: Any = pypdfium2.PdfDocument.new()
    for content in (pdf("first"), scan.getvalue(), scan.getvalue()):
        both.import_pages(pypdfium2.PdfDocument(content))
    target = BytesIO()
    both.save(target)
    assert await reading.text(target.getvalue(), filename="a.pdf") == (
        "[Page 1]\nfirst\n\n[Page 2] (an image; no text)\n\n[Page 3] (an image; no text)\n\n"
        "[Not in this text: pages 2, 3 (an image; no text)]"
    )
