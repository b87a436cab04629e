"""Live runs in Redis Streams: one entry per batch; readers on any replica block until there is more.

An entry's id is `FENCE-END`: the owner's fence, and the number after the batch's last frame. Redis orders ids as pairs
and refuses one that is not greater than the newest. So it refuses every append of an older fence, and one that is
repeated because its reply was lost. A seal is the entry `FENCE-0`, without frames.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import msgspec
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError, ResponseError

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
    LogLost,
    Outcome,
    append_one,
    joined,
    next_read,
)

BLOCK_SECONDS = QUIET_SECONDS * 0.9
"""How long a reader blocks in Redis.

Then it checks whether the run still exists, within what is left of `QUIET_SECONDS`.
"""

TIMEOUT_SECONDS = 2.0
"""How long a call may take altogether, or take longer than it blocks."""

CONNECTIONS = 16
RETRIES = 5

_RENEWAL = 0.1
"""The share of a lease after which it is renewed."""
_WANTED = "gw:wanted"

_FRAMES = msgspec.msgpack.Decoder(tuple[bytes, ...])

_Entry = tuple[bytes, dict[bytes, bytes]]


class RedisEventLog:
    """The log of replicas that share a Redis. Entries expire if a run is silent for the lease, finished or not."""

    patience_seconds = 1.0
    """Redis is not needed for anything else: nobody should notice that it is away."""

    def __init__(
        self,
        url: str,
        *,
        connections: int = CONNECTIONS,
        lease_seconds: float = 180,
        ended_seconds: float | None = None,
    ) -> None:
        """`connections`: at most, for writing. `lease_seconds`: a run that is silent for this long has lost its owner.

        `ended_seconds`: how long a run is kept after its final batch, when the record replays it; None: as long as the
        lease.
        """
        self._lease_ms = math.ceil(lease_seconds * 1000)
        self._ended_ms = self._lease_ms if ended_seconds is None else math.ceil(ended_seconds * 1000)
        self._writing = _connect(url, BlockingConnectionPool, max_connections=connections, timeout=TIMEOUT_SECONDS)
        # Blocking reads need their own connections.
        self._reading = _connect(url, ConnectionPool)
        self._closed = False
        self._renewed: set[str] = set()
        """Streams whose lease need not be renewed until `_renewed_until`."""
        self._renewed_until = 0.0

    async def append(self, project_id: str, response_id: str, batch: Batch) -> None:
        """Add the batch, in one round trip unless it is refused or final."""
        await append_one(self, project_id, response_id, batch)

    async def append_all(self, appends: Sequence[Append]) -> Sequence[Outcome]:
        """Add the batches, in one round trip.

        One more for those that are refused, and one if ended runs have their own lifetime.
        """
        entries = [_New.of(one) for one in appends]
        try:
            async with _limited(TIMEOUT_SECONDS):
                outcomes = await self._add(entries)
                await self._shorten(
                    [new.key for new, outcome in zip(entries, outcomes, strict=True) if new.final and outcome is None]
                )
        except EventLogUnavailable as error:
            return [error] * len(appends)
        return outcomes

    async def seal(self, project_id: str, response_id: str, fence: int) -> None:
        """Add an entry without frames, after which Redis refuses those of older fences, even of owners that have not
        appended yet.
        """
        async with _limited(TIMEOUT_SECONDS):
            (outcome,) = await self._add([_New(_key(project_id, response_id), fence, 0, (b"seal", b"1"))])
        if outcome is not None:
            raise outcome

    async def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        """Frames above `after`, of some entries at a time."""
        key = _key(project_id, response_id)
        position = after + 1
        # what the first owner wrote before `position` is not read; of later ones, all is
        newest, size = f"1-{position}".encode(), FIRST_READ
        while not await self._is_over(key, position):
            while (read := await self._next(key, newest, position, size)) is not None:
                newest, size = read.newest, read.next_size
                position += len(read.frames)
                yield read.frames
                if read.final:
                    return
            yield ()

    async def frames(self, project_id: str, response_id: str) -> Sequence[bytes]:
        """The frames of all entries."""
        async with _limited(TIMEOUT_SECONDS):
            entries = cast("Sequence[_Entry]", await self._writing.xrange(_key(project_id, response_id)))
        return joined(_batches(entries), 0)

    async def exists(self, project_id: str, response_id: str) -> bool:
        """Whether the run has entries."""
        async with _limited(TIMEOUT_SECONDS):
            return bool(await self._writing.exists(_key(project_id, response_id)))

    async def erase(self, project_id: str, response_id: str) -> None:
        """Delete the run's entries."""
        async with _limited(TIMEOUT_SECONDS):
            await self._writing.delete(_key(project_id, response_id))

    async def aclose(self) -> None:
        """Close the connections; readers end within `BLOCK_SECONDS`."""
        self._closed = True
        await self._writing.aclose()
        await self._reading.aclose()

    async def want(self, project_id: str, response_id: str) -> None:
        """Add it to the one set of wanted streams, with its time by Redis' clock, and remove those that are too old or
        too many.
        """
        async with _limited(TIMEOUT_SECONDS):
            redis: Any = self._writing
            now = _seconds(await redis.time())
            pipeline = redis.pipeline(transaction=False)
            pipeline.zadd(_WANTED, {f"{project_id}:{response_id}": now + WANTED_SECONDS})
            pipeline.zremrangebyscore(_WANTED, 0, now)
            pipeline.zremrangebyrank(_WANTED, 0, -MOST_WANTED - 1)
            pipeline.pexpire(_WANTED, int(WANTED_SECONDS * 1000))
            await pipeline.execute()

    async def wanted(self) -> Sequence[tuple[str, str]]:
        """The set, in one round trip."""
        async with _limited(TIMEOUT_SECONDS):
            pipeline: Any = self._writing.pipeline(transaction=False)
            pipeline.time()
            pipeline.zrange(_WANTED, 0, MOST_WANTED - 1, desc=True, withscores=True)
            now, members = await pipeline.execute()
        names = [member.decode().rpartition(":") for member, until in members if until > _seconds(now)]
        return [(project_id, response_id) for project_id, _, response_id in names]

    async def confirm(self, runs: Sequence[tuple[str, str]]) -> None:
        """One key each, that expires."""
        async with _limited(TIMEOUT_SECONDS):
            pipeline: Any = self._writing.pipeline(transaction=False)
            for run in runs:
                pipeline.set(_live_key(*run), b"1", px=int(CONFIRMED_SECONDS * 1000))
            await pipeline.execute()

    async def confirmed(self, project_id: str, response_id: str) -> bool:
        """Whether there is that key."""
        async with _limited(TIMEOUT_SECONDS):
            return bool(await self._writing.exists(_live_key(project_id, response_id)))

    async def _add(self, entries: Sequence[_New]) -> list[Outcome]:
        """Add each entry, once, and renew the leases."""
        pipeline: Any = self._writing.pipeline(transaction=False)
        for new in entries:
            pipeline.execute_command("XADD", new.key, *(() if new.creates else (b"NOMKSTREAM",)), new.id, *new.fields)
        self._renew(pipeline, entries)
        replies = await pipeline.execute(raise_on_error=False)
        return [
            None if isinstance(reply, bytes) else await self._outcome(new, reply)
            for new, reply in zip(entries, replies, strict=False)
        ]

    def _renew(self, pipeline: Any, entries: Sequence[_New]) -> None:
        """Renew the lease of a stream that may be new, and of others a few times in its course: a command each time
        would cost as much as the entry.
        """
        now = time.monotonic()
        if now > self._renewed_until:
            self._renewed.clear()
            self._renewed_until = now + self._lease_ms / 1000 * _RENEWAL
        for new in entries:
            if new.creates or new.key not in self._renewed:
                self._renewed.add(new.key)
                pipeline.execute_command("PEXPIRE", new.key, self._lease_ms)

    async def _shorten(self, keys: Sequence[str]) -> None:
        """Let ended runs expire at their time."""
        if keys and self._ended_ms != self._lease_ms:
            pipeline: Any = self._writing.pipeline(transaction=False)
            for key in keys:
                pipeline.execute_command("PEXPIRE", key, self._ended_ms)
            await pipeline.execute()

    async def _outcome(self, new: _New, reply: object) -> Outcome:
        """What became of an entry that was not added: Redis may have it already, or one of a later owner."""
        if reply is None:
            return LogLost(f"{new.key} is gone")
        if not _is_refused(reply):
            return EventLogUnavailable(f"{type(reply).__name__}: {reply}")
        pipeline: Any = self._writing.pipeline(transaction=False)
        pipeline.xrevrange(new.key, count=1)
        pipeline.xrange(new.key, new.id, new.id)
        top, same = await pipeline.execute()
        if top and (not same or _id(top[0])[0] > new.fence):
            return FencedOff(new.key, _id(top[0])[0])
        return None if top else LogLost(f"{new.key} is gone")

    async def _is_over(self, key: str, position: int) -> bool:
        """Whether nothing more can appear at `position`: the run is unknown, or ended before it."""
        async with _limited(TIMEOUT_SECONDS):
            entries = cast("Sequence[_Entry]", await self._reading.xrevrange(key, count=1))
        return self._closed or not entries or (b"final" in entries[0][1] and _id(entries[0])[1] <= position)

    async def _next(self, key: str, newest: bytes, position: int, size: int) -> _Read | None:
        """At most `size` entries after the `newest` known one; blocks for a while, then returns None."""
        async with _limited(BLOCK_SECONDS + TIMEOUT_SECONDS):
            streams = await self._reading.xread({key: newest}, count=size, block=int(BLOCK_SECONDS * 1000))
        if not streams:
            return None
        entries = cast("Sequence[tuple[bytes, Sequence[_Entry]]]", streams)[0][1]
        frames = joined(_batches(entries), position)
        final = any(b"final" in fields for _, fields in entries)
        return _Read(entries[-1][0], frames, final, next_read(len(entries), len(frames)))


