"""Active runs and all background tasks. No other module creates tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from app.engine.runs.run import Run
from app.knowledge.ports.errors import KnowledgeUnavailable
from app.protocol.wire.errors import Unavailable
from app.protocol.wire.response import ResponseError
from app.stores.ports.errors import StoreUnavailable

_log = logging.getLogger(__name__)
_QUICK_SECONDS = 0.05


class HangupWatch:
    """Cancels the task that created it when the client disconnects.

    The task that waits for the disconnect is created only for slow answers: a fast one ends before it would matter.
    """

    __slots__ = ("_ended", "_fired", "_starter", "_task", "_wait", "_watcher")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, wait_for_hangup: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._task = asyncio.current_task(loop)
        self._wait = wait_for_hangup
        self._watcher: asyncio.Task[None] | None = None
        self._fired = self._ended = False
        self._starter = loop.call_later(_QUICK_SECONDS, self._start, loop)

    def end(self) -> bool:
        """Stop watching; returns whether the client disconnected.

        The cancellation is undone, so that the task can end normally.
        """
        if not self._ended:
            self._ended = True
            self._starter.cancel()
            if self._watcher is not None:
                self._watcher.cancel()
            if self._fired and self._task is not None:
                self._task.uncancel()
        return self._fired

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watcher = loop.create_task(self._wait())
        self._watcher.add_done_callback(self._on_hangup)

    def _on_hangup(self, watcher: asyncio.Task[None]) -> None:
        if self._task is not None and not watcher.cancelled() and not self._ended:
            self._fired = True
            self._task.cancel()


class Runs:
    """The runs of this process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._live: dict[tuple[str, str], tuple[Run, asyncio.Task[Any] | None]] = {}
        self._loops: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        """The number of active runs."""
        return len(self._live)

    @property
    def are_streamed(self) -> bool:
        """Whether any of them is a stream that others may follow."""
        return any(run.can_be_followed for run, _ in self._live.values())

    def add(self, run: Run) -> None:
        """Add a run of the current task, which must discard it. Raises Unavailable if there are too many."""
        if len(self._live) >= self._limit:
            raise Unavailable(
                "The server is at its limit of concurrent responses.", code="server_is_overloaded", retry_after=1.0
            )
        self._live[run.project_id, run.id] = run, asyncio.current_task()

    def discard(self, run: Run) -> None:
        """Remove a finished run."""
        self._live.pop((run.project_id, run.id), None)

    def find(self, project_id: str, response_id: str) -> Run | None:
        """The active run with that id."""
        found = self._live.get((project_id, response_id))
        return found[0] if found is not None else None

    def interrupt(self, why: ResponseError) -> None:
        """End all runs as failed; their clients get the end."""
        for run, task in self._live.values():
            if task is not None and not run.settling and run.interruption is None:
                run.interruption = why
                task.cancel()

    def watch(self, wait_for_hangup: Callable[[], Coroutine[Any, Any, None]]) -> HangupWatch:
        """Cancel the current task when its client disconnects."""
        return HangupWatch(asyncio.get_running_loop(), wait_for_hangup)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that outlives its caller, who keeps it and ends it."""
        return asyncio.get_running_loop().create_task(work)

    def every(self, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        """Repeat the work until `aclose`; failures are logged and do not stop it."""
        self._loops.append(asyncio.get_running_loop().create_task(_repeat(seconds, work)))

    async def aclose(self) -> None:
        """Stop the background work."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)


async def _repeat(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except (StoreUnavailable, KnowledgeUnavailable) as error:
            _log.warning("background work waits for the database: %s", error)
        except Exception:  # noqa: BLE001 - one failure must not stop the work
            _log.exception("background work failed; it will be retried")
