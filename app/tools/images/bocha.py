"""Bocha: its web search also returns the images of the pages it found, in the format of Bing's API
(https://open.bochaai.com).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.tools.images.base import FoundImage, ImageProvider, ImageQuery
from app.tools.search.base import Api, SearchFailed, bearer

_OK = 200
_MOST_PAGES = 50


class _Page(msgspec.Struct):
    name: str | None = None
    url: str | None = None


class _Pages(msgspec.Struct):
    value: list[_Page] | None = None


class _Image(msgspec.Struct, rename="camel"):
    content_url: str | None = None
    host_page_url: str | None = None
    thumbnail_url: str | None = None
    name: str | None = None
    width: int | None = None
    height: int | None = None


class _Images(msgspec.Struct):
    value: list[_Image] | None = None


class _Data(msgspec.Struct, rename="camel"):
    web_pages: _Pages | None = None
    images: _Images | None = None


class _Answer(msgspec.Struct):
    code: int | str = _OK
    data: _Data | None = None


async def _search(api: Api, query: ImageQuery) -> Sequence[FoundImage]:
    answer = await api.post("/v1/web-search", {"query": query.text, "count": min(query.limit, _MOST_PAGES)}, _Answer)
    if str(answer.code) != str(_OK):
        raise SearchFailed("the answer reports a failure")
    data = answer.data or _Data()
    # Its images rarely have a name; the page's name says what they show.
    titles = {page.url: page.name for page in (data.web_pages and data.web_pages.value) or ()}
    return [
        FoundImage(
            url=image.content_url or "",
            title=image.name or titles.get(image.host_page_url) or "",
            page=image.host_page_url,
            thumbnail=image.thumbnail_url,
            width=image.width,
            height=image.height,
        )
        for image in (data.images and data.images.value) or ()
    ]


PROVIDER = ImageProvider(ask=_search, address="https://api.bochaai.com", sign=bearer)
