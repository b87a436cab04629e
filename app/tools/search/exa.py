"""Exa, a semantic search engine. API: https://exa.ai/docs/reference/search."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from app.tools.search.base import Api, Query, Result, WebProvider

_MOST = 100
_DAYS = {"day": 1, "week": 7, "month": 31, "year": 366}


class _Result(msgspec.Struct, frozen=True, rename="camel"):
    url: str = ""
    title: str | None = None
    text: str | None = None
    published_date: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    results: list[_Result] = []


async def _search(api: Api, query: Query) -> Sequence[Result]:
    body: dict[str, object] = {
        "query": query.text,
        "type": "auto",
        "numResults": min(query.limit, _MOST),
        "contents": {"text": {"maxCharacters": query.chars}},
    }
    if query.allowed_domains:
        body["includeDomains"] = query.allowed_domains
    if query.country:
        body["userLocation"] = query.country
    if query.freshness:
        since = datetime.now(UTC) - timedelta(days=_DAYS[query.freshness])
        body["startPublishedDate"] = since.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    answer = await api.post("/search", body, _Answer)
    return [
        Result(found.title or found.url, found.url, found.text or "", published=found.published_date)
        for found in answer.results
    ]


PROVIDER = WebProvider(ask=_search, address="https://api.exa.ai", sign=lambda key: {"x-api-key": key})
