"""Live runs in the database: one batch per row, written in groups with everything else; readers on any replica poll for more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Select, bindparam, delete, func, select

from app.db.engine import Database
from app.db.tables import event_batches
from app.db.writer import DatabaseUnavailable, RowRefused
from app.eventlog.base import Batch, EventLogUnavailable

_e = event_batches.c
_OF_RUN = (_e.response_id == bindparam("run"), _e.project_id == bindparam("owner"))
_NEWEST = select(func.max(_e.expires_at).label("number")).where(*_OF_RUN)
_START = select(func.max(_e.first_sequence).label("number")).where(*_OF_RUN, _e.first_sequence <= bindparam("wanted"))
_BATCHES = (
    select(_e.first_sequence, _e.frames, _e.final, _e.expires_at)
    .where(*_OF_RUN, _e.first_sequence >= bindparam("start"))
    .order_by(_e.first_sequence)
)
_ERASE = delete(event_batches).where(*_OF_RUN)

_FRAMES = msgspec.msgpack.Decoder(tuple[bytes, ...])


class SqlEventLog:
    """The log of replicas that share a database and no Redis. `SqlResponseStore.purge` removes expired batches."""

    def __init__(
        self,
        database: Database,
        *,
        poll_seconds: float = 0.1,
        lease_seconds: float = 180,
        lifetime_seconds: float = 7200,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`poll_seconds`: how often a reader polls. `lease_seconds`: a run that is silent for this long has lost its owner.

        `lifetime_seconds`: how long a batch is kept; at least the longest run plus the lease.
        """
        self._database = database
        self._poll = poll_seconds
        self._lease = lease_seconds
        self._lifetime = lifetime_seconds
        self._clock = clock
        self._closed = False

    async def append(self, project_id: str, response_id: str, batch: Batch) -> None:
        """Add the batch; committed when this returns."""
        frames = msgspec.msgpack.encode(batch.frames)
        row = (response_id, batch.first, project_id, frames, batch.final, int(self._clock() + self._lifetime))
        with _log_errors():
            await self._database.writer.insert((event_batches, row))

    async def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        """Frames above `after`, one batch at a time."""
        run: dict[str, Any] = {"run": response_id, "owner": project_id}
        position = after + 1
        start = await self._number(_START, {**run, "wanted": position})
        newest = 0
        while start is not None and not self._closed:
            with _log_errors():
                rows = await self._database.fetch(_BATCHES, {**run, "start": start})
            for row in rows:
                fresh = _FRAMES.decode(row["frames"])[max(position - row["first_sequence"], 0) :]
                position += len(fresh)
                newest = row["expires_at"]
                if fresh:
                    yield fresh
                if row["final"]:
                    return
            if not rows and not self._is_owned(newest):
                return
            start = position
            await asyncio.sleep(self._poll)

    async def exists(self, project_id: str, response_id: str) -> bool:
        """Whether the run has batches and the newest one is within the lease."""
        newest = await self._number(_NEWEST, {"run": response_id, "owner": project_id})
        return newest is not None and self._is_owned(newest)

    async def erase(self, project_id: str, response_id: str) -> None:
        """Delete the run's batches."""
        with _log_errors():
            async with self._database.transaction() as connection:
                await connection.execute(_ERASE, {"run": response_id, "owner": project_id})

    async def aclose(self) -> None:
        """Readers end at their next poll; the database is not ours to close."""
        self._closed = True

    def _is_owned(self, expires_at: int) -> bool:
        """Whether a batch with this expiry was added within the lease."""
        return expires_at - self._lifetime + self._lease > self._clock()

    async def _number(self, statement: Select[tuple[int]], parameters: dict[str, Any]) -> int | None:
        with _log_errors():
            rows = await self._database.fetch(statement, parameters)
        return rows[0]["number"] if rows else None


@contextmanager
def _log_errors() -> Generator[None]:
    """Convert the database's errors to the port's."""
    try:
        yield
    except (DatabaseUnavailable, RowRefused) as error:
        raise EventLogUnavailable(str(error)) from error
