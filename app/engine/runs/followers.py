"""Readers of a stream other than the client that requested it: followers in this process, and the log that other replicas read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence

from app.eventlog.base import Batch, EventLog, EventLogUnavailable

_log = logging.getLogger(__name__)


class Followers:
    """The readers of one response's stream."""

    def __init__(self, project_id: str, response_id: str, shared: EventLog | None) -> None:
        self._project_id = project_id
        self._id = response_id
        self._log = shared
        self._published = 0
        self._followers: list[asyncio.Queue[Batch]] = []
        self._last: Batch | None = None
        self._unshared: list[bytes] = []
        self._shared = False

    async def follow(self, past: Callable[[], Sequence[bytes]], after: int) -> AsyncGenerator[Sequence[bytes], None]:
        """The frames after number `after`: those of the `past`, then each batch as it comes, up to the terminal event."""
        news: asyncio.Queue[Batch] = asyncio.Queue()
        self._followers.append(news)
        if self._last is not None:  # the stream ended before this reader began
            news.put_nowait(self._last)
        try:
            frames = past()
            number = len(frames)
            if frames[after + 1 :]:
                yield frames[after + 1 :]
            while True:
                batch = await news.get()
                fresh = batch.frames[max(number, after + 1) - batch.first :] if batch.first < max(number, after + 1) else batch.frames
                number = batch.first + len(batch.frames)
                if fresh:
                    yield fresh
                if batch.final:
                    return
        finally:
            self._followers.remove(news)

    def publish(self, frames: list[bytes], *, final: bool) -> None:
        """Pass the frames to the readers. Nothing is kept: a later reader gets the earlier frames from the `past` given to `follow`."""
        first = self._published
        self._published += len(frames)
        if final or self._followers:
            batch = Batch(first, tuple(frames), final)
            self._last = batch if final else None
            for follower in self._followers:
                follower.put_nowait(batch)
        if self._log is not None:
            self._unshared.extend(frames)

    async def publish_end(self, frames: list[bytes]) -> None:
        """As `publish`, for the last frames. If the stream ended before anything was shared, other replicas read it from the store."""
        self.publish(frames, final=True)
        if self._shared:
            await self.share(final=True)

    async def share(self, *, final: bool = False) -> None:
        """Append new frames to the shared log."""
        frames, self._unshared = self._unshared, []
        if not frames or self._log is None:
            return
        batch = Batch(self._published - len(frames), tuple(frames), final)
        self._shared = True
        try:
            await self._log.append(self._project_id, self._id, batch)
        except EventLogUnavailable as error:
            _log.warning("response %s cannot be followed on other replicas: %s", self._id, error)
