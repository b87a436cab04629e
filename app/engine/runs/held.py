"""A background run that this process owns, and how its end is stored."""

from __future__ import annotations

import asyncio
import logging

from app.engine.runs.ports import Ports
from app.engine.runs.progress import Progress, encode
from app.engine.runs.run import Run
from app.engine.runs.takeover import Lost
from app.engine.runs.tape import Tape
from app.protocol.wire.response import ResponseError
from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.responses import ResponseRecord
from app.stores.ports.runs import StoredRun
from app.telemetry.request import RequestSummary, current

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 0.5
_MOST_PROGRESS_BYTES = 8 << 20
"""A run that has done more cannot be continued by another process."""


class Held:
    """A run that this process owns."""

    def __init__(self, run: Run, stored: StoredRun, fence: int, tape: Tape | None, done: Progress | None) -> None:
        """`done`: by earlier owners."""
        self.run = run
        self.done = done
        self.stored = stored
        self.fence = fence
        self.tape = tape
        self.lost = False
        """The run has another owner, or is given back: nothing more is stored."""
        self.stopped = False
        self.repeatable = True
        """No call is running that must not be made twice."""
        self._task: asyncio.Task[None] | None = None
        self._begun = False

    def begin(self, task: asyncio.Task[None]) -> None:
        """The task that generates or ends it."""
        self._task = task

    def lease(self, until: float) -> None:
        """The lease is good until then (monotonic time)."""
        if self.tape is not None:
            self.tape.lease(until)

    def enter(self) -> None:
        """The task has begun: from now on it can be cancelled.

        (One that has not begun would never run any of its code.)
        """
        self._begun = True

    def stop(self, why: ResponseError | None = None) -> None:
        """End the run, once: cancelled, or failed with the reason. Without effect once its end is being stored."""
        if not (self.stopped or self.lost or self.run.settling):
            self.stopped = True
            self.run.interruption = why
            self._cancel()

    def lose(self) -> None:
        """Stop without storing anything."""
        if not self.lost:
            self.lost = True
            if self.tape is not None:
                self.tape.lose()
            if not self.stopped:
                self._cancel()

    async def ended(self, seconds: float | None = None) -> bool:
        """Wait for the end; whether it has come."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=seconds)
        return self._task is None or self._task.done()

    def go_on(self) -> None:
        """After a cancellation that has ended only what was awaited."""
        if self._task is not None:
            self._task.uncancel()

    def let_go(self) -> None:
        """The task has ended.

        How the run is saved refers to this object: such a circle would keep all frames in memory until a full garbage
        collection, which may be hours away.
        """
        self.run.save = _ended
        self.run.keep_progress(None)

    def _cancel(self) -> None:
        if self._task is not None and self._begun:
            self._task.cancel()


class FencedWriter:
    """Stores what a held run has done, and its end, under its fence."""

    def __init__(self, ports: Ports, held: Held) -> None:
        self._ports = ports
        self._held = held

    async def save(self, record: ResponseRecord) -> None:
        """Store the record as soon as the store answers. Raises Lost if the run has another owner."""
        held = self._held
        while not held.lost:
            try:
                if await self._ports.runs.settle(record, held.fence):
                    return
                break
            except StoreUnavailable as error:
                _log.warning("the end of background response %s waits for the database: %s", record.id, error)
            await asyncio.sleep(_RETRY_SECONDS)
        held.lost = True
        if held.tape is not None:
            held.tape.lose()
        raise Lost

    async def note(self, done: Progress) -> None:
        """Store the progress. Calls that must not be made twice wait until the store has answered. Raises Lost."""
        held, noted = self._held, encode(done, _MOST_PROGRESS_BYTES)
        held.repeatable = done.repeatable
        while not held.lost:
            try:
                if await self._ports.runs.note(held.stored.id, held.fence, noted):
                    return
                break
            except StoreUnavailable as error:
                if done.repeatable:
                    _log.warning("the progress of background response %s was not stored: %s", held.stored.id, error)
                    return
            await asyncio.sleep(_RETRY_SECONDS)
        held.lose()
        await asyncio.sleep(0)  # the cancellation arrives here
        raise Lost


async def _ended(record: ResponseRecord) -> None:
    raise RuntimeError(f"response {record.id} has ended already")


def summary_of(held: Held) -> RequestSummary:
    """Of the run, whose line in the log follows that of its request."""
    run = held.run
    request_id = current.get().request_id or run.id
    return RequestSummary(
        request_id,
        "RUN",
        "background",
        project=run.project_id,
        key=current.get().key or "-",
        response=run.id,
        model=run.admitted.model,
        stream=run.admitted.stream,
    )
