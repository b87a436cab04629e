"""Measures any log of live streams: how long each operation took, and whether it failed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import TypeVar

from app.eventlog.base import Append, Batch, EventLog, EventLogUnavailable, Outcome
from app.telemetry.timing import Note, timed

_T = TypeVar("_T")


class MeasuredEventLog:
    """Passes every call to a log, and records how long it took."""

    def __init__(self, log: EventLog, note: Note) -> None:
        self._log = log
        self._note = note

    @property
    def patience_seconds(self) -> float:
        """The log's value."""
        return self._log.patience_seconds

    async def append(self, project_id: str, response_id: str, batch: Batch) -> None:
        """Append a batch, timed."""
        await self._measure("append", self._log.append(project_id, response_id, batch))

    async def append_all(self, appends: Sequence[Append]) -> Sequence[Outcome]:
        """Append a batch to each of several streams, timed as one operation.

        It has failed if the log did not take one of them.
        """
        began = time.perf_counter()
        outcomes = await self._log.append_all(appends)
        failed = any(isinstance(outcome, EventLogUnavailable) for outcome in outcomes)
        self._note("append", time.perf_counter() - began, failed=failed)
        return outcomes

    async def seal(self, project_id: str, response_id: str, fence: int) -> None:
        """Seal a stream against older owners, timed."""
        await self._measure("seal", self._log.seal(project_id, response_id, fence))

    def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        """Read the stream. Not timed: how long a reader waits depends on the writer."""
        return self._log.read(project_id, response_id, after)

    async def frames(self, project_id: str, response_id: str) -> Sequence[bytes]:
        """Get what is there of a stream, timed."""
        return await self._measure("frames", self._log.frames(project_id, response_id))

    async def exists(self, project_id: str, response_id: str) -> bool:
        """Ask whether a stream is in the log, timed."""
        return await self._measure("exists", self._log.exists(project_id, response_id))

    async def erase(self, project_id: str, response_id: str) -> None:
        """Erase a stream, timed."""
        await self._measure("erase", self._log.erase(project_id, response_id))

    async def aclose(self) -> None:
        """Close the log."""
        await self._log.aclose()

    async def want(self, project_id: str, response_id: str) -> None:
        """Ask for a stream, timed."""
        await self._measure("want", self._log.want(project_id, response_id))

    async def wanted(self) -> Sequence[tuple[str, str]]:
        """Look what is asked for. Not timed: every process looks all the time."""
        return await self._log.wanted()

    async def confirm(self, runs: Sequence[tuple[str, str]]) -> None:
        """Confirm that responses are being generated, timed."""
        await self._measure("confirm", self._log.confirm(runs))

    async def confirmed(self, project_id: str, response_id: str) -> bool:
        """Look whether that was confirmed. Not timed: readers ask until it is."""
        return await self._log.confirmed(project_id, response_id)

    async def _measure(self, operation: str, work: Awaitable[_T]) -> _T:
        return await timed(operation, work, self._note, EventLogUnavailable)
