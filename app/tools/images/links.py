"""Whether an address leads to an image: a result may be gone, moved behind a page, or never have been an image."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from app.tools.images.base import FoundImage
from app.tools.ports.fetcher import Fetcher, FetchRefused

SPARE = 20
"""Extra candidates to request from an engine, to replace broken ones."""
_AT_ONCE = 10
_ALL_SECONDS = 15.0
_BEGINNING = ("Range", "bytes=0-4095")
_LARGEST = 4 * 1024 * 1024
"""Bytes, for servers that ignore ranges and send everything."""
_SVG_WITHIN = 1024
_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"\x00\x00\x01\x00",
)
"""JPEG, PNG, GIF, BMP, TIFF and ICO."""
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")


async def working(
    fetcher: Fetcher, images: Sequence[FoundImage], wanted: int, *, seconds: float = 5.0
) -> list[FoundImage]:
    """The first `wanted` images that load in `seconds` each, in order.

    Fewer if there are no more, or after 15 seconds in total.
    """
    found: dict[int, FoundImage] = {}
    candidates = iter(enumerate(images))

    async def look() -> None:
        for place, image in candidates:
            if await is_image(fetcher, image.url, seconds):
                found[place] = image
            if len(found) >= wanted:
                return

    with suppress(TimeoutError):
        async with asyncio.timeout(_ALL_SECONDS), asyncio.TaskGroup() as group:
            for _ in range(min(_AT_ONCE, wanted)):
                group.create_task(look())
    return [found[place] for place in sorted(found)][:wanted]


async def is_image(fetcher: Fetcher, url: str, seconds: float) -> bool:
    """Whether there is an image, by its declared type and its first bytes."""
    try:
        page = await fetcher.get(url, limit=_LARGEST, seconds=seconds, accept=("image/*",), headers=(_BEGINNING,))
    except FetchRefused:
        return False
    return looks_like_image(page.body)


def looks_like_image(content: bytes) -> bool:
    """Whether the content begins like an image that browsers can show."""
    if content.startswith(_SIGNATURES) or (content.startswith(b"RIFF") and content[8:12] == b"WEBP"):
        return True
    if content[4:8] == b"ftyp":
        return content[8:12] in _BRANDS
    return b"<svg" in content[:_SVG_WITHIN].lower()
