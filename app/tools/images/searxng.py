"""SearXNG, a self-hosted metasearch server: needs no key, but the JSON format must be enabled.

https://docs.searxng.org/dev/search_api.html; results of its template `images.html` carry the image in `img_src`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from app.tools.images.base import FoundImage, ImageProvider, ImageQuery
from app.tools.search.base import Api, SearchFailed

_RESOLUTION = re.compile(r"(\d{1,6})\s*[x\u00d7*]\s*(\d{1,6})", re.ASCII)


class _Result(msgspec.Struct):
    title: str | None = None
    url: str | None = None
    """Of the page."""
    img_src: str | None = None
    thumbnail_src: str | None = None
    thumbnail: str | None = None
    resolution: str | None = None
    """Width and height as written by the engine behind it:

    `800 x 600`, `800x600`, with U+00D7 for the x, perhaps with words around it.
    """
    score: float | None = None


class _Results(msgspec.Struct):
    results: list[_Result] | None = None
    unresponsive_engines: list[tuple[str, ...]] | None = None


async def _search(api: Api, query: ImageQuery) -> Sequence[FoundImage]:
    answer = await api.get(
        "/search", {"q": query.text, "format": "json", "categories": "images", "safesearch": 1}, _Results
    )
    if not answer.results and answer.unresponsive_engines:
        raise SearchFailed(
            f"none of its engines answers: {'; '.join(': '.join(engine) for engine in answer.unresponsive_engines)}"
        )
    # Results are listed engine by engine; the score gives the order.
    ranked = sorted(answer.results or (), key=lambda result: result.score or 0.0, reverse=True)
    return [_found(result) for result in ranked if result.img_src]


def _found(result: _Result) -> FoundImage:
    size = _RESOLUTION.search(result.resolution or "")
    width, height = (int(size[1]), int(size[2])) if size else (None, None)
    return FoundImage(
        result.img_src or "", result.title or "", result.url, result.thumbnail_src or result.thumbnail, width, height
    )


PROVIDER = ImageProvider(ask=_search)
