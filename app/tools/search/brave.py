"""Brave Search. API: https://api-dashboard.search.brave.com/app/documentation/web-search/query."""

from __future__ import annotations

import html
from collections.abc import Sequence

import msgspec

from app.tools.search.base import Api, Query, Result, WebProvider, sited

_MOST = 20
_QUERY_CHARACTERS = 400
_QUERY_WORDS = 50
_FRESHNESS = {"day": "pd", "week": "pw", "month": "pm", "year": "py"}
_LANGUAGES = {"zh": "zh-hans", "ja": "jp", "ko": "ko"}
_LISTED = "AR AU AT BE BR CA CL DK FI FR DE HK IN ID IT JP KR MY MX NL NZ NO CN PL PT PH RU SA ZA ES SE CH TW TR GB US"
_COUNTRIES = frozenset(_LISTED.split())
"""It rejects countries that are not on its list."""


class _Result(msgspec.Struct, frozen=True):
    url: str = ""
    title: str | None = None
    description: str | None = None
    page_age: str | None = None
    extra_snippets: list[str] | None = None


class _Web(msgspec.Struct, frozen=True):
    results: list[_Result] = []


class _Answer(msgspec.Struct, frozen=True):
    web: _Web | None = None


async def _search(api: Api, query: Query) -> Sequence[Result]:
    text = " ".join(sited(query).split()[:_QUERY_WORDS])[:_QUERY_CHARACTERS]
    params: dict[str, str | int] = {
        "q": text,
        "count": min(query.limit, _MOST),
        "result_filter": "web",
        "text_decorations": "false",
        "country": query.country if query.country in _COUNTRIES else "ALL",
    }
    if query.language in _LANGUAGES:
        params["search_lang"] = _LANGUAGES[query.language]
    if query.freshness:
        params["freshness"] = _FRESHNESS[query.freshness]
    answer = await api.get("/res/v1/web/search", params, _Answer)
    return [_result(found) for found in answer.web.results] if answer.web else []


def _result(found: _Result) -> Result:
    snippet = html.unescape(found.description or "")
    more = " … ".join([snippet, *map(html.unescape, found.extra_snippets)]) if found.extra_snippets else None
    return Result(html.unescape(found.title or found.url), found.url, snippet, more, found.page_age)


PROVIDER = WebProvider(
    ask=_search, address="https://api.search.brave.com", sign=lambda key: {"x-subscription-token": key}
)
