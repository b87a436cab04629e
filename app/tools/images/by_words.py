"""Several searches by words as one: they run concurrently, and their results are interleaved."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import chain, zip_longest

from app.tools.images.base import MOST, FoundImage, ImageQuery, presentable
from app.tools.ports.tool import ToolFailure
from app.tools.search.base import Providers, SearchFailed

_LEAST = 10
"""Results to request: fewer cost the same."""


async def search(engines: Providers[ImageQuery, FoundImage], queries: Sequence[str], limit: int) -> list[FoundImage]:
    """About `limit` images, without duplicates, the best of every query first.

    Raises ToolFailure if no query got an answer.
    """
    each = min(MOST, max(_LEAST, -(-limit // len(queries))))
    async with asyncio.TaskGroup() as group:
        searches = [group.create_task(_one(engines, ImageQuery(text, each))) for text in queries]
    answers = [answer for answer in (task.result() for task in searches) if answer is not None]
    if not answers:
        raise ToolFailure("The image search does not work at the moment: no search service answered.")
    in_turn = chain.from_iterable(zip_longest(*answers))
    return presentable(image for image in in_turn if image is not None)


async def _one(engines: Providers[ImageQuery, FoundImage], query: ImageQuery) -> Sequence[FoundImage] | None:
    """None: every engine failed, which has been logged."""
    try:
        return await engines.search(query)
    except SearchFailed:
        return None
