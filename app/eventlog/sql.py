"""Live runs in the database: one batch per row, written in groups with everything else; readers on any replica poll for
more.

A row's key is the response and the number of its first frame. As every owner appends where it knows the end to be, the
key is a compare-and-swap: of two owners that append at the same end one is refused, and the other one's row tells it
so. A new owner takes the place at the end by an empty row first (the seal). An owner whose append failed finds its own
row there when it tries again. To tell the two apart rows name their fence, as owners may write the same bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Executable, Integer, RowMapping, Select, Table, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.db.clock import now_ms
from app.db.engine import Database
from app.db.tables import event_batches, wanted_streams
from app.db.writer import DatabaseUnavailable, Row, RowRefused
from app.eventlog.base import (
    CONFIRMED_SECONDS,
    FIRST_READ,
    MOST_WANTED,
    QUIET_SECONDS,
    WANTED_SECONDS,
    Append,
    Batch,
    EventLogUnavailable,
    FencedOff,
    Outcome,
    append_one,
    joined,
    next_read,
)

_e = event_batches.c
_OF_RUN = (_e.response_id == bindparam("run"), _e.project_id == bindparam("owner"))
_NEWEST = select(func.max(_e.expires_at).label("number")).where(*_OF_RUN)
_START = select(func.max(_e.first_sequence).label("number")).where(*_OF_RUN, _e.first_sequence <= bindparam("wanted"))
_BATCHES = (
    select(_e.first_sequence, _e.frames, _e.final, _e.expires_at)
    .where(*_OF_RUN, _e.first_sequence >= bindparam("start"))
    .order_by(_e.first_sequence)
)
_NEXT = _BATCHES.limit(bindparam("size", type_=Integer))
_REPLACE = (
    update(event_batches)
    .where(*_OF_RUN, _e.first_sequence == bindparam("first"), _e.frames == bindparam("seal"))
    .values(frames=bindparam("new"), final=bindparam("ends"), expires_at=bindparam("expiry"))
)
_ERASE = delete(event_batches).where(*_OF_RUN)

_w = wanted_streams.c
_THAT_STREAM = (_w.response_id == bindparam("run"), _w.project_id == bindparam("owner"))
_WANT_UNTIL = now_ms() + int(WANTED_SECONDS * 1000)
_WANTED = (
    select(_w.project_id, _w.response_id, (now_ms() - _w.wanted_until).label("age"))
    .order_by(_w.wanted_until.desc())
    .limit(MOST_WANTED)
)
_CONFIRM = update(wanted_streams).where(*_THAT_STREAM).values(confirmed_until=now_ms() + int(CONFIRMED_SECONDS * 1000))
_CONFIRMED = select(_w.response_id).where(*_THAT_STREAM, _w.confirmed_until > now_ms())
_STALE_MS = 60_000
_FORGET = delete(wanted_streams).where(_w.wanted_until < now_ms() - _STALE_MS)


class _Fenced(msgspec.Struct, frozen=True):
    """The content of a row that a later owner wrote; of the first one it is the frames alone."""

    fence: int
    frames: tuple[bytes, ...]


class _Read(msgspec.Struct, frozen=True):
    """What a reader has got at once."""

    start: int
    """From which row to read on, by the number of its first frame."""
    next_size: int
    """How many rows to read next."""
    frames: tuple[bytes, ...] = ()
    final: bool = False
    """They are the last ones."""
    more: bool = False
    """There may be more at once."""
    expires_at: int = 0
    """Of the last row; 0: there was none."""


_CONTENT = msgspec.msgpack.Decoder(tuple[bytes, ...] | _Fenced)


class SqlEventLog:
    """The log of replicas that share a database and no Redis. `SqlResponseStore.purge` removes expired batches.

    It never raises LogLost: rows outlive the run.
    """

    patience_seconds = 5.0
    """Without the database no run can end, whoever waits. A busy one takes longer than Redis; what is shown without it
    is lost if the run's owner dies. Less than a lease, for which the run is surely the owner's.
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
        """`poll_seconds`: how often a reader polls. `lease_seconds`: a run that is silent for this long has lost its
        owner.

        `lifetime_seconds`: how long a batch is kept; at least the longest run plus the lease. Raises ValueError if less
        than the lease.
        """
        if lifetime_seconds < lease_seconds:
            raise ValueError("a batch must be kept for at least the lease")
        self._database = database
        self._poll = poll_seconds
        self._lease = lease_seconds
        self._lifetime = lifetime_seconds
        self._clock = clock
        self._closed = False
        self._want = _want(postgresql.insert if database.dialect == "postgresql" else sqlite.insert)

    async def append(self, project_id: str, response_id: str, batch: Batch) -> None:
        """Add the batch; committed when this returns. One insert, and more statements only if it is refused."""
        await append_one(self, project_id, response_id, batch)

    async def append_all(self, appends: Sequence[Append]) -> Sequence[Outcome]:
        """One group of the writer; more statements only for those that are refused."""
        errors = await self._database.writer.insert_each([self._row(one) for one in appends])
        return [error and await self._outcome(one, error) for one, error in zip(appends, errors, strict=True)]

    async def seal(self, project_id: str, response_id: str, fence: int) -> None:
        """Take the place at the end with an empty row, which the new owner's first append replaces."""
        with _log_errors():
            while True:
                rows = await self._database.fetch(_BATCHES, {"run": response_id, "owner": project_id, "start": 0})
                newest = max((_content(row).fence for row in rows), default=0)
                if newest > fence:
                    raise FencedOff(response_id, newest)
                seal = Batch(_end(rows[-1]) if rows else 0, (), fence=fence)
                if await self._take(Append(project_id, response_id, seal), rows[-1:]):
                    return

    async def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        """Frames above `after`, of some rows at a time."""
        run: dict[str, Any] = {"run": response_id, "owner": project_id}
        position = after + 1
        start = await self._number(_START, {**run, "wanted": position})
        size, newest, told = FIRST_READ, 0, time.monotonic()
        while start is not None and not self._closed:
            read = await self._next({**run, "start": start, "size": size}, position)
            start, size, newest = read.start, read.next_size, read.expires_at or newest
            position += len(read.frames)
            if read.frames or time.monotonic() - told > QUIET_SECONDS - self._poll:
                yield read.frames
                told = time.monotonic()
            if read.final or not (read.frames or self._is_owned(newest)):
                return
            if not read.more:
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

    async def want(self, project_id: str, response_id: str) -> None:
        """One row for each wanted stream."""
        await self._change(self._want, [{"run": response_id, "owner": project_id}])

    async def wanted(self) -> Sequence[tuple[str, str]]:
        """The rows whose time is not over; those whose time was over a while ago are removed."""
        with _log_errors():
            rows = await self._database.fetch(_WANTED)
        if any(row["age"] > _STALE_MS for row in rows):
            await self._change(_FORGET, [{}])
        return [(row["project_id"], row["response_id"]) for row in rows if row["age"] < 0]

    async def confirm(self, runs: Sequence[tuple[str, str]]) -> None:
        """In their rows."""
        await self._change(
            _CONFIRM, [{"run": response_id, "owner": project_id} for project_id, response_id in sorted(runs)]
        )

    async def confirmed(self, project_id: str, response_id: str) -> bool:
        """By its row."""
        with _log_errors():
            return bool(await self._database.fetch(_CONFIRMED, {"run": response_id, "owner": project_id}))

    async def _next(self, which: dict[str, Any], position: int) -> _Read:
        """Some rows, and the frames from `position` on that are in them."""
        with _log_errors():
            rows = await self._database.fetch(_NEXT, which)
        if not rows:
            return _Read(which["start"], which["size"])
        frames = joined(_batches(rows), position)
        return _Read(
            start=min(position + len(frames), _end(rows[-1])),
            next_size=next_read(len(rows), len(frames)),
            frames=frames,
            final=any(row["final"] for row in rows),
            more=len(rows) == which["size"] and len(frames) > 0,
            expires_at=rows[-1]["expires_at"],
        )

    async def _change(self, statement: Executable, parameters: Sequence[dict[str, Any]]) -> None:
        with _log_errors():
            async with self._database.transaction() as connection:
                await connection.execute(statement, parameters)

    def _row(self, append: Append) -> Row:
        batch = append.batch
        return event_batches, (
            append.response_id,
            batch.first,
            append.project_id,
            _encoded(batch),
            batch.final,
            self._expiry(),
        )

    def _expiry(self) -> int:
        return int(self._clock() + self._lifetime)

    async def _outcome(self, append: Append, refused: BaseException) -> Outcome:
        """The outcome of an append with this error.

        What its owner has appended before is not refused: only the rest is inserted.
        """
        error: BaseException | None = refused
        try:
            with _log_errors():
                while error is not None:
                    rest = await self._rest(append, error)
                    if rest is None:
                        return None
                    append = msgspec.structs.replace(append, batch=rest)
                    (error,) = await self._database.writer.insert_each([self._row(append)])
        except (FencedOff, EventLogUnavailable) as outcome:
            return outcome
        return None

    async def _rest(self, append: Append, error: BaseException) -> Batch | None:
        """What is left of a batch whose place is taken. Raises FencedOff, and any other error than that."""
        if not isinstance(error, RowRefused):
            raise error
        run = {"run": append.response_id, "owner": append.project_id}
        there = await self._database.fetch(_BATCHES, {**run, "start": append.batch.first})
        if not there:
            raise error
        found = [_content(row) for row in there]
        if found[-1].frames or found[-1].fence > append.batch.fence:
            return _rest(append.response_id, append.batch, found)
        return None if await self._take(append, there) else append.batch

    async def _take(self, append: Append, last: Sequence[RowMapping]) -> bool:
        """Write the batch where the last row ends, or in its place if that is a seal.

        False if somebody else was faster.
        """
        if not last or _content(last[-1]).frames:
            (error,) = await self._database.writer.insert_each([self._row(append)])
            if error is not None and not isinstance(error, RowRefused):
                raise error
            return error is None
        place = {
            "run": append.response_id,
            "owner": append.project_id,
            "first": append.batch.first,
            "seal": last[-1]["frames"],
        }
        changes = {"new": _encoded(append.batch), "ends": append.batch.final, "expiry": self._expiry()}
        async with self._database.transaction() as connection:
            return (await connection.execute(_REPLACE, {**place, **changes})).rowcount == 1

    def _is_owned(self, expires_at: int) -> bool:
        """Whether a batch with this expiry was added within the lease."""
        return expires_at - self._lifetime + self._lease > self._clock()

    async def _number(self, statement: Select[tuple[int]], parameters: dict[str, Any]) -> int | None:
        with _log_errors():
            rows = await self._database.fetch(statement, parameters)
        return rows[0]["number"] if rows else None


def _want(insert: Callable[[Table], postgresql.Insert | sqlite.Insert]) -> Executable:
    """Insert the row of a wanted stream, or prolong it."""
    row: dict[str, Any] = {
        "response_id": bindparam("run"),
        "project_id": bindparam("owner"),
        "wanted_until": _WANT_UNTIL,
        "confirmed_until": 0,
    }
    key = ["response_id", "project_id"]
    return (
        insert(wanted_streams).values(row).on_conflict_do_update(index_elements=key, set_={"wanted_until": _WANT_UNTIL})
    )


def _encoded(batch: Batch) -> bytes:
    return msgspec.msgpack.encode(batch.frames if batch.fence == 1 else _Fenced(batch.fence, batch.frames))


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
    """What of the batch is not in the row that its owner wrote in its place.

    Raises FencedOff if this or a later row is another's.
    """
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