def _connect(url: str, pool: type[ConnectionPool], **limits: float) -> Redis:
    """Connections without a time limit for each reply, which would cost as much as the reply: whole calls have one."""
    connections = pool.from_url(  # pyright: ignore[reportUnknownMemberType] - its options are not annotated
        url,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(ExponentialBackoff(cap=1, base=0.05), RETRIES),
        **limits,
    )
    return Redis.from_pool(connections)


class _Read(NamedTuple):
    """What a reader has got at once."""

    newest: bytes
    """Id of the last entry."""
    frames: tuple[bytes, ...]
    final: bool
    """They are the last ones."""
    next_size: int
    """How many entries to read next."""


class _New(NamedTuple):
    """An entry to be added."""

    key: str
    fence: int
    end: int
    fields: tuple[bytes, ...]
    creates: bool = True
    """It may be the stream's first one."""
    final: bool = False

    @classmethod
    def of(cls, append: Append) -> _New:
        batch = append.batch
        fields = (b"frames", msgspec.msgpack.encode(batch.frames), *((b"final", b"1") if batch.final else ()))
        key = _key(append.project_id, append.response_id)
        return cls(
            key, batch.fence, batch.first + len(batch.frames), fields, creates=batch.first == 0, final=batch.final
        )

    @property
    def id(self) -> str:
        return f"{self.fence}-{self.end}"


