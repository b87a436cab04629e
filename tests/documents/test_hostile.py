"""Documents made to do harm: each is refused with a sentence, nothing leaks, and the next document is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import docx
import openpyxl  # pyright: ignore[reportMissingModuleSource] - ships no types
import pptx
import pytest

from app.documents import reading
from app.documents.base import UnreadableDocument
from tests.documents.making import part, pdf, saved, with_part

pytestmark = pytest.mark.asyncio(loop_scope="module")

_LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12)) + "]>"
)


def _docx() -> tuple[bytes, str, bytes]:
    document = docx.Document()
    document.add_paragraph("MARK")
    return saved(document), "word/document.xml", b"MARK"


def _pptx() -> tuple[bytes, str, bytes]:
    presentation = pptx.Presentation()
    slide: Any = presentation.slides.add_slide(presentation.slide_layouts[0])
    slide.shapes.title.text = "MARK"
    return saved(presentation), "ppt/slides/slide1.xml", b"MARK"


def _xlsx() -> tuple[bytes, str, bytes]:
    workbook: Any = openpyxl.Workbook()
    workbook.active["A1"] = "MARK"
    return saved(workbook), "xl/worksheets/sheet1.xml", b"MARK"


def _with_doctype(package: bytes, name: str, mark: bytes, doctype: str, entity: bytes) -> bytes:
    xml = part(package, name)
    body = xml[xml.index(b"?>") + 2 :] if xml.startswith(b"<?xml") else xml
    return with_part(package, name, b'<?xml version="1.0"?>' + doctype.encode() + body.replace(mark, entity))


@pytest.mark.parametrize("make", [_docx, _pptx, _xlsx])
async def test_billion_laughs_are_not_laughed(make: Callable[[], tuple[bytes, str, bytes]]) -> None:
    hostile = _with_doctype(*make(), _LAUGHS, b"&a11;")
    with suppress(UnreadableDocument):
        assert "haha" not in await reading.text(hostile, filename="a.docx")
    assert await reading.text(b"next", filename="a.txt") == "next"


@pytest.mark.parametrize("make", [_docx, _pptx, _xlsx])
async def test_no_file_of_the_server_is_drawn_in(make: Callable[[], tuple[bytes, str, bytes]], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("TOP-SECRET")
    hostile = _with_doctype(*make(), f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret.as_uri()}">]>', b"&e;")
    with suppress(UnreadableDocument):
        assert "TOP-SECRET" not in await reading.text(hostile, filename="a.docx")


async def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    target = BytesIO()
    with ZipFile(target, "w", ZIP_DEFLATED) as bomb, bomb.open("word/document.xml", "w") as document:
        for _ in range(300):
            document.write(bytes(1024 * 1024))
    assert len(target.getvalue()) < 1024 * 1024
    with pytest.raises(UnreadableDocument, match="too large when unpacked"):
        await reading.text(target.getvalue(), filename="bomb.docx")


async def test_a_bomb_that_lies_about_its_size_is_refused() -> None:
    package = with_part(_docx()[0], "word/document.xml", b" " * 10_000_000)
    lying = package.replace((10_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert lying != package
    with pytest.raises(UnreadableDocument, match="damaged"):
        await reading.text(lying, filename="bomb.docx")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.html", b"<div>" * 5_000_000),
        ("huge.html", b"<div>" * 20_000_000),
        ("deep.docx", with_part(_docx()[0], "word/document.xml", b"<a>" * 1_000_000)),
        ("cut.docx", _docx()[0][:-500]),
        ("archive.zip", with_part(b"PK\x05\x06" + bytes(18), "a.txt", b"x")),
        ("far.pdf", pdf("x").replace(b"/Count 1", b"/Count 999999999")[:-200]),
        ("loop.pdf", pdf("x").replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]")),
    ],
)
async def test_malformed_documents_are_refused(name: str, content: bytes) -> None:
    with pytest.raises(UnreadableDocument):
        await reading.text(content, filename=name)
    assert await reading.text(b"next", filename="a.txt") == "next"


_PARAGRAPH = (
    '<w:p><w:pPr><w:numPr><w:ilvl w:val="999999999"/><w:numId '
    'w:val="1"/></w:numPr></w:pPr><w:r><w:t>x</w:t></w:r></w:p>'
)


def _word(body: str) -> bytes:
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    return with_part(
        _docx()[0], "word/document.xml", f"<w:document {space}><w:body>{body}</w:body></w:document>".encode()
    )


def _sheet(rows: str) -> bytes:
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    return with_part(
        _xlsx()[0], "xl/worksheets/sheet1.xml", f"<worksheet {space}><sheetData>{rows}</sheetData></worksheet>".encode()
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("comments.txt", b"<!--a-->" * 60 + b"text"),
        ("attributes.html", b"<html><body " + b" ".join(b"a%d=1" % number for number in range(300_000)) + b">hello"),
        ("attributes.docx", _word("<w:p " + " ".join(f'a{number}="1"' for number in range(100_000)) + "/>")),
        ("level.docx", _word(_PARAGRAPH)),
        (
            "span.docx",
            _word(
                f"<w:tbl><w:tr><w:tc><w:tcPr><w:gridSpan "
                f'w:val="2000000000"/></w:tcPr>{_PARAGRAPH}</w:tc></w:tr></w:tbl>'
            ),
        ),
        ("tables.docx", _word("<w:tbl><w:tr><w:tc>" * 100 + _PARAGRAPH + "</w:tc></w:tr></w:tbl>" * 100)),
        ("row.xlsx", _sheet('<row r="999999999999"><c r="A999999999999"><v>1</v></c></row>')),
        ("column.xlsx", _sheet(f'<row r="1"><c r="{"A" * 100_000}1"><v>1</v></c></row>')),
        (
            "number.xlsx",
            _sheet(f'<row r="1"><c r="A1"><v>{"9" * 100_000}</v></c><c r="B1"><v>1e99999999</v></c></row>'),
        ),
        ("groups.rtf", b"{\\rtf1 " + b"{" * 1_000_000 + b"x" + b"}" * 1_000_000 + b"}"),
        ("messages.eml", b"From: a\nContent-Type: message/rfc822\n\n" * 20_000 + b"text"),
        ("nested.json", b'{"a": "\\u4f60", "b": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
        (
            "pages.pdf",
            pdf("x")
            .replace(b"/Kids [4 0 R]", b"/Kids [" + b"4 0 R " * 20_000 + b"]")
            .replace(b"/Count 1", b"/Count 20000"),
        ),
    ],
)
async def test_small_bombs_hold_nobody_up(name: str, content: bytes) -> None:
    async with asyncio.timeout(60):  # a minute is what these took, or for ever; they take a second
        with suppress(UnreadableDocument):
            await reading.text(content, filename=name)
    assert await reading.text(b"next", filename="a.txt") == "next"


def _many_parts() -> bytes:
    target = BytesIO()
    with ZipFile(target, "w") as package:
        for number in range(10_001):
            package.writestr(f"ppt/slides/slide{number}.xml", b"")
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("slides.pptx", _many_parts(), "more than 10,000 parts"),
        (
            "cells.xlsx",
            _sheet(f"<row>{'<c><v>1</v></c>' * 1_100_000}</row>"),
            "tables are too large: at most 1,000,000 cells",
        ),
        ("same.docx", _word("<w:p/>" * 12_000_000), "too large when unpacked: at most 64 MiB"),
    ],
)
async def test_the_reason_is_the_one_that_is_true(name: str, content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableDocument, match=reason):
        await reading.text(content, filename=name)


async def test_the_same_again_and_again_is_no_bomb() -> None:
    rows = "".join(f'<row r="{row}"><c r="A{row}"><v>1</v></c></row>' for row in range(1, 5))
    merged = "".join(f'<mergeCell ref="A{row}:XFD{row}"/>' for row in range(1, 5)) * 20_000
    sheet = part(_sheet(rows), "xl/worksheets/sheet1.xml").replace(
        b"</worksheet>", f"<mergeCells>{merged}</mergeCells></worksheet>".encode()
    )

    assert "| 1 |" in await reading.text(with_part(_xlsx()[0], "xl/worksheets/sheet1.xml", sheet), filename="a.xlsx")


async def test_what_is_too_long_is_refused_not_cut() -> None:
    with pytest.raises(UnreadableDocument, match="at most 20,000,000 characters"):
        await reading.text(b"long " * 4_000_001, filename="a.txt")
    with pytest.raises(UnreadableDocument, match="the limit is 128 MiB"):
        await reading.text(bytes(128 * 1024 * 1024 + 1), filename="a.txt")


async def test_the_gateway_goes_on_meanwhile() -> None:
    ticks = 0
    async with asyncio.TaskGroup() as tasks:
        reads = [tasks.create_task(_refused(b"<div>" * 5_000_000)) for _ in range(2)]
        while not all(read.done() for read in reads):
            await asyncio.sleep(0.001)
            ticks += 1
    assert ticks > 20  # they take half a second each


async def _refused(content: bytes) -> None:
    with pytest.raises(UnreadableDocument):
        await reading.text(content, filename="a.html")
