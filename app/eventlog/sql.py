"""Live runs in the database: one batch per row, written in groups with everything else; readers on any replica poll for more.

A row's key is the response and the number of its first frame. As every owner appends where it knows the end to be, the key is a
compare-and-swap: of two owners that append at the same end one is refused, and the other one's row tells it so. An owner whose
append failed finds its own row there when it tries again. To tell the two apart rows name their fence, as owners may write the
same bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import RowMapping, Select, bindparam, delete, func, select

from app.db.engine import Database
from app.db.tables import event_batches
from app.db.writer import DatabaseUnavailable, RowRefused
from app.eventlog.base import QUIET_SECONDS, Batch, EventLogUnavailable, FencedOff, joined

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


class _Fenced(msgspec.Struct, frozen=True):
    """The content of a row that a later owner wrote; of the first one it is the frames alone."""

    fence: int
    frames: tuple[bytes, ...]


_CONTENT = msgspec.msgpack.Decoder(tuple[bytes, ...] | _Fenced)


class SqlEventLog:
    """The log of replicas that share a database and no Redis. `SqlResponseStore.purge` removes expired batches.

    It never raises LogLost: rows outlive the run.
    """

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

        `lifetime_seconds`: how long a batch is kept; at least the longest run plus the lease. Raises ValueError if less than the lease.
        """
        if lifetime_seconds < lease_seconds:
            raise ValueError("a batch must be kept for at least the lease")
        self._database = database
        self._poll = poll_seconds
        self._lease = lease_seconds
        self._lifetime = lifetime_seconds
        self._clock = clock
        self._closed = False

    async def append(self, project_id: str, response_id: str, batch: Batch) -> None:
        """Add the batch; committed when this returns. One insert, and more statements only if it is refused."""
        rest: Batch | None = batch
        with _log_errors():
            while rest is not None:
                rest = await self._insert(project_id, response_id, rest)

    async def seal(self, project_id: str, response_id: str, fence: int) -> None:
        """Nothing: no row can stand for frames that are not known yet.

        An older owner is refused once the new one has appended. Until then it may append once more, and the new one is refused.
        """

    async def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        """Frames above `after`, as many at a time as there are."""
        run: dict[str, Any] = {"run": response_id, "owner": project_id}
        position = after + 1
        start = await self._number(_START, {**run, "wanted": position})
        newest, told = 0, time.monotonic()
        while start is not None and not self._closed:
            with _log_errors():
                rows = await self._database.fetch(_BATCHES, {**run, "start": start})
            fresh = joined(_batches(rows), position)
            position += len(fresh)
            if rows:
                start, newest = min(position, _end(rows[-1])), rows[-1]["expires_at"]
            if fresh or time.monotonic() - told > QUIET_SECONDS - self._poll:
                yield fresh
                told = time.monotonic()
            if any(row["final"] for row in rows) or not (fresh or self._is_owned(newest)):
                return
            await asyncio.sleep(self._poll)

    async def frames(self, project_id: str, response_id: str) -> Sequence[bytes]:
        """The frames of all rows."""
        with _log_errors():
            rows = await self._database.fetch(_BATCHES, {"run": response_id, "owner": project_id, "start": 0})
        return joined(_batches(rows), 0)

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

    async def _insert(self, project_id: str, response_id: str, batch: Batch) -> Batch | None:
        """Insert the batch, if nothing is in its place. What is left of it if the place has its beginning. Raises FencedOff."""
        content = batch.frames if batch.fence == 1 else _Fenced(batch.fence, batch.frames)
        expires_at = int(self._clock() + self._lifetime)
        row = (response_id, batch.first, project_id, msgspec.msgpack.encode(content), batch.final, expires_at)
        try:
            await self._database.writer.insert((event_batches, row))
        except RowRefused:
            there = await self._database.fetch(_BATCHES, {"run": response_id, "owner": project_id, "start": batch.first})
            if not there:
                raise
            return _rest(response_id, batch, [_content(row) for row in there])
        return None

    def _is_owned(self, expires_at: int) -> bool:
        """Whether a batch with this expiry was added within the lease."""
        return expires_at - self._lifetime + self._lease > self._clock()

    async def _number(self, statement: Select[tuple[int]], parameters: dict[str, Any]) -> int | None:
        with _log_errors():
            rows = await self._database.fetch(statement, parameters)
        return rows[0]["number"] if rows else None


def _content(row: RowMapping) -> _Fenced:
    content = _CONTENT.decode(row["frames"])
    return content if isinstance(content, _Fenced) else _Fenced(1, content)


def _batches(rows: Iterable[RowMapping]) -> Iterable[tuple[int, tuple[bytes, ...]]]:
    """First number and frames of every row."""
    return ((row["first_sequence"], _content(row).frames) for row in rows)


def _end(row: RowMapping) -> int:
    """The sequence number after the row's last frame."""
    return row["first_sequence"] + len(_content(row).frames)


def _rest(response_id: str, batch: Batch, there: Sequence[_Fenced]) -> Batch | None:
    """What of the batch is not in the row that its owner wrote in its place. Raises FencedOff if this or a later row is another's."""
    fence = max(content.fence for content in there)
    known = len(there[0].frames)
    if fence > batch.fence or there[0].fence != batch.fence or there[0].frames != batch.frames[:known] or not known:
        raise FencedOff(response_id, fence)
    if known == len(batch.frames):
        return None
    return msgspec.structs.replace(batch, first=batch.first + known, frames=batch.frames[known:])


@contextmanager
def _log_errors() -> Generator[None]:
    """Convert the database's errors to the port's."""
    try:
        yield
    except (DatabaseUnavailable, RowRefused) as error:
        raise EventLogUnavailable(str(error)) from error
