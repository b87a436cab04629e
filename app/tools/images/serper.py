"""Serper: Google's image search, and Google Lens for images that have a public address.

Requests and responses as documented at https://serper.dev; the key is sent in `X-API-KEY`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.tools.images.base import FoundImage, ImageProvider, ImageQuery, LensProvider, Sample
from app.tools.search.base import Api

_ADDRESS = "https://google.serper.dev"


class _Image(msgspec.Struct, rename="camel"):
    title: str | None = None
    image_url: str | None = None
    image_width: int | None = None
    image_height: int | None = None
    thumbnail_url: str | None = None
    link: str | None = None


class _Images(msgspec.Struct):
    images: list[_Image] | None = None


class _Matches(msgspec.Struct):
    organic: list[_Image] | None = None


async def _search(api: Api, query: ImageQuery) -> Sequence[FoundImage]:
    answer = await api.post("/images", {"q": query.text, "num": query.limit}, _Images)
    return _found(answer.images)


async def _lens(api: Api, sample: Sample) -> Sequence[FoundImage]:
    if sample.url is None:
        return ()
    answer = await api.post("/lens", {"url": sample.url}, _Matches)
    return _found(answer.organic)


def _found(images: list[_Image] | None) -> list[FoundImage]:
    return [
        FoundImage(
            # Lens has only a thumbnail for some matches.
            url=image.image_url or image.thumbnail_url or "",
            title=image.title or "",
            page=image.link,
            thumbnail=image.thumbnail_url,
            width=image.image_width,
            height=image.image_height,
        )
        for image in images or ()
    ]


PROVIDER = ImageProvider(ask=_search, address=_ADDRESS, sign=lambda key: {"x-api-key": key})
LENS = LensProvider(ask=_lens, address=_ADDRESS, sign=PROVIDER.sign)
