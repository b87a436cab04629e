"""The frames of background streams: written to the shared log before anyone sees them, by one recorder for all runs of
the process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence

from app.eventlog.base import Append, Batch, EventLog, EventLogUnavailable, FencedOff, LogLost, Outcome

_log = logging.getLogger(__name__)
_AHEAD = 2000
"""Frames that may wait for the log before the run stops reading its upstream."""
LOG_FRAMES = 200_000
LOG_BYTES = 64 << 20
"""A run that has so many frames or bytes in the log goes on without it: readers in other processes get the rest from
the record.

If its owner dies, it ends with what is in the log.
"""
ENTRY_FRAMES = 128
"""Frames that are logged at once, about: readers get whole entries."""
_READ = 128
"""Frames that a reader gets at once, at most: one that does not read any more has no more waiting for it."""
_SPACING_SECONDS = 0.05
"""Between two writes to the log under load: one write for what all runs have said since the last one costs less than
one for each.
"""
_RETRY_SECONDS = 0.5


class Tape:
    """The frames of one run here, and how many of them are in the log.

    Readers pull, so that a slow one needs no memory of its own.
    """

    def __init__(self, project_id: str, run_id: str, fence: int, changed: Callable[[Tape], None]) -> None:
        """`changed` is called when there is something to log."""
        self.project_id = project_id
        self.run_id = run_id
        self.fence = fence
        self.frames: list[bytes] = []
        self.logged = 0
        """How many frames are in the log."""
        self.unreliable = False
        """The log does not answer: frames are shown without it, since no client should wait for it."""
        self.leased_until = 0.0
        """Monotonic time until which no other process can own the run.

        Behind it nothing is shown that is not in the log.
        """
        self.ended = False
        """The last frame is the terminal event."""
        self.left = False
        """The log did not answer at the end, and is not completed: readers in other processes have the record."""
        self.lost = False
        """Another process has taken over the run: nothing more is written, and what is written elsewhere is
        not here.
        """
        self._logged_bytes = 0
        self.ends: list[int] = []
        """Where what is logged at once ends, at the latest: between two calls of `publish`."""
        self._changed = changed
        self._moved = asyncio.Event()

    def adopt(self, frames: Sequence[bytes]) -> None:
        """Continue behind the frames of an earlier owner, which are in the log."""
        self.frames = list(frames)
        self._count(len(frames))

    def lease(self, until: float) -> None:
        """The run is surely ours until then (monotonic time)."""
        self.leased_until = until
        if self.unreliable:
            self._move()

    def publish(self, frames: list[bytes], *, final: bool = False) -> None:
        """Add whole frames."""
        if not self.lost:
            self.frames += frames
            if len(self.frames) - (self.ends[-1] if self.ends else 0) >= ENTRY_FRAMES:
                self.ends.append(len(self.frames))
            self.ended = final
            self._changed(self)
            if self.unreliable or self.full:
                self._move()

    async def publish_end(self, frames: list[bytes]) -> None:
        """Add the last frames."""
        self.publish(frames, final=True)

    async def make_room(self, _frames: Sequence[bytes] = ()) -> None:
        """Wait while the log is too far behind.

        Not for one that does not answer, since no client should wait for it.
        """
        while len(self.frames) - self.logged > _AHEAD and self.has_unlogged and not self.unreliable:
            await self._moved.wait()

    async def finished(self) -> None:
        """Wait until everything is in the log, or nothing more will be."""
        while self.has_unlogged:
            await self._moved.wait()

    @property
    def visible(self) -> int:
        """How many frames may be seen."""
        leased = time.monotonic() < self.leased_until
        return len(self.frames) if self.full or (self.unreliable and leased) else self.logged

    async def read(self, after: int) -> AsyncGenerator[Sequence[bytes], None]:
        """The visible frames after number `after`, then new ones, up to the terminal event, or until the run
        is lost.
        """
        position = after + 1
        while True:
            visible = self.visible
            if position < visible:
                until = min(visible, position + _READ)
                frames, position = self.frames[position:until], until
                yield frames
                if until < visible:
                    await asyncio.sleep(0)  # the others' turn
            elif self.lost or (self.ended and visible == len(self.frames)):
                return
            else:
                await self._moved.wait()

    @property
    def has_unlogged(self) -> bool:
        """Whether something is to be logged."""
        return self.logged < len(self.frames) and not self.lost and not self.full

    @property
    def full(self) -> bool:
        """No more is logged."""
        return self.left or self.logged >= LOG_FRAMES or self._logged_bytes >= LOG_BYTES

    @property
    def unlogged(self) -> Batch:
        """What is to be logged next."""
        place = bisect_right(self.ends, self.logged)
        end = self.ends[place] if place < len(self.ends) else len(self.frames)
        final = self.ended and end == len(self.frames)
        return Batch(self.logged, tuple(self.frames[self.logged : end]), final, self.fence)

    def move(self, logged: int) -> None:
        """The log has been written so far."""
        self._count(logged)
        self.unreliable = False
        self._move()

    def show_unlogged(self) -> None:
        """The log does not answer. The end does not wait for it: the run would take a place as long as that lasts."""
        self.unreliable = True
        self.left = self.ended
        self._move()

    def lose(self) -> None:
        """Another process has taken over the run."""
        self.lost = True
        self._move()

    def _count(self, logged: int) -> None:
        if logged < self.logged:
            self.logged = self._logged_bytes = 0
        self._logged_bytes += sum(map(len, self.frames[self.logged : logged]))
        self.logged = logged

    def _move(self) -> None:
        self._moved.set()  # wakes all that wait now
        self._moved.clear()


class Recorder:
    """Writes the tapes of a process to the log: what all of them have said since the last time, in one round trip."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._waiting: set[Tape] = set()
        """Not by the run: a process may still have an earlier tape of a run that came back to it."""
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        self._silent = False
        """The log does not answer."""

    def tape(self, project_id: str, run_id: str, fence: int) -> Tape:
        """A new tape."""
        return Tape(project_id, run_id, fence, self.record)

    async def run(self) -> None:
        """Write whatever waits; to be called in a loop."""
        await self._news.wait()
        self._news.clear()
        self._urgent.clear()
        waiting, self._waiting = self._waiting, set()
        tapes = [tape for tape in waiting if tape.has_unlogged]
        if tapes:
            await self._write(tapes)
        if self._silent:
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            await self._pause()

    def record(self, tape: Tape) -> None:
        """The tape has something to log."""
        self._waiting.add(tape)
        self._news.set()
        if tape.ended or tape.logged == 0 or len(tape.frames) - tape.logged >= ENTRY_FRAMES:
            self._urgent.set()
        if self._silent:
            tape.show_unlogged()

    async def _pause(self) -> None:
        """A run's first and last frames do not wait."""
        try:
            async with asyncio.timeout(_SPACING_SECONDS):
                await self._urgent.wait()
        except TimeoutError:
            pass

    async def _write(self, tapes: Sequence[Tape]) -> None:
        appends = [Append(tape.project_id, tape.run_id, tape.unlogged) for tape in tapes]
        try:
            async with asyncio.timeout(self._log.patience_seconds):
                outcomes = await self._log.append_all(appends)
        except TimeoutError:
            outcomes = [EventLogUnavailable("timeout")] * len(appends)
        self._silent = False
        for tape, append, outcome in zip(tapes, appends, outcomes, strict=True):
            self._settle(tape, append.batch, outcome)
        if self._silent:
            for tape in self._waiting:  # they would be the next ones to wait in vain
                tape.show_unlogged()

    def _settle(self, tape: Tape, batch: Batch, outcome: Outcome) -> None:
        if outcome is None:
            tape.move(batch.first + len(batch.frames))
            if tape.has_unlogged:
                self.record(tape)
        elif isinstance(outcome, FencedOff):
            _log.warning("response %s is written by another process: %s", tape.run_id, outcome)
            tape.lose()
        elif isinstance(outcome, LogLost):
            tape.move(0)
            self.record(tape)
        else:
            if not self._silent:
                _log.warning("the event log of background responses does not answer: %s", outcome)
            self._silent = True
            self.record(tape)
