"""Brave's image search, as documented at https://api-dashboard.search.brave.com/app/documentation/image-search."""

from __future__ import annotations

import html
from collections.abc import Sequence

import msgspec

from app.tools.images.base import FoundImage, ImageProvider, ImageQuery
from app.tools.search.base import Api


class _Thumbnail(msgspec.Struct):
    src: str | None = None


class _Properties(msgspec.Struct):
    url: str | None = None
    width: int | None = None
    height: int | None = None


class _Image(msgspec.Struct):
    title: str | None = None
    url: str | None = None
    """Of the page."""
    thumbnail: _Thumbnail | None = None
    properties: _Properties | None = None


class _Images(msgspec.Struct):
    results: list[_Image] | None = None


async def _search(api: Api, query: ImageQuery) -> Sequence[FoundImage]:
    answer = await api.get(
        "/res/v1/images/search", {"q": query.text, "count": query.limit, "safesearch": "strict"}, _Images
    )
    return [_found(image) for image in answer.results or ()]


def _found(image: _Image) -> FoundImage:
    original = image.properties or _Properties()
    thumbnail = image.thumbnail.src if image.thumbnail else None
    return FoundImage(
        original.url or "", html.unescape(image.title or ""), image.url, thumbnail, original.width, original.height
    )


PROVIDER = ImageProvider(
    ask=_search, address="https://api.search.brave.com", sign=lambda key: {"x-subscription-token": key}
)
