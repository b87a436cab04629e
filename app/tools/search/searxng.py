"""SearXNG, a self-hosted metasearch engine, and its ancestor searx.

API: https://docs.searxng.org/dev/search_api.html. JSON must be enabled in its settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from app.tools.search.base import Api, Query, Result, SearchFailed, WebProvider, sited

T = TypeVar("T")

_FORBIDDEN = 403


class _Result(msgspec.Struct, frozen=True):
    url: str = ""
    title: str | None = None
    content: str | None = None
    published: str | None = msgspec.field(default=None, name="publishedDate")
    score: float | None = None


class _Answer(msgspec.Struct, frozen=True):
    results: list[_Result] = []
    unresponsive_engines: list[list[Any]] = []


async def ask(api: Api, text: str, answer: type[T], **params: str) -> T:
    """One search; `params` as in its API, besides the query and the format. Raises SearchFailed."""
    try:
        return await api.get("/search", {"q": _plain_words(text), "format": "json", **params}, answer)
    except SearchFailed as failure:
        if failure.status == _FORBIDDEN:
            hint = "it refuses JSON; add `json` to `search.formats` in its settings.yml, and disable its limiter"
            raise SearchFailed(hint, status=_FORBIDDEN) from failure
        raise


def _plain_words(text: str) -> str:
    """Without prefixes that make a word a command:

    `!!g` (go to another site), `!wp` (one engine), `:de` (language), `<3` (time limit).
    """
    return " ".join(filter(None, (word.lstrip("!:<?") for word in text.split())))


async def _search(api: Api, query: Query) -> Sequence[Result]:
    dated = {"time_range": query.freshness} if query.freshness else {}
    answer = await ask(api, sited(query), _Answer, categories="general", language=query.language or "all", **dated)
    if not answer.results and answer.unresponsive_engines:
        engines = "; ".join(": ".join(map(str, engine)) for engine in answer.unresponsive_engines)
        raise SearchFailed(f"none of its engines answers ({engines})")
    best_first = sorted(answer.results, key=lambda found: -(found.score or 0))
    return [
        Result(found.title or found.url, found.url, found.content or "", published=found.published)
        for found in best_first
    ]


PROVIDER = WebProvider(ask=_search)
