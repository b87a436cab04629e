"""The sample image, and the similarity of others to it: bytes are loaded here and decoded in a worker process."""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Sequence

from app.offload.protocol import Limits
from app.offload.workers import OffloadFailed, Workers
from app.tools.images.base import FoundImage
from app.tools.images.pictures import Box, Unusable, crop, similarities
from app.tools.ports.fetcher import Fetcher, FetchRefused
from app.tools.ports.tool import ToolFailure

_WORKERS = Workers(Limits(seconds=30.0, cpu_seconds=20.0, memory_bytes=2 * 1024**3), places=2, refusal=Unusable)
_LOAD_SECONDS = 15.0
_CANDIDATE_SECONDS = 6.0
_CANDIDATE_BYTES = 2 * 1024 * 1024
_AT_ONCE = 10
_IMAGES = ("image/*",)


async def load(fetcher: Fetcher, url: str, limit: int) -> bytes:
    """The bytes of an image of the conversation, at most `limit`. Raises ToolFailure."""
    if url[:5].lower() == "data:":
        return _from_data(url, limit)
    try:
        return (await fetcher.get(url, limit=limit, seconds=_LOAD_SECONDS, accept=_IMAGES)).body
    except FetchRefused as error:
        raise ToolFailure(f"The image cannot be loaded: {error}") from error


def _from_data(url: str, limit: int) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ToolFailure("The image cannot be loaded: its data: URI is not in base64.")
    if len(data) > limit * 4 // 3 + 4:
        raise ToolFailure(f"The image cannot be loaded: it is larger than {limit} bytes.")
    try:
        return binascii.a2b_base64(data)
    except ValueError as error:
        raise ToolFailure("The image cannot be loaded: its data: URI is not in base64.") from error


async def cut_out(content: bytes, box: Box, *, project: str) -> bytes:
    """The part of the image in `box`, as a JPEG; `project`: for fair scheduling. Raises ToolFailure."""
    try:
        return await _WORKERS.run(crop, content, box, project=project)
    except (Unusable, OffloadFailed) as error:
        raise ToolFailure(f"The image cannot be used: {error}.") from error


async def compare(
    fetcher: Fetcher, sought: bytes, images: Sequence[FoundImage], *, project: str
) -> list[tuple[FoundImage, float | None]]:
    """The images that can be loaded and decoded, in order, each with its similarity to the sample.

    If a picture crashes the worker, no similarity is known: None.
    """
    gate = asyncio.Semaphore(_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        loads = [group.create_task(_picture(fetcher, image, gate)) for image in images]
    loaded = [(image, task.result()) for image, task in zip(images, loads, strict=True)]
    seen = [(image, content) for image, content in loaded if content is not None]
    if not seen:
        return []
    try:
        likeness = await _WORKERS.run(similarities, sought, [content for _, content in seen], project=project)
    except OffloadFailed:
        return [(image, None) for image, _ in seen]
    return [(image, alike) for (image, _), alike in zip(seen, likeness, strict=True) if alike is not None]


async def _picture(fetcher: Fetcher, image: FoundImage, gate: asyncio.Semaphore) -> bytes | None:
    """The thumbnail, which is small and usually on the engine's own fast servers, otherwise the image itself."""
    async with gate:
        for url in (image.thumbnail, image.url):
            if url is not None:
                try:
                    page = await fetcher.get(url, limit=_CANDIDATE_BYTES, seconds=_CANDIDATE_SECONDS, accept=_IMAGES)
                except FetchRefused:
                    continue
                return page.body
    return None
