"""OpenDocument, RTF, e-books, mail, notebooks and what Office wrote before 2007."""

from __future__ import annotations

import asyncio
import json
import lzma
import sys
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from app.documents import reading
from app.documents.base import UnreadableDocument
from tests.documents.making import part

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SAMPLES = Path(__file__).parent / "samples"
_SPACES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text", "table", "draw")
)
_TYPE = "application/vnd.oasis.opendocument."


def archive(parts: dict[str, str]) -> bytes:
    """A zip archive."""
    target = BytesIO()
    with ZipFile(target, "w") as package:
        for name, content in parts.items():
            package.writestr(name, content)
    return target.getvalue()


def opendocument(kind: str, body: str, manifest: str = "<manifest/>") -> bytes:
    """An OpenDocument file."""
    content = (
        f"<office:document-content "
        f"{_SPACES}><office:body><office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    return archive({"mimetype": _TYPE + kind, "META-INF/manifest.xml": manifest, "content.xml": content})


async def test_opendocument_text_keeps_headings_and_columns() -> None:
    def row(*cells: str) -> str:
        return f"<table:table-row>{''.join(cells)}</table:table-row>"

    def cell(text: str, more: str = "") -> str:
        return f"<table:table-cell {more}><text:p>{text}</text:p></table:table-cell>"

    wide = cell("wide", 'table:number-columns-spanned="2"') + "<table:covered-table-cell/>"
    table = f"<table:table>{row(wide, cell('c'))}{row(cell('1'), cell('2'), cell('3'))}</table:table>"
    content = opendocument("text", f'<text:h text:outline-level="1">年度报告</text:h><text:p>收入</text:p>{table}')
    assert (
        await reading.text(content, filename="a.odt")
        == "# 年度报告\n\n收入\n\n| wide |  | c |\n| --- | --- | --- |\n| 1 | 2 | 3 |"
    )


async def test_opendocument_sheets_show_numbers_as_formatted() -> None:
    cells = [
        '<table:table-cell office:value-type="float" office:value="123"><text:p>00123</text:p></table:table-cell>',
        (
            '<table:table-cell office:value-type="percentage" office:value="0.125"><text:p>12.5 '
            "%</text:p></table:table-cell>"
        ),
        (
            '<table:table-cell office:value-type="time" '
            'office:time-value="PT30H00M00S"><text:p>30:00</text:p></table:table-cell>'
        ),
        '<table:table-cell table:formula="of:=[.A1]*2"/>',
    ]
    content = opendocument(
        "spreadsheet", f'<table:table table:name="S"><table:table-row>{"".join(cells)}</table:table-row></table:table>'
    )
    assert "| 00123 | 12.5 % | 30:00 | =[.A1]*2 |" in await reading.text(content, filename="a.ods")


async def test_a_sheet_that_repeats_empty_rows_to_its_end_is_read() -> None:
    empty = (
        '<table:table-row table:number-rows-repeated="1048574"><table:table-cell '
        'table:number-columns-repeated="16384"/></table:table-row>'
    )
    row = (
        "<table:table-row><table:table-cell "
        'office:value-type="string"><text:p>{}</text:p></table:table-cell></table:table-row>'
    )
    sheet = f'<table:table table:name="S">{row.format("first")}{empty}{row.format("last")}</table:table>'
    assert (
        await reading.text(opendocument("spreadsheet", sheet), filename="a.ods")
        == "## S\n\n| first |\n| --- |\n| last |"
    )


async def test_opendocument_slides_are_read() -> None:
    frame = "<draw:frame><draw:text-box><text:p>发布计划</text:p></draw:text-box></draw:frame>"
    content = opendocument("presentation", f'<draw:page draw:name="one">{frame}</draw:page>')
    assert "发布计划" in await reading.text(content, filename="a.odp")


async def test_an_encrypted_opendocument_file_names_its_password() -> None:
    content = opendocument("text", "<text:p/>", "<manifest><encryption-data/></manifest>")
    with pytest.raises(UnreadableDocument, match="protected by a password"):
        await reading.text(content, filename="a.odt")


async def test_rich_text_is_read_in_its_code_page() -> None:
    chinese = "".join(rf"\'{byte:02x}" for byte in "会议纪要".encode("gbk"))
    content = (
        rf"{{\rtf1\ansi\ansicpg936\deff0{{\fonttbl{{\f0\fcharset134 SimSun;}}}}\f0 {chinese}\par second\par}}".encode()
    )
    assert await reading.text(content, filename="a.rtf") == "会议纪要\n\nsecond"


async def test_a_book_is_read_in_its_order() -> None:
    container = "urn:oasis:names:tc:opendocument:xmlns:container"
    page = '<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>{}</h1><p>{}</p></body></html>'
    root = '<rootfile full-path="c.opf" media-type="application/oebps-package+xml"/>'
    roots = f'<container xmlns="{container}" version="1.0"><rootfiles>{root}</rootfiles></container>'
    package = '<package xmlns="http://www.idpf.org/2007/opf" version="3.0">'
    manifest = "".join(f'<item id="{name}" href="{name}.xhtml" media-type="application/xhtml+xml"/>' for name in "ab")
    spine = '<spine><itemref idref="b"/><itemref idref="a"/></spine>'
    content = archive({
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": roots,
        "c.opf": f"{package}<metadata/><manifest>{manifest}</manifest>{spine}</package>",
        "a.xhtml": page.format("第二回", "冷子兴"),
        "b.xhtml": page.format("第一回", "甄士隐"),
    })  # fmt: skip
    assert await reading.text(content, filename="a.epub") == "# 第一回\n\n甄士隐\n\n# 第二回\n\n冷子兴"


@pytest.mark.parametrize("charset", ["utf-8", "gb18030"])
async def test_mail_is_read_with_its_head_and_names_its_attachments(charset: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Zhang <a@example.cn>", "b@example.cn", "会议通知"
    mail.set_content("你好，明天开会。\n", charset=charset)
    mail.add_attachment(b"a,b\n", maintype="text", subtype="csv", filename="table.csv")
    said = await reading.text(mail.as_bytes(), filename="a.eml")
    for text in (
        "会议通知",
        "Zhang <a@example.cn>",
        "你好，明天开会。",
        "table.csv",
        "[Not in this text: 1 attached file]",
    ):
        assert text in said


async def test_mail_whose_head_is_in_an_old_encoding_is_read() -> None:
    mail = (
        "From: a@example.cn\nSubject: 测试\nMIME-Version: 1.0\nContent-Type: text/html; charset=gbk\n\n<p>你好世界</p>"
    )
    said = await reading.text(mail.encode("gbk"), filename="a.eml")
    assert "测试" in said
    assert "你好世界" in said


async def test_a_saved_page_is_read() -> None:
    saved = (
        "From: <Saved by Blink>\nSubject: page\nMIME-Version: 1.0\nContent-Type: multipart/related; boundary=B\n\n--B\n"
        "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: "
        "quoted-printable\n\n<h1>=E4=BD=A0=E5=A5=BD</h1>\n--B--\n"
    )
    assert "# 你好" in await reading.text(saved.encode(), filename="a.mht")


async def test_a_template_is_read_as_what_it_makes() -> None:
    content = opendocument("text", "<text:p>Dear</text:p>")
    template = archive(
        {"mimetype": f"{_TYPE}text-template"}
        | {name: part(content, name).decode() for name in ("META-INF/manifest.xml", "content.xml")}
    )
    assert await reading.text(template, filename="a.ott") == "Dear"


async def test_a_notebook_shows_cells_and_output_and_no_base64() -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["42\n"]},
        {"output_type": "display_data", "data": {"image/png": "iVBOR" + "A" * 400}, "metadata": {}},
    ]
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# 标题"]},
        {"cell_type": "code", "metadata": {}, "execution_count": 1, "source": ["print(6 * 7)"], "outputs": outputs},
    ]
    notebook: dict[str, Any] = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"language": "python"}},
        "cells": cells,
    }
    said = await reading.text(json.dumps(notebook).encode(), filename="a.ipynb")
    assert said == "# 标题\n\n```python\nprint(6 * 7)\n```\n\n42\n\n[Not in this text: 1 picture]"


