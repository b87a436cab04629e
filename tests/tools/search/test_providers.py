"""Every provider is asked as its documentation says, and its documented answer is understood."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest

from app.discovery import constants
from app.settings import SearchProvider
from app.tools.search.base import Query, Result, SearchFailed, WebProvider
from tests.support.site import Answer, Site, Visit
from tests.tools.search.conftest import Engines

_PLAIN = Query(text="西湖 height")
_FULL = Query(
    text="西湖 height",
    limit=3,
    chars=700,
    allowed_domains=("a.cn", "b.org"),
    language="zh",
    country="CN",
    freshness="week",
)
_SITED = "西湖 height (site:a.cn OR site:b.org)"


class _Case(msgspec.Struct, frozen=True):
    path: str
    headers: Mapping[str, str]
    plain: Mapping[str, object]
    """What is asked for `_PLAIN`: the body, or for a GET the query."""
    full: Mapping[str, object]
    """The same for `_FULL`."""
    answer: object
    results: tuple[Result, ...]


_CASES: dict[SearchProvider, _Case] = {
    "searxng": _Case(
        path="/search",
        headers={},
        plain={"q": "西湖 height", "format": "json", "categories": "general", "language": "all"},
        full={"q": _SITED, "format": "json", "categories": "general", "language": "zh", "time_range": "week"},
        answer={
            "query": "西湖 height",
            "number_of_results": 0,
            "results": [
                {
                    "url": "https://b.org/",
                    "title": "B",
                    "content": "second",
                    "engine": "x",
                    "score": 0.5,
                    "category": "general",
                },
                {
                    "url": "https://a.cn/",
                    "title": "西湖",
                    "content": "first",
                    "engines": ["x", "y"],
                    "positions": [1, 2],
                    "score": 4.0,
                    "publishedDate": "2026-11-01T00:00:00",
                },
            ],
            "answers": [],
            "unresponsive_engines": [["slow", "timeout"]],
        },
        results=(
            Result("西湖", "https://a.cn/", "first", published="2026-11-01T00:00:00"),
            Result("B", "https://b.org/", "second"),
        ),
    ),
    "tavily": _Case(
        path="/search",
        headers={"authorization": "Bearer key-of-tavily"},
        plain={"query": "西湖 height", "max_results": 10, "search_depth": "basic"},
        full={
            "query": "西湖 height",
            "max_results": 3,
            "search_depth": "basic",
            "include_domains": ["a.cn", "b.org"],
            "time_range": "week",
            "country": "china",
        },
        answer={
            "query": "西湖 height",
            "answer": None,
            "images": [],
            "results": [
                {
                    "title": "西湖",
                    "url": "https://a.cn/",
                    "content": "text",
                    "score": 0.9,
                    "raw_content": None,
                    "published_date": "Sat, 21 Nov 2026",
                }
            ],
            "response_time": 1.1,
        },
        results=(Result("西湖", "https://a.cn/", "text", published="Sat, 21 Nov 2026"),),
    ),
    "brave": _Case(
        path="/res/v1/web/search",
        headers={"x-subscription-token": "key-of-brave"},
        plain={
            "q": "西湖 height",
            "count": "10",
            "result_filter": "web",
            "text_decorations": "false",
            "country": "ALL",
        },
        full={
            "q": _SITED,
            "count": "3",
            "result_filter": "web",
            "text_decorations": "false",
            "country": "CN",
            "search_lang": "zh-hans",
            "freshness": "pw",
        },
        answer={
            "type": "search",
            "web": {
                "results": [
                    {
                        "title": "Q&amp;A",
                        "url": "https://a.cn/",
                        "description": "It&#x27;s deep",
                        "page_age": "2026-11-01T08:00:00",
                        "extra_snippets": ["&lt;3 m"],
                    }
                ]
            },
        },
        results=(Result("Q&A", "https://a.cn/", "It's deep", "It's deep … <3 m", "2026-11-01T08:00:00"),),
    ),
    "serper": _Case(
        path="/search",
        headers={"x-api-key": "key-of-serper"},
        plain={"q": "西湖 height", "num": 10},
        full={"q": _SITED, "num": 3, "gl": "cn", "hl": "zh-cn", "tbs": "qdr:w"},
        answer={
            "searchParameters": {},
            "organic": [
                {"title": "西湖", "link": "https://a.cn/", "snippet": "text", "position": 1, "date": "3 days ago"}
            ],
        },
        results=(Result("西湖", "https://a.cn/", "text", published="3 days ago"),),
    ),
    "bocha": _Case(
        path="/v1/web-search",
        headers={"authorization": "Bearer key-of-bocha"},
        plain={"query": "西湖 height", "count": 10, "summary": True, "freshness": "noLimit"},
        full={"query": "西湖 height", "count": 3, "summary": True, "freshness": "oneWeek", "include": "a.cn|b.org"},
        answer={
            "code": 200,
            "log_id": "e02c",
            "msg": None,
            "data": {
                "_type": "SearchResponse",
                "webPages": {
                    "totalEstimatedMatches": 1,
                    "value": [
                        {
                            "id": None,
                            "name": "西湖",
                            "url": "https://a.cn/",
                            "snippet": "short",
                            "summary": "long",
                            "siteName": "A",
                            "datePublished": "2026-07-22T11:58:00+08:00",
                        }
                    ],
                },
                "images": {"value": []},
            },
        },
        results=(Result("西湖", "https://a.cn/", "short", "long", "2026-07-22T11:58:00+08:00"),),
    ),
    "exa": _Case(
        path="/search",
        headers={"x-api-key": "key-of-exa"},
        plain={"query": "西湖 height", "type": "auto", "numResults": 10, "contents": {"text": {"maxCharacters": 1000}}},
        full={
            "query": "西湖 height",
            "type": "auto",
            "numResults": 3,
            "contents": {"text": {"maxCharacters": 700}},
            "includeDomains": ["a.cn", "b.org"],
            "userLocation": "CN",
        },
        answer={
            "requestId": "r",
            "results": [
                {
                    "id": "1",
                    "url": "https://a.cn/",
                    "title": None,
                    "publishedDate": "2026-11-01T00:00:00.000Z",
                    "text": "text",
                }
            ],
        },
        results=(Result("https://a.cn/", "https://a.cn/", "text", published="2026-11-01T00:00:00.000Z"),),
    ),
    "jina": _Case(
        path="/",
        headers={"authorization": "Bearer key-of-jina", "x-respond-with": "no-content"},
        plain={"q": "西湖 height", "num": 10},
        full={"q": _SITED, "num": 3, "gl": "CN", "hl": "zh"},
        answer={
            "code": 200,
            "status": 20000,
            "data": [
                {
                    "title": "西湖",
                    "url": "https://a.cn/",
                    "description": "text",
                    "content": "",
                    "date": "Oct 17, 2025",
                    "usage": {"tokens": 1},
                }
            ],
        },
        results=(Result("西湖", "https://a.cn/", "text", published="Oct 17, 2025"),),
    ),
}


def test_every_provider_is_tested() -> None:
    assert set(constants("app.tools.search", "PROVIDER", WebProvider)) == set(_CASES)


@pytest.mark.parametrize("name", _CASES)
async def test_request_and_answer(name: SearchProvider, site: Site, engines: Engines) -> None:
    case = _CASES[name]
    site.pages[case.path] = Answer.json(case.answer)
    providers = engines({name: site.origin})
    since = datetime.now(UTC) - timedelta(days=7)

    assert tuple(await providers.search(_PLAIN)) == case.results
    await providers.search(_FULL)

    plain, full = site.visits
    for visit in (plain, full):
        assert visit.path.partition("?")[0] == case.path
        assert {key: visit.headers.get(key) for key in case.headers} == case.headers
        assert visit.headers["accept"] == "application/json"
    asked = _asked(full)
    if name == "exa":
        limit = datetime.fromisoformat(asked.pop("startPublishedDate"))
        assert abs(limit - since) < timedelta(minutes=5)
    assert _asked(plain) == case.plain
    assert asked == case.full


def _asked(visit: Visit) -> dict[str, Any]:
    if visit.method == "GET":
        return {key: values[0] for key, values in parse_qs(visit.path.partition("?")[2]).items()}
    assert visit.headers["content-type"] == "application/json"
    return msgspec.json.decode(visit.body)


@pytest.mark.parametrize("name", _CASES)
async def test_an_answer_without_results(name: SearchProvider, site: Site, engines: Engines) -> None:
    site.pages["*"] = Answer.json({})
    assert list(await engines({name: site.origin}).search(_PLAIN)) == []


async def test_searxng_with_json_switched_off(site: Site, engines: Engines, caplog: pytest.LogCaptureFixture) -> None:
    site.pages["/search"] = Answer.html("403 Forbidden", status=403)
    with pytest.raises(SearchFailed, match=r"search\.formats"):
        await engines({"searxng": site.origin}).search(_PLAIN)
    assert "add `json` to `search.formats`" in caplog.text


async def test_searxng_whose_engines_are_all_down_has_failed(site: Site, engines: Engines) -> None:
    site.pages["/search"] = Answer.json(
        {"results": [], "unresponsive_engines": [["google", "CAPTCHA"], ["bing", "timeout"]]}
    )
    with pytest.raises(SearchFailed, match="google: CAPTCHA; bing: timeout"):
        await engines({"searxng": site.origin}).search(_PLAIN)


async def test_bocha_that_fails_with_status_200(site: Site, engines: Engines) -> None:
    site.pages["*"] = Answer.json({"code": "403", "msg": "You do not have enough money"})
    with pytest.raises(SearchFailed):
        await engines({"bocha": site.origin}).search(_PLAIN)


async def test_brave_gets_no_more_than_it_takes(site: Site, engines: Engines) -> None:
    site.pages["*"] = Answer.json({})
    providers = engines({"brave": site.origin})
    await providers.search(Query(text="word " * 60, country="LI"))
    await providers.search(Query(text="x" * 500))
    words, long = (_asked(visit) for visit in site.visits)
    assert len(words["q"].split()) == 50
    assert words["country"] == "ALL"  # it has no Liechtenstein
    assert len(long["q"]) == 400


async def test_many_domains_do_not_fill_the_query(site: Site, engines: Engines) -> None:
    site.pages["*"] = Answer.json({})
    await engines({"serper": site.origin}).search(
        Query(text="q", allowed_domains=tuple(f"d{i}.org" for i in range(30)))
    )
    assert _asked(site.visits[0])["q"] == "q"
