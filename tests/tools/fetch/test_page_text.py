"""A page's text as the model gets it: of very long pages, and of those that scripts make."""

from __future__ import annotations

from contextlib import suppress

import pytest

from app.documents.base import UnreadableDocument
from app.tools.fetch import page_text
from app.tools.ports.fetcher import Page

NOTE = "(This page is rendered by JavaScript, which is not run here"


def page(body: str, content_type: str = "text/html") -> Page:
    return Page("https://a.example/p", content_type, "utf-8", body.encode())


def html(body: str) -> Page:
    return page(f"<!doctype html><html><head><title>A page</title></head><body>{body}</body></html>")


_WORDS = "".join(
    f"<p>Paragraph {number} tells of the tower, its height and the {number} people who built it.</p>"
    for number in range(40)
)


@pytest.mark.parametrize(
    "body",
    [
        '<div id="root"></div><script src="/app.js"></script><p>Home</p>',
        (
            '<noscript>You need to enable JavaScript.</noscript><p>Shop</p><div id="app"><!-- here --></div><script '
            'src="x"></script>'
        ),
        "<p>Please enable JavaScript to continue.</p><script>1</script>",
        "<p>请启用 JavaScript 后继续。</p><script>1</script>",
        "<p>Loading…</p><script src='x'></script>",
        "<p>Just a moment</p><script src='x'></script>",
    ],
)
async def test_a_page_of_scripts_says_so(body: str) -> None:
    assert (await page_text.article(html(body))).text.startswith(NOTE)


@pytest.mark.parametrize(
    "body",
    [
        "<p>A short page about a tower.</p>",
        "<p>A short page about a tower.</p><script>count()</script>",
        f'<div id="root"></div><script src="x"></script>{_WORDS}',
        f"<article><p>How to enable JavaScript in a browser.</p>{_WORDS}</article><script>1</script>",
    ],
)
async def test_a_page_that_has_its_text_does_not(body: str) -> None:
    assert NOTE not in (await page_text.article(html(body))).text


async def test_a_page_of_nothing_but_scripts_is_unreadable_by_that_name() -> None:
    with pytest.raises(UnreadableDocument, match="rendered by JavaScript"):
        await page_text.article(html('<div id="root"></div><script>render()</script>'))
    with pytest.raises(UnreadableDocument, match="no text"):
        await page_text.article(html("<div></div>"))


async def test_a_page_of_eight_megabytes_is_read_for_what_it_says() -> None:
    script = f"<script>{'var a = 1;' * 600_000}</script>"
    picture = f'<img src="data:image/png;base64,{"A" * 1_500_000}">'
    state = f"<div data-state='{'x' * 600_000}'></div>"
    article = await page_text.article(
        html(f"{script}{picture}{state}<article>{_WORDS}</article>{script[:100]}</script>")
    )
    assert "Paragraph 39" in article.text
    assert article.title == "A page"
    assert "very long" not in article.text


async def test_of_a_page_that_is_nothing_but_text_the_first_part_is_read() -> None:
    long = "".join(f"<p>Line {number} of a very long page, {number * 7} in all.</p>" for number in range(150_000))
    article = await page_text.article(html(f"<article>{long}</article>"))
    assert article.text.startswith("(The page is very long: only its first part was read.)")
    assert "Line 100 of" in article.text
    assert "Line 149999" not in article.text


@pytest.mark.parametrize(
    "piece", ["<script>", "<!--", "<svg ", "</script>", "data:image/png;base64,", ' a="', "<style>x</style"]
)
async def test_hostile_markup_is_made_lean_in_linear_time(piece: str) -> None:
    """A quadratic reading would take hours."""
    with suppress(UnreadableDocument):
        await page_text.article(html(_WORDS + piece * (4_000_000 // len(piece))))


async def test_what_is_no_page_goes_as_it_is() -> None:
    assert (
        await page_text.article(page("Please enable JavaScript <script>", "text/plain"))
    ).text == "Please enable JavaScript <script>"
