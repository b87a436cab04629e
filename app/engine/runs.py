"""Runs under way, and every background task. Nobody else creates tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any

from app.engine.run import Run
from app.protocol.errors import Unavailable

_log = logging.getLogger(__name__)
_SHARE_SECONDS = 0.1
"""How far a follower on another replica may lag behind."""


class Runs:
    """The runs of this process."""

    def __init__(self, limit: int, on_count: Callable[[int], None]) -> None:
        self._limit = limit
        self._on_count = on_count
        self._live: dict[tuple[str, str], Run] = {}
        self._loops: list[asyncio.Task[None]] = []

    @contextmanager
    def track(self, run: Run) -> Generator[None]:
        """Count the run as live. Raises Unavailable when there are too many."""
        if len(self._live) >= self._limit:
            raise Unavailable("The server is at its limit of concurrent responses.", code="server_is_overloaded", retry_after=1.0)
        key = (run.project_id, run.id)
        self._live[key] = run
        self._on_count(len(self._live))
        try:
            yield
        finally:
            del self._live[key]
            self._on_count(len(self._live))

    def find(self, project_id: str, response_id: str) -> Run | None:
        """The live run of that id."""
        return self._live.get((project_id, response_id))

    def watch(self, gone: Coroutine[Any, Any, None]) -> Callable[[], bool]:
        """Cancel the current task as soon as `gone` returns (the client hung up). Returns what ends the watch: whether it had fired."""
        task = asyncio.current_task()
        fired = False

        def on_gone(watcher: asyncio.Task[None]) -> None:
            nonlocal fired
            if task is not None and not watcher.cancelled() and not ended:
                fired = True
                task.cancel()

        ended = False
        watcher = asyncio.get_running_loop().create_task(gone)
        watcher.add_done_callback(on_gone)

        def end() -> bool:
            nonlocal ended
            if not ended:
                ended = True
                watcher.cancel()
                if fired and task is not None:
                    task.uncancel()
            return fired

        return end

    def every(self, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        """Do the work again and again until `aclose`; a failure is logged and does not end it."""
        self._loops.append(asyncio.get_running_loop().create_task(_repeat(seconds, work)))

    def share_streams(self) -> None:
        """Keep the shared event log of the live streams up to date."""
        self.every(_SHARE_SECONDS, self._share)

    async def aclose(self) -> None:
        """Stop the background work."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _share(self) -> None:
        for run in list(self._live.values()):
            await run.share()


async def _repeat(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:  # noqa: BLE001 - one failure must not end the work
            _log.exception("background work failed; it will be tried again")
