"""Shared by all image engines: the query, the result, and the requirements for a result before it is shown.

An engine is one file of this package. It exports `PROVIDER` (words to images), `LENS` (an image to similar images), or
both.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from app.discovery import constants
from app.settings import Settings
from app.tools.search.base import Provider, Providers

MOST = 100
"""Maximum of images per query."""
_URL_CHARS = 4000
_TITLE_CHARS = 200


class ImageQuery(msgspec.Struct, frozen=True):
    """Words that describe the images."""

    text: str
    limit: int
    """Useful number of images, at most `MOST`; an engine may return fewer, or more."""


class Sample(msgspec.Struct, frozen=True):
    """An image for which similar ones are searched."""

    content: bytes
    """JPEG."""
    url: str | None
    """Where an engine can fetch the same image itself; None: nowhere, or it is only a part of that one."""
    limit: int


class FoundImage(msgspec.Struct, frozen=True):
    """An image on the web, as reported by an engine."""

    url: str
    """Of the image itself."""
    title: str
    page: str | None = None
    """URL of the page that shows it."""
    thumbnail: str | None = None
    """URL of a small version."""
    width: int | None = None
    """Pixels of the image itself."""
    height: int | None = None


class ImageProvider(Provider[ImageQuery, FoundImage], frozen=True, kw_only=True):
    """Finds images by words."""


class LensProvider(Provider[Sample, FoundImage], frozen=True, kw_only=True):
    """Finds images by an image. No results if it needs a URL and there is none."""


def image_providers(settings: Settings) -> Providers[ImageQuery, FoundImage]:
    """The engines for words that the settings enable. Raises ConfigurationError."""
    return Providers(settings, constants("app.tools.images", "PROVIDER", ImageProvider))


def lens_providers(settings: Settings) -> Providers[Sample, FoundImage]:
    """The engines for images that the settings enable. Raises ConfigurationError."""
    return Providers(settings, constants("app.tools.images", "LENS", LensProvider))


def presentable(found: Iterable[FoundImage]) -> list[FoundImage]:
    """Those with an http(s) address, without duplicates, in order.

    With a title of one line, and without addresses of other kinds.
    """
    images: dict[str, FoundImage] = {}
    for image in found:
        url = _web_address(image.url)
        if url is not None and url not in images:
            page = _web_address(image.page)
            images[url] = FoundImage(
                url,
                _title(image.title, page or url),
                page,
                _web_address(image.thumbnail),
                _size(image.width),
                _size(image.height),
            )
    return list(images.values())


def _web_address(url: str | None) -> str | None:
    url = (url or "").strip()[: _URL_CHARS + 1].partition("#")[0]
    if url.startswith("//"):  # SearXNG passes on what some engines return
        url = f"https:{url}"
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    usable = (
        parts.scheme in ("http", "https")
        and parts.hostname
        and url.isprintable()
        and " " not in url
        and len(url) <= _URL_CHARS
    )
    return url if usable else None


def _title(title: str, place: str) -> str:
    return " ".join(title.split())[:_TITLE_CHARS] or urlsplit(place).hostname or "Image"


def _size(pixels: int | None) -> int | None:
    return pixels if pixels and pixels > 0 else None
