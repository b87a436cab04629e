"""Word, PowerPoint and Excel: what is in them arrives as Markdown."""

from __future__ import annotations

import datetime
from io import BytesIO
from typing import Any

import docx
import openpyxl  # pyright: ignore[reportMissingModuleSource] - ships no types
import pptx
import pytest
from PIL import Image
from pptx.util import Inches

from app.documents import reading
from app.documents.base import UnreadableDocument
from tests.documents.making import part, saved, with_part

pytestmark = pytest.mark.asyncio(loop_scope="module")


def picture() -> BytesIO:
    """A picture as a file."""
    content = BytesIO()
    Image.new("RGB", (20, 20), "red").save(content, "PNG")
    content.seek(0)
    return content


async def test_a_word_document_keeps_its_headings_lists_and_tables() -> None:
    document = docx.Document()
    document.add_heading("年度报告", 0)
    document.add_heading("第一章 概况", 1)
    document.add_heading("Details", 2)
    document.add_paragraph("收入增长 12%。")
    document.add_paragraph("first", style="List Bullet")
    document.add_paragraph("then", style="List Number")
    table = document.add_table(2, 2)
    for cell, text in zip(
        (cell for row in table.rows for cell in row.cells), ("name", "a|b", "x\ny", "2"), strict=True
    ):
        cell.text = text
    document.add_paragraph("The end.")
    assert await reading.text(saved(document), filename="report.docx") == (
        "# 年度报告\n\n# 第一章 概况\n\n## Details\n\n收入增长 12%。\n\n- first\n\n1. then\n\n"
        "| name | a\\|b |\n| --- | --- |\n| x y | 2 |\n\nThe end."
    )


async def test_what_looks_like_markdown_is_not_escaped() -> None:
    document = docx.Document()
    written = ["a*b_c [x] 1 > 2 ~ ! # end", "2026. a year", r"C:\dir\!x", "<b> & `code`", "+ plus"]
    for line in written:
        document.add_paragraph(line)
    assert (await reading.text(saved(document), filename="a.docx")).split("\n\n") == written


async def test_merged_cells_keep_their_columns() -> None:
    document = docx.Document()
    table = document.add_table(3, 3)
    for place, cell in enumerate(cell for row in table.rows for cell in row.cells):
        cell.text = f"c{place}"
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(1, 0).merge(table.cell(2, 0)).text = "high"
    assert await reading.text(saved(document), filename="a.docx") == (
        "| wide |  | c2 |\n| --- | --- | --- |\n| high | c4 | c5 |\n|  | c7 | c8 |"
    )


async def test_pictures_are_named_where_they_stand_and_at_the_end() -> None:
    document = docx.Document()
    document.add_paragraph("before")
    document.add_picture(picture())
    document.add_paragraph("after")
    assert (
        await reading.text(saved(document), filename="a.docx")
        == "before\n\n[Picture]\n\nafter\n\n[Not in this text: 1 picture]"
    )


_BODY = """<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"
 xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><w:body>
<w:p><w:r><w:t xml:space="preserve">kept </w:t></w:r><w:ins w:id="1" w:author="A"><w:r><w:t>inserted</w:t></w:r></w:ins>
<w:del w:id="2" w:author="A"><w:r><w:delText>deleted</w:delText></w:r></w:del></w:p>
<w:sdt><w:sdtContent><w:p><w:hyperlink><w:r><w:t>in a control</w:t></w:r></w:hyperlink></w:p></w:sdtContent></w:sdt>
<w:p><w:r><mc:AlternateContent>
<mc:Choice Requires="wps"><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent></mc:Choice>
<mc:Fallback><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent></mc:Fallback></mc:AlternateContent></w:r></w:p>
</w:body></w:document>"""


async def test_text_in_boxes_controls_and_insertions_is_read_once_and_deleted_text_is_named() -> None:
    document = with_part(saved(docx.Document()), "word/document.xml", _BODY.encode())
    said = await reading.text(document, filename="x.docx")
    assert [line.strip() for line in said.split("\n") if line] == [
        "kept inserted",
        "in a control",
        "boxed",
        "[Not in this text: 1 tracked deletion]",
    ]


async def test_the_content_tells_the_format_not_the_name() -> None:
    document = docx.Document()
    document.add_paragraph("told by content")
    assert await reading.text(saved(document), filename="notes.txt", content_type="text/plain") == "told by content"


async def test_a_presentation_keeps_slides_levels_tables_and_notes() -> None:
    presentation = pptx.Presentation()
    first: Any = presentation.slides.add_slide(presentation.slide_layouts[1])
    first.shapes.title.text = "发布计划"
    first.placeholders[1].text = "one"
    deeper = first.placeholders[1].text_frame.add_paragraph()
    deeper.text, deeper.level = "two", 1
    first.notes_slide.notes_text_frame.text = "say hello"
    table = first.shapes.add_table(1, 2, Inches(1), Inches(1), Inches(1), Inches(1)).table
    table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
    second: Any = presentation.slides.add_slide(presentation.slide_layouts[6])
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 10, 10).text_frame.text = "in a group"
    second.shapes.add_picture(picture(), 0, 0)
    assert await reading.text(saved(presentation), filename="plan.pptx") == (
        "[Slide 1]\n## 发布计划\n\none\n\n- two\n\n| a | b |\n| --- | --- |\n\nNotes: say hello\n\n"
        "[Slide 2]\n## in a group\n\n[Picture]\n\n[Not in this text: 1 picture]"
    )


async def test_a_workbook_gives_values_by_sheet() -> None:
    workbook: Any = openpyxl.Workbook()
    sheet = workbook.active
    sheet.title = "订单"
    sheet.append(["客户", "amount", "paid", "day"])
    sheet.append(["张三", 0.1 + 0.2, True, datetime.date(2026, 1, 2)])
    sheet.append([None, 3.0, None, datetime.datetime(2026, 1, 2, 3, 4)])  # noqa: DTZ001 - a spreadsheet knows no time zones
    sheet["A9"] = "far below"
    workbook.create_sheet("empty")
    assert await reading.text(saved(workbook), filename="orders.xlsx") == (
        "## 订单\n\n| 客户 | amount | paid | day |\n| --- | --- | --- | --- |\n| 张三 | 0.3 | TRUE | 2026-01-02 |\n"
        "|  | 3 |  | 2026-01-02 03:04:00 |\n| far below |  |  |  |\n\n## empty"
    )


async def test_a_formula_is_its_value() -> None:
    workbook: Any = openpyxl.Workbook()
    workbook.active["A1"] = "=1+1"
    content = saved(workbook)
    sheet = part(content, "xl/worksheets/sheet1.xml").replace(b"<v />", b"<v>2</v>").replace(b"<v></v>", b"<v>2</v>")
    assert (
        await reading.text(with_part(content, "xl/worksheets/sheet1.xml", sheet), filename="x.xlsx")
        == "## Sheet\n\n| 2 |\n| --- |"
    )


async def test_a_long_and_wide_sheet_is_whole() -> None:
    workbook: Any = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet("long")
    sheet.append([f"column {number}" for number in range(300)])
    for number in range(3_001):
        sheet.append([number])
    said = await reading.text(saved(workbook), filename="long.xlsx")
    assert "column 299 |" in said
    assert "| 3000 |" in said


async def test_a_password_is_named() -> None:
    locked = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + "EncryptedPackage".encode("utf-16-le") + bytes(96)
    with pytest.raises(UnreadableDocument, match="protected by a password"):
        await reading.text(locked, filename="secret.xlsx")
