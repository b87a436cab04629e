"""Live runs in Redis Streams: one entry per batch; readers on any replica block until there is more.

An entry's id is `FENCE-END`: the owner's fence, and the number after the batch's last frame. Redis orders ids as pairs and
refuses one that is not greater than the newest. So it refuses every append of an older fence, and one that is repeated
because its reply was lost. A seal is the entry `FENCE-0`, without frames.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError, ResponseError

from app.eventlog.base import QUIET_SECONDS, Batch, EventLogUnavailable, FencedOff, LogLost, joined

BLOCK_SECONDS = QUIET_SECONDS * 0.9
"""How long a reader blocks in Redis; then it checks whether the run still exists, within what is left of `QUIET_SECONDS`."""

TIMEOUT_SECONDS = 2.0
"""How long a call may take altogether, or take longer than it blocks."""

CONNECTIONS = 16
RETRIES = 5

_FRAMES = msgspec.msgpack.Decoder(tuple[bytes, ...])

_Entry = tuple[bytes, dict[bytes, bytes]]


class RedisEventLog:
    """The log of replicas that share a Redis. Entries expire if a run is silent for the lease, finished or not."""

    def __init__(self, url: str, *, connections: int = CONNECTIONS, lease_seconds: float = 180, ended_seconds: float | None = None) -> None:
        """`connections`: at most, for writing. `lease_seconds`: a run that is silent for this long has lost its owner.

        `ended_seconds`: how long a run is kept after its final batch, when the record replays it; None: as long as the lease.
        """
        self._lease_ms = math.ceil(lease_seconds * 1000)
        self._ended_ms = self._lease_ms if ended_seconds is None else math.ceil(ended_seconds * 1000)
        self._writing = _connect(url, BlockingConnectionPool, TIMEOUT_SECONDS, max_connections=connections, timeout=TIMEOUT_SECONDS)
        # Blocking reads need their own connections.
        self._reading = _connect(url, ConnectionPool, BLOCK_SECONDS + TIMEOUT_SECONDS)
        self._closed = False

    async def append(self, project_id: str, response_id: str, batch: Batch) -> None:
        """Add the batch and renew the lease, in one round trip; the final one takes two if an ended run has its own lifetime."""
        key = _key(project_id, response_id)
        fields: dict[str, bytes] = {"frames": msgspec.msgpack.encode(batch.frames)}
        if batch.final:
            fields["final"] = b"1"
        if not await self._add(key, batch.fence, batch.first + len(batch.frames), fields, create=batch.first == 0):
            raise LogLost(f"the log of response {response_id} is gone")
        if batch.final and self._ended_ms != self._lease_ms:
            async with _limited(TIMEOUT_SECONDS):
                await self._writing.pexpire(key, self._ended_ms)

    async def seal(self, project_id: str, response_id: str, fence: int) -> None:
        """Add an entry without frames, after which Redis refuses those of older fences; nothing if there is no stream."""
        await self._add(_key(project_id, response_id), fence, 0, {"seal": b"1"}, create=False)

    async def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        """Frames above `after`, as many at a time as there are."""
        key = _key(project_id, response_id)
        position = after + 1
        newest = f"1-{position}".encode()  # what the first owner wrote before `position` is not read; of later ones, all is
        while not await self._is_over(key, position):
            while entries := await self._next(key, newest):
                newest = entries[-1][0]
                fresh = joined(_batches(entries), position)
                position += len(fresh)
                yield fresh
                if any(b"final" in fields for _, fields in entries):
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

    async def _add(self, key: str, fence: int, end: int, fields: dict[str, bytes], *, create: bool) -> bool:
        """Add the entry, once, and renew the lease. False: there is no stream, and it may not be created. Raises FencedOff."""
        entry = f"{fence}-{end}"
        async with _limited(TIMEOUT_SECONDS):
            pipeline: Any = self._writing.pipeline(transaction=False)
            pipeline.xadd(key, fields, id=entry, nomkstream=not create)
            pipeline.pexpire(key, self._lease_ms)
            added, _ = await pipeline.execute(raise_on_error=False)
            if not isinstance(added, Exception):
                return added is not None
            if not _is_refused(added):
                raise added
            pipeline.xrevrange(key, count=1)
            pipeline.xrange(key, entry, entry)
            top, same = await pipeline.execute()
        if top and (not same or _id(top[0])[0] > fence):
            raise FencedOff(key, _id(top[0])[0])
        return bool(top)

    async def _is_over(self, key: str, position: int) -> bool:
        """Whether nothing more can appear at `position`: the run is unknown, or ended before it."""
        async with _limited(TIMEOUT_SECONDS):
            entries = cast("Sequence[_Entry]", await self._reading.xrevrange(key, count=1))
        return self._closed or not entries or (b"final" in entries[0][1] and _id(entries[0])[1] <= position)

    async def _next(self, key: str, newest: bytes) -> Sequence[_Entry]:
        """The entries after the `newest` known one; blocks for a while, then returns none."""
        async with _limited(BLOCK_SECONDS + TIMEOUT_SECONDS):
            streams = await self._reading.xread({key: newest}, block=int(BLOCK_SECONDS * 1000))
        return cast("Sequence[tuple[bytes, Sequence[_Entry]]]", streams)[0][1] if streams else ()


def _connect(url: str, pool: type[ConnectionPool], seconds: float, **limits: float) -> Redis:
    connections = pool.from_url(  # pyright: ignore[reportUnknownMemberType] - its options are not annotated
        url,
        protocol=2,
        socket_timeout=seconds,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(ExponentialBackoff(cap=1, base=0.05), RETRIES),
        **limits,
    )
    return Redis.from_pool(connections)


def _key(project_id: str, response_id: str) -> str:
    return f"gw:frames:{project_id}:{response_id}"


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


def _is_refused(error: Exception) -> bool:
    return isinstance(error, ResponseError) and "equal or smaller" in str(error)


@asynccontextmanager
async def _limited(seconds: float) -> AsyncGenerator[None]:
    """Convert Redis' errors to the port's; so is a server that hangs, however often the client tries again."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (RedisError, OSError) as error:
        raise EventLogUnavailable(f"{type(error).__name__}: {error}") from error
