"""Jina's search. API: https://jina.ai/reader. It has no date filter: `freshness` has no effect."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.tools.search.base import Api, Query, Result, WebProvider, bearer, sited

_MOST = 20
# Without it every page is fetched and billed by its length.
_SNIPPETS_ONLY = {"x-respond-with": "no-content"}


class _Result(msgspec.Struct, frozen=True):
    url: str = ""
    title: str | None = None
    description: str | None = None
    date: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    data: list[_Result] | None = None


async def _search(api: Api, query: Query) -> Sequence[Result]:
    body: dict[str, object] = {"q": sited(query), "num": min(query.limit, _MOST)}
    if query.country:
        body["gl"] = query.country
    if query.language:
        body["hl"] = query.language
    answer = await api.post("/", body, _Answer, headers=_SNIPPETS_ONLY)
    results = answer.data or []
    return [
        Result(found.title or found.url, found.url, found.description or "", published=found.date) for found in results
    ]


PROVIDER = WebProvider(ask=_search, address="https://s.jina.ai", sign=bearer)