def _key(project_id: str, response_id: str) -> str:
    return f"gw:frames:{project_id}:{response_id}"


def _live_key(project_id: str, response_id: str) -> str:
    return f"gw:live:{project_id}:{response_id}"


def _seconds(time: tuple[int, int]) -> float:
    """Redis' time, which is in seconds and microseconds."""
    return time[0] + time[1] / 1_000_000


def _id(entry: _Entry) -> tuple[int, int]:
    """The fence of the entry's owner, and the sequence number after its last frame."""
    fence, _, end = entry[0].partition(b"-")
    return int(fence), int(end)


def _batches(entries: Iterable[_Entry]) -> Iterable[tuple[int, tuple[bytes, ...]]]:
    """First number and frames of every entry that is not a seal."""
    for entry in entries:
        if b"frames" in entry[1]:
            frames = _FRAMES.decode(entry[1][b"frames"])
            yield _id(entry)[1] - len(frames), frames


def _is_refused(error: object) -> bool:
    return isinstance(error, ResponseError) and "equal or smaller" in str(error)


@asynccontextmanager
async def _limited(seconds: float) -> AsyncGenerator[None]:
    """Convert Redis' errors to the port's; so is a server that hangs, however often the client tries again."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (RedisError, OSError) as error:
        raise EventLogUnavailable(f"{type(error).__name__}: {error}") from error
