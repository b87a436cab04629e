"""Serper, the results of Google. API: https://serper.dev/playground."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.tools.search.base import Api, Query, Result, WebProvider, sited

_MOST = 100
_FRESHNESS = {"day": "qdr:d", "week": "qdr:w", "month": "qdr:m", "year": "qdr:y"}
_LANGUAGES = {"zh": "zh-cn"}


class _Result(msgspec.Struct, frozen=True):
    link: str = ""
    title: str | None = None
    snippet: str | None = None
    date: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    organic: list[_Result] = []


async def _search(api: Api, query: Query) -> Sequence[Result]:
    body: dict[str, object] = {"q": sited(query), "num": min(query.limit, _MOST)}
    if query.country:
        body["gl"] = query.country.lower()
    if query.language:
        body["hl"] = _LANGUAGES.get(query.language, query.language)
    if query.freshness:
        body["tbs"] = _FRESHNESS[query.freshness]
    answer = await api.post("/search", body, _Answer)
    return [
        Result(found.title or found.link, found.link, found.snippet or "", published=found.date)
        for found in answer.organic
    ]


PROVIDER = WebProvider(ask=_search, address="https://google.serper.dev", sign=lambda key: {"x-api-key": key})
