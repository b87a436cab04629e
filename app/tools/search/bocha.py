"""Bocha (博查), strong on Chinese pages. API: https://open.bochaai.com."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.tools.search.base import Api, Query, Result, SearchFailed, WebProvider, bearer

_MOST = 50
_MOST_DOMAINS = 100
_OK = 200
_FRESHNESS = {"day": "oneDay", "week": "oneWeek", "month": "oneMonth", "year": "oneYear"}


class _Page(msgspec.Struct, frozen=True, rename="camel"):
    url: str = ""
    name: str | None = None
    snippet: str | None = None
    summary: str | None = None
    date_published: str | None = None


class _Pages(msgspec.Struct, frozen=True):
    value: list[_Page] = []


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    web_pages: _Pages | None = None


class _Answer(msgspec.Struct, frozen=True):
    code: int | str = _OK
    data: _Data | None = None


async def _search(api: Api, query: Query) -> Sequence[Result]:
    body: dict[str, object] = {
        "query": query.text,
        "count": min(query.limit, _MOST),
        "summary": True,
        "freshness": _FRESHNESS[query.freshness] if query.freshness else "noLimit",
    }
    if query.allowed_domains:
        body["include"] = "|".join(query.allowed_domains[:_MOST_DOMAINS])
    answer = await api.post("/v1/web-search", body, _Answer)
    if str(answer.code) != str(_OK):
        raise SearchFailed("the answer reports a failure")
    pages = answer.data.web_pages.value if answer.data and answer.data.web_pages else []
    return [
        Result(page.name or page.url, page.url, page.snippet or "", page.summary, page.date_published) for page in pages
    ]


PROVIDER = WebProvider(ask=_search, address="https://api.bochaai.com", sign=bearer)
