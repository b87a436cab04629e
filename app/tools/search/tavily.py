"""Tavily. API: https://docs.tavily.com/documentation/api-reference/endpoint/search."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.tools.search.base import Api, Query, Result, WebProvider, bearer

_MOST = 20

# It expects country names from its own list, and rejects others.
_COUNTRIES = {
    "AE": "united arab emirates",
    "AR": "argentina",
    "AT": "austria",
    "AU": "australia",
    "BE": "belgium",
    "BR": "brazil",
    "CA": "canada",
    "CH": "switzerland",
    "CL": "chile",
    "CN": "china",
    "CO": "colombia",
    "DE": "germany",
    "DK": "denmark",
    "EG": "egypt",
    "ES": "spain",
    "FI": "finland",
    "FR": "france",
    "GB": "united kingdom",
    "GR": "greece",
    "HU": "hungary",
    "ID": "indonesia",
    "IE": "ireland",
    "IL": "israel",
    "IN": "india",
    "IT": "italy",
    "JP": "japan",
    "KR": "south korea",
    "MX": "mexico",
    "MY": "malaysia",
    "NL": "netherlands",
    "NO": "norway",
    "NZ": "new zealand",
    "PH": "philippines",
    "PK": "pakistan",
    "PL": "poland",
    "PT": "portugal",
    "RO": "romania",
    "RU": "russia",
    "SA": "saudi arabia",
    "SE": "sweden",
    "SG": "singapore",
    "TH": "thailand",
    "TR": "turkey",
    "TW": "taiwan",
    "UA": "ukraine",
    "US": "united states",
    "VN": "vietnam",
    "ZA": "south africa",
}


class _Result(msgspec.Struct, frozen=True):
    url: str = ""
    title: str | None = None
    content: str | None = None
    published_date: str | None = None


class _Answer(msgspec.Struct, frozen=True):
    results: list[_Result] = []


async def _search(api: Api, query: Query) -> Sequence[Result]:
    body: dict[str, object] = {"query": query.text, "max_results": min(query.limit, _MOST), "search_depth": "basic"}
    if query.allowed_domains:
        body["include_domains"] = query.allowed_domains
    if query.freshness:
        body["time_range"] = query.freshness
    if query.country in _COUNTRIES:
        body["country"] = _COUNTRIES[query.country]
    answer = await api.post("/search", body, _Answer)
    return [
        Result(found.title or found.url, found.url, found.content or "", published=found.published_date)
        for found in answer.results
    ]


PROVIDER = WebProvider(ask=_search, address="https://api.tavily.com", sign=bearer)
