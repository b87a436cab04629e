"""Web pages: the main text, whatever the encoding; other things that are fetched are read whole."""

from __future__ import annotations

import pytest

from app.documents import reading
from app.documents.base import UnreadableDocument
from tests.documents.making import pdf

pytestmark = pytest.mark.asyncio(loop_scope="module")

_URL = "https://news.example/2026/opening.html"
_PAGE = """<!DOCTYPE html><html>
<head><meta charset="{charset}"><title>新馆开放</title><style>p {{}}</style></head><body>
<nav><a href="/">首页</a><a href="/about">关于我们</a></nav>
<article><h1>新馆开放</h1><p>市图书馆新馆今天正式向公众开放，首日接待读者超过一万人次，现场秩序井然。</p>
<h2>开放时间</h2><table><tr><th>日期</th><th>时间</th></tr><tr><td>周一</td><td>9:00</td></tr></table>
<p>馆方表示，未来将继续延长开放时间，并增加自习座位和儿童阅读区域，欢迎市民前来参观。</p></article>
<script>var hidden = 1</script><footer>版权所有 2026</footer></body></html>"""


async def read(
    content: bytes, content_type: str = "text/html", charset: str | None = None, url: str = _URL
) -> tuple[str, str]:
    found = await reading.article(content, url=url, content_type=content_type, charset=charset)
    return found.title, found.text


@pytest.mark.parametrize(
    ("encoding", "header"), [("utf-8", None), ("gb2312", None), ("gb18030", "gbk"), ("utf-16", None)]
)
async def test_the_main_text_is_kept_and_the_rest_is_not(encoding: str, header: str | None) -> None:
    title, text = await read(_PAGE.format(charset=encoding).encode(encoding), charset=header)
    assert title == "新馆开放"
    assert "首日接待读者超过一万人次" in text
    assert "## 开放时间" in text
    assert "| 周一 | 9:00 |" in text
    assert "关于我们" not in text
    assert "版权所有" not in text
    assert "hidden" not in text


async def test_a_charset_header_is_heeded() -> None:
    page = "<html><head><title>台北</title></head><body><article><p>開放時間</p></article></body></html>"
    assert await read(page.encode("big5"), charset="big5") == ("台北", "開放時間")


async def test_a_wrong_charset_header_is_seen_through() -> None:
    title, _ = await read(_PAGE.format(charset="utf-8").encode(), charset="iso-8859-1")
    assert title == "新馆开放"


async def test_where_no_main_text_is_found_all_visible_text_is_taken() -> None:
    head = b"<html><head><title>T</title></head>"
    page = head + b"<body><select><option>Red<option>Green</select><button>Buy</button><script>x</script></body></html>"
    title, text = await read(page)
    assert title == "T"
    assert "Red" in text
    assert "Buy" in text
    assert "x" not in text.split()


async def test_a_page_made_by_scripts_is_named_as_such() -> None:
    with pytest.raises(UnreadableDocument, match="no text"):
        await read(b"<html><body><div id=root></div><script>render()</script></body></html>")


async def test_other_documents_are_read_whole() -> None:
    assert await read(pdf("a paper"), "application/pdf", url="https://x.example/papers/a%20b.pdf?v=1") == (
        "a b.pdf",
        "a paper",
    )
    assert await read(b'{"a":1}', "application/json", url="https://x.example/") == ("https://x.example/", '{"a":1}')
    assert await read("naïve".encode("latin-1"), "text/plain", "iso-8859-1", "https://x.example/t.txt") == (
        "t.txt",
        "naïve",
    )


async def test_a_pdf_called_a_page_is_still_a_pdf() -> None:
    assert (await read(pdf("a paper")))[1] == "a paper"


async def test_what_is_entered_in_a_page_is_read() -> None:
    page = """<html><body><p>Name: <input value="张三"></p>
    <p>Pay: <input type=radio checked> now <input type=radio> later</p>
    <p><textarea>a note</textarea></p><input type="hidden" value="token"></body></html>"""
    said = await reading.text(page.encode(), filename="form.html")
    assert said == "Name: 张三\n\nPay: ☒ now ☐ later\n\na note"


async def test_an_uploaded_page_keeps_its_tables_and_names_its_pictures() -> None:
    page = f"""<html><body><header>Top</header>
    <table><tr><th>日期</th><th>时间</th></tr><tr><td>周一</td><td>9:00</td></tr></table>
    <img alt="map" src="data:image/png;base64,{"A" * 400}"></body></html>"""
    said = await reading.text(page.encode(), filename="table.html")
    assert (
        said
        == "Top\n\n| 日期 | 时间 |\n| --- | --- |\n| 周一 | 9:00 |\n\n[Picture: map]\n\n[Not in this text: 1 picture]"
    )


@pytest.mark.parametrize("declared", ["<meta charset=gbk>", ""])
async def test_an_uploaded_page_in_an_old_encoding_is_read(declared: str) -> None:
    page = f"<html><head>{declared}<title>标题</title></head><body><p>你好世界，这是内容</p></body></html>"
    assert await reading.text(page.encode("gbk"), filename="a.html") == "# 标题\n\n你好世界，这是内容"


async def test_an_uploaded_page_begins_with_its_title() -> None:
    page = (
        b"<html><head><title>Guide</title></head><body><p>Press the green button and wait until the light is "
        b"on.</p></body></html>"
    )
    assert (
        await reading.text(page, filename="guide.html")
        == "# Guide\n\nPress the green button and wait until the light is on."
    )