@pytest.mark.parametrize(
    ("name", "text"), [("word.doc", "收入增长 12%。"), ("excel.xls", "| 张三 | 12.5 |"), ("slides.ppt", "发布计划")]
)
async def test_what_office_wrote_before_2007_is_read(name: str, text: str) -> None:
    content = lzma.decompress((_SAMPLES / f"{name}.xz").read_bytes())
    assert text in await reading.text(content, filename=name)


async def test_an_archive_is_refused() -> None:
    with pytest.raises(UnreadableDocument, match="is an archive, not a document"):
        await reading.text(archive({"a.docx": "x", "b.txt": "y"}), filename="a.zip")


_WITHOUT = """
import sys
sys.modules["xberg"] = None
from app.documents import _formats
from app.documents.base import UnreadableDocument
from tests.documents.making import part
try:
    _formats.text(sys.stdin.buffer.read(), "a.rtf", None)
except UnreadableDocument as error:
    print(error)
print(_formats.text(b"<html><body><p>a page</p></body></html>", "a.html", None))
"""


async def test_where_the_engine_is_not_to_be_had_its_formats_are_refused_by_name() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WITHOUT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate(b"{\\rtf1 hi}")
    assert said.decode().splitlines() == ["Documents of the format rtf cannot be read on this platform.", "a page"]
