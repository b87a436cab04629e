"""robots.txt: how it is read (examples of RFC 9309), and that the fetcher keeps to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import pytest

from app.tools.fetch.fetcher import GuardedFetcher
from app.tools.fetch.robots import MOST_BYTES, parse
from app.tools.ports.fetcher import FetchRefused
from tests.support.site import Answer, Site, serving_site


@pytest.mark.parametrize(
    ("rules", "allowed", "forbidden"),
    [
        ("", ["/", "/a"], []),
        ("User-agent: *\nDisallow:", ["/", "/a"], []),
        ("User-agent: *\nDisallow: /", [], ["/", "/a"]),
        ("User-agent: other\nDisallow: /", ["/a"], []),
        ("User-agent: *\nDisallow: /\n\nUser-agent: Responses-Gateway/2\nDisallow: /mine", ["/a"], ["/mine/x"]),
        ("User-agent: responses-gateway\nUser-agent: other\nDisallow: /a\nUser-agent: x\nDisallow: /b", ["/b"], ["/a"]),
        (
            "User-agent: responses-gateway\nDisallow: /a\n\nUser-agent: responses-gateway\nDisallow: /b",
            ["/c"],
            ["/a", "/b"],
        ),
        ("User-agent: *\nDisallow: /\nAllow: /public", ["/public/x"], ["/", "/private"]),
        ("User-agent: *\nAllow: /page\nDisallow: /page", ["/page"], []),
        (
            "User-agent: *\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif",
            ["/example/page/"],
            ["/example/page/disallowed.gif"],
        ),
        ("User-agent: *\nDisallow: /*.gif$", ["/a.gif?x", "/a.gifs"], ["/a.gif", "/b/a.gif"]),
        ("User-agent: *\nDisallow: /*?", ["/a"], ["/a?b", "/?"]),
        ("User-agent: *\nDisallow: /a*b*c", ["/ab", "/acb"], ["/abc", "/a1b2c3"]),
        ("User-agent: *\nDisallow: /a*a$", ["/a", "/ab"], ["/aa", "/aba"]),
        ("User-agent: *\nDisallow: /exact$", ["/exactly"], ["/exact"]),
        ("user-AGENT : *  # all\n  disallow : /a # not this\nnonsense\nDisallow /b", ["/b"], ["/a"]),
        ("\ufeffUser-agent: *\r\nDisallow: /a\r\nSitemap: /s\r\nDisallow: /b", ["/c"], ["/a", "/b"]),
        ("User-agent: *\nDisallow: /中文", ["/a"], ["/%E4%B8%AD%E6%96%87/x", "/%e4%b8%ad%e6%96%87"]),
        ("User-agent: *\nDisallow: /%7Ejoe", ["/joe"], ["/~joe/x", "/%7ejoe"]),
        ("Disallow: /\nUser-agent: *\nDisallow: /a", ["/b"], ["/a"]),
    ],
)
def test_rules(rules: str, allowed: list[str], forbidden: list[str]) -> None:
    robots = parse(rules.encode(), "responses-gateway")
    assert [path for path in forbidden if robots.allows(path)] == []
    assert [path for path in allowed if not robots.allows(path)] == []


def test_a_hostile_file_is_read_to_its_limit_only() -> None:
    rules = b"User-agent: *\n" + b"Disallow: /*a*a*a*a*a*a*a*a*b$\n" * 30_000 + b"Disallow: /\n"
    assert len(rules) > MOST_BYTES
    assert parse(rules, "responses-gateway").allows("/" + "a" * 1000)


@pytest.fixture
def site() -> Generator[Site]:
    """A site with two pages."""
    with serving_site() as one:
        one.pages |= {
            "/open": Answer.html("hi"),
            "/closed": Answer.html("no"),
            "/to-closed": Answer.redirect("/closed"),
        }
        yield one


@pytest.fixture
async def fetcher() -> AsyncGenerator[GuardedFetcher]:
    """Keeps to robots.txt."""
    one = GuardedFetcher(allow=["127.0.0.1"])
    yield one
    await one.aclose()


async def get(fetcher: GuardedFetcher, url: str) -> bytes:
    """The page's body."""
    return (await fetcher.get(url, limit=10_000, seconds=10)).body


async def test_a_forbidden_page_is_not_asked_for_and_the_rules_are_asked_for_once(
    site: Site, fetcher: GuardedFetcher
) -> None:
    site.pages["/robots.txt"] = Answer.text("User-agent: *\nDisallow: /closed")
    assert b"hi" in await get(fetcher, site.url("/open"))
    for path in ("/closed", "/to-closed"):
        with pytest.raises(FetchRefused, match=r"robots\.txt"):
            await get(fetcher, site.url(path))
    assert site.paths == ["/robots.txt", "/open", "/to-closed"]


@pytest.mark.parametrize("status", [404, 403, 410])
async def test_missing_rules_forbid_nothing(site: Site, fetcher: GuardedFetcher, status: int) -> None:
    site.pages["/robots.txt"] = Answer.text("User-agent: *\nDisallow: /", status=status)
    assert b"hi" in await get(fetcher, site.url("/open"))


async def test_rules_that_cannot_be_read_now_forbid_all_until_they_can(site: Site, fetcher: GuardedFetcher) -> None:
    site.pages["/robots.txt"] = Answer.text("down", status=503)
    with pytest.raises(FetchRefused, match=r"robots\.txt"):
        await get(fetcher, site.url("/open"))
    site.pages["/robots.txt"] = Answer.text("")
    assert b"hi" in await get(fetcher, site.url("/open"))


async def test_rules_may_be_elsewhere_and_larger_than_is_read(site: Site, fetcher: GuardedFetcher) -> None:
    site.pages["/robots.txt"] = Answer.redirect("/rules")
    site.pages["/rules"] = Answer.text("User-agent: *\nDisallow: /closed\n" + "#" * MOST_BYTES)
    assert b"hi" in await get(fetcher, site.url("/open"))
    with pytest.raises(FetchRefused, match=r"robots\.txt"):
        await get(fetcher, site.url("/closed"))


async def test_the_setting_switches_it_off(site: Site) -> None:
    site.pages["/robots.txt"] = Answer.text("User-agent: *\nDisallow: /")
    fetcher = GuardedFetcher(allow=["127.0.0.1"], robots=False)
    assert b"no" in await get(fetcher, site.url("/closed"))
    assert site.paths == ["/closed"]
    await fetcher.aclose()
