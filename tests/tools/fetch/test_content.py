"""What a fetched body is by its content: types that the header leaves open, charsets, pages that lead on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncGenerator, Generator

import pytest

from app.tools.fetch.fetcher import GuardedFetcher
from app.tools.ports.fetcher import FetchRefused, Page
from tests.support.site import Answer, Site, serving_site

MIB = 1024 * 1024


@pytest.fixture
def site() -> Generator[Site]:
    with serving_site() as one:
        yield one


@pytest.fixture
async def fetcher() -> AsyncGenerator[GuardedFetcher]:
    one = GuardedFetcher(allow=["127.0.0.1"], robots=False)
    yield one
    await one.aclose()


async def page_of(site: Site, fetcher: GuardedFetcher, answer: Answer, *accept: str) -> Page:
    site.pages["/"] = answer
    return await fetcher.get(site.url(), limit=MIB, seconds=10, accept=accept)


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        for name in names:
            package.writestr(name, "<x/>")
    return out.getvalue()


def opendocument() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("mimetype", "application/vnd.oasis.opendocument.text")
    return out.getvalue()


@pytest.mark.parametrize(
    "header", [None, "application/octet-stream", "binary/octet-stream; charset=binary", "unknown", "pdf"]
)
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"%PDF-1.7\n...", "application/pdf"),
        (b"junk before\n%PDF-1.4\n", "application/pdf"),
        (
            zipped("[Content_Types].xml", "word/document.xml"),
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        (
            zipped("[Content_Types].xml", "xl/workbook.xml"),
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        ),
        (zipped("a.txt"), "application/zip"),
        (opendocument(), "application/vnd.oasis.opendocument.text"),
        (b"<!DOCTYPE html><html>hi</html>", "text/html"),
        (b"\xef\xbb\xbf \n<!-- a comment --><html>hi</html>", "text/html"),
        (b"<div class='x'>a piece of a page</div>", "text/html"),
        (b"<?xml version='1.0'?><feed/>", "application/xml"),
        (b'{"a": 1}', "application/json"),
        (b"plain words", "text/plain"),
        ("中文".encode("utf-16"), "text/plain"),
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
    ],
)
async def test_a_type_that_the_header_leaves_open_is_told_by_the_content(
    site: Site, fetcher: GuardedFetcher, header: str | None, body: bytes, kind: str
) -> None:
    page = await page_of(site, fetcher, Answer(body, content_type=header), kind)
    assert (page.content_type, page.body) == (kind, body)


async def test_what_cannot_be_told_keeps_its_vague_type(site: Site, fetcher: GuardedFetcher) -> None:
    page = await page_of(site, fetcher, Answer(b"\x00\x01\x02", content_type="application/octet-stream"))
    assert page.content_type == "application/octet-stream"
    with pytest.raises(FetchRefused, match="accepted are text"):
        await page_of(site, fetcher, Answer(b"\x00\x01\x02", content_type=None), "text/*")


async def test_a_type_that_is_clear_and_not_wanted_is_not_read(site: Site, fetcher: GuardedFetcher) -> None:
    endless = Answer(b"<html>" * 1000, content_type="video/mp4", repeat=0.0)
    with pytest.raises(FetchRefused, match="video/mp4"):
        await page_of(site, fetcher, endless, "text/html")


_CHINESE = "<p>埃菲尔铁塔高三百三十米，建于一八八九年。</p>"


@pytest.mark.parametrize(
    ("header", "meta", "encoding", "used"),
    [
        ("iso-8859-1", "gbk", "gbk", "gbk"),
        ("utf-8", "gb2312", "gb18030", "gb2312"),
        ("gbk", "iso-8859-1", "gbk", "gbk"),
        ("gbk", "utf-8", "gbk", "gbk"),
        ("utf-8", "iso-8859-1", "utf-8", "utf-8"),
        ("nonsense", "big5", "big5", "big5"),
        ("windows-1252", "shift_jis", "shift_jis", "shift_jis"),
        (None, "gbk", "gbk", "gbk"),
        ("gbk", None, "gbk", "gbk"),
        ("iso-8859-1", None, "utf-8", "iso-8859-1"),
        ("hex", None, "utf-8", "hex"),
        (None, None, "utf-8", None),
    ],
)
async def test_the_charset_is_the_one_that_fits(
    site: Site, fetcher: GuardedFetcher, header: str | None, meta: str | None, encoding: str, used: str | None
) -> None:
    declared = f'<meta charset="{meta}">' if meta else ""
    text = _CHINESE if encoding not in ("big5", "shift_jis") else "<p>三百三十</p>"
    body = f"<html><head>{declared}</head><body>{text}</body></html>".encode(encoding)
    answer = Answer(body, content_type="text/html" + (f"; charset={header}" if header else ""))
    assert (await page_of(site, fetcher, answer)).charset == used


@pytest.mark.parametrize(
    "signpost",
    [
        '<meta http-equiv="refresh" content="0; url=/there">',
        "<META HTTP-EQUIV=Refresh CONTENT='1;URL=/there'>",
        '<meta content="0;url=\'/there\'" http-equiv="refresh">',
        '<meta http-equiv="refresh" content="3, /there">',
        '<meta http-equiv="refresh" content="0;url=/there?a=1&amp;b=2">',
    ],
)
async def test_a_page_that_sends_its_reader_on_is_followed(site: Site, fetcher: GuardedFetcher, signpost: str) -> None:
    site.pages["/there"] = Answer.html("the page")
    page = await page_of(site, fetcher, Answer.html(signpost))
    assert page.url.partition("?")[0] == site.url("/there")
    assert b"the page" in page.body


@pytest.mark.parametrize(
    "page",
    [
        '<meta http-equiv="refresh" content="300; url=/there">',
        '<meta http-equiv="refresh" content="5">',
        '<meta http-equiv="refresh" content="0; url=/">',
        '<!-- <meta http-equiv="refresh" content="0; url=/there"> -->',
        '<noscript><meta http-equiv="refresh" content="0; url=/there"></noscript>',
        '<script>\'<meta http-equiv="refresh" content="0; url=/there">\'</script>',
    ],
)
async def test_a_page_that_stays_is_the_page(site: Site, fetcher: GuardedFetcher, page: str) -> None:
    site.pages["/there"] = Answer.html("elsewhere")
    assert (await page_of(site, fetcher, Answer.html(page))).url == site.url()
    assert site.paths == ["/"]


async def test_the_header_of_that_name_is_followed_too(site: Site, fetcher: GuardedFetcher) -> None:
    site.pages["/there"] = Answer.html("the page")
    page = await page_of(site, fetcher, Answer(b"<p>wait", headers={"refresh": "0; url=/there"}))
    assert page.url == site.url("/there")


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/", "file:///etc/passwd", "http://127.0.0.2:22/", "javascript:alert(1)"]
)
async def test_a_page_leads_nowhere_that_may_not_be_asked(site: Site, fetcher: GuardedFetcher, target: str) -> None:
    with pytest.raises(FetchRefused):
        await page_of(site, fetcher, Answer.html(f'<meta http-equiv="refresh" content="0; url={target}">'))


async def test_a_chain_of_signposts_ends(site: Site, fetcher: GuardedFetcher) -> None:
    site.pages["*"] = lambda visit: Answer.html(f'<meta http-equiv="refresh" content="0; url={visit.path}x">')
    with pytest.raises(FetchRefused, match="redirects more than"):
        await fetcher.get(site.url("/a"), limit=MIB, seconds=10)
    assert len(site.paths) == 4


async def test_the_callers_headers_do_not_follow_a_signpost(site: Site, fetcher: GuardedFetcher) -> None:
    with serving_site() as other:
        other.pages["/"] = Answer.html("hi")
        site.pages["/"] = Answer.html(f'<meta http-equiv="refresh" content="0; url={other.url("/")}">')
        await fetcher.get(site.url(), limit=MIB, seconds=10, headers=[("x-key", "secret")])
        assert [visit.headers.get("x-key") for visit in site.visits + other.visits] == ["secret", None]
