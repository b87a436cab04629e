"""Live runs of this process: a list of frames and the readers who wait for more."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator

from app.eventlog.base import Batch

_Key = tuple[str, str]


class _Run:
    """The frames of one run, and who follows it."""

    __slots__ = ("final", "frames", "readers", "waiters")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.final = False
        self.readers = 0
        self.waiters: list[asyncio.Future[None]] = []

    def wake(self) -> None:
        """Tell the waiting readers that there is something new, or that nothing comes any more."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def news(self) -> None:
        """Wait for `wake`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        await waiter


class MemoryEventLog:
    """A finished run goes with its last reader. One that nobody has read stays until `erase`, or until `unread` others came after it."""

    def __init__(self, *, unread: int = 256) -> None:
        """`unread`: how many finished runs are kept for readers who are still to come."""
        self._unread_limit = unread
        self._runs: dict[_Key, _Run] = {}
        self._unread: OrderedDict[_Key, None] = OrderedDict()

    async def append(self, project_id: str, response_id: str, batch: Batch) -> None:
        """Add the batch and wake the readers."""
        key = (project_id, response_id)
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run()
        run.frames.extend(batch.frames)
        if batch.final:
            run.final = True
            if run.readers == 0:
                self._keep_unread(key)
        if run.waiters:
            run.wake()

    async def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        """Everything above `after` that is there, in one piece, then batch by batch."""
        key = (project_id, response_id)
        run = self._runs.get(key)
        if run is None:
            return
        run.readers += 1
        self._unread.pop(key, None)
        position = after + 1
        try:
            while True:
                frames = tuple(run.frames[position:])
                if frames:
                    position += len(frames)
                    yield frames
                elif run.final or self._runs.get(key) is not run:
                    return
                else:
                    await run.news()
        finally:
            run.readers -= 1
            if run.final and run.readers == 0 and self._runs.get(key) is run:
                del self._runs[key]

    async def exists(self, project_id: str, response_id: str) -> bool:
        """Whether the run is here."""
        return (project_id, response_id) in self._runs

    async def erase(self, project_id: str, response_id: str) -> None:
        """Drop the run, finished or not, and wake its readers."""
        key = (project_id, response_id)
        self._unread.pop(key, None)
        run = self._runs.pop(key, None)
        if run is not None:
            run.wake()

    async def aclose(self) -> None:
        """Drop every run."""
        for project_id, response_id in list(self._runs):
            await self.erase(project_id, response_id)

    def _keep_unread(self, key: _Key) -> None:
        self._unread[key] = None
        if len(self._unread) > self._unread_limit:
            oldest, _ = self._unread.popitem(last=False)
            del self._runs[oldest]
