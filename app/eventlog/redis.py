"""Live runs in Redis Streams: one entry per batch; readers on any replica block until there is more.

An entry's id is the sequence number of its last frame plus one (Redis has no id 0). So "after this frame" is an id, and an
append that is repeated because its reply was lost is rejected by Redis itself.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError, ResponseError

from app.eventlog.base import Batch, EventLogUnavailable

BLOCK_SECONDS = 1.0
"""How long a reader blocks in Redis before it checks whether the run still exists."""

TIMEOUT_SECONDS = 2.0
CONNECTIONS = 16

_FRAMES = msgspec.msgpack.Decoder(tuple[bytes, ...])

_Entry = tuple[bytes, dict[bytes, bytes]]


class RedisEventLog:
    """The log of replicas that share a Redis. Entries expire if a run is silent for the lease, finished or not."""

    def __init__(self, url: str, *, connections: int = CONNECTIONS, lease_seconds: float = 180) -> None:
        """`connections`: at most, for writing. `lease_seconds`: a run that is silent for this long has lost its owner."""
        self._lease_ms = math.ceil(lease_seconds * 1000)
        self._writing = _connect(
            url, BlockingConnectionPool, TIMEOUT_SECONDS, retries=3, max_connections=connections, timeout=TIMEOUT_SECONDS
        )
        # Blocking reads need their own connections; they retry, about once a second, for as long as a run may be silent.
        self._reading = _connect(url, ConnectionPool, BLOCK_SECONDS + TIMEOUT_SECONDS, retries=math.ceil(lease_seconds))
        self._closed = False

    async def append(self, project_id: str, response_id: str, batch: Batch) -> None:
        """Add the batch and renew the lease, in one round trip."""
        key = _key(project_id, response_id)
        fields: dict[str, bytes] = {"frames": msgspec.msgpack.encode(batch.frames)}
        if batch.final:
            fields["final"] = b"1"
        with _log_errors():
            pipeline: Any = self._writing.pipeline(transaction=False)
            pipeline.xadd(key, fields, id=f"{batch.first + len(batch.frames)}-0")
            pipeline.pexpire(key, self._lease_ms)
            added, _ = await pipeline.execute(raise_on_error=False)
            if isinstance(added, Exception) and not _is_repeated(added):
                raise added

    async def read(self, project_id: str, response_id: str, after: int = -1) -> AsyncGenerator[tuple[bytes, ...]]:
        """Frames above `after`, one batch at a time."""
        key = _key(project_id, response_id)
        position = after + 1
        while not await self._is_over(key, position):
            while entries := await self._next(key, position):
                for entry in entries:
                    frames = _FRAMES.decode(entry[1][b"frames"])
                    fresh = frames[max(position - _end(entry) + len(frames), 0) :]
                    position += len(fresh)
                    yield fresh
                    if b"final" in entry[1]:
                        return

    async def exists(self, project_id: str, response_id: str) -> bool:
        """Whether the run has entries."""
        with _log_errors():
            return bool(await self._writing.exists(_key(project_id, response_id)))

    async def erase(self, project_id: str, response_id: str) -> None:
        """Delete the run's entries."""
        with _log_errors():
            await self._writing.delete(_key(project_id, response_id))

    async def aclose(self) -> None:
        """Close the connections; readers end within `BLOCK_SECONDS`."""
        self._closed = True
        await self._writing.aclose()
        await self._reading.aclose()

    async def _is_over(self, key: str, position: int) -> bool:
        """Whether nothing more can appear at `position`: the run is unknown, or ended before it."""
        with _log_errors():
            entries = cast("Sequence[_Entry]", await self._reading.xrevrange(key, count=1))
        return self._closed or not entries or (b"final" in entries[0][1] and _end(entries[0]) <= position)

    async def _next(self, key: str, position: int) -> Sequence[_Entry]:
        """Entries with frames from `position` on; blocks for a while, then returns none."""
        with _log_errors():
            streams = await self._reading.xread({key: f"{position}-0"}, block=int(BLOCK_SECONDS * 1000))
        return cast("Sequence[tuple[bytes, Sequence[_Entry]]]", streams)[0][1] if streams else ()


def _connect(url: str, pool: type[ConnectionPool], seconds: float, *, retries: int, **limits: float) -> Redis:
    connections = pool.from_url(  # pyright: ignore[reportUnknownMemberType] - its options are not annotated
        url,
        protocol=2,
        socket_timeout=seconds,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(ExponentialBackoff(cap=1, base=0.05), retries),
        **limits,
    )
    return Redis.from_pool(connections)


def _key(project_id: str, response_id: str) -> str:
    return f"gw:log:{project_id}:{response_id}"


def _end(entry: _Entry) -> int:
    """The sequence number after the entry's last frame."""
    return int(entry[0].partition(b"-")[0])


def _is_repeated(error: Exception) -> bool:
    return isinstance(error, ResponseError) and "equal or smaller" in str(error)


@contextmanager
def _log_errors() -> Generator[None]:
    """Convert Redis' errors to the port's."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise EventLogUnavailable(f"{type(error).__name__}: {error}") from error
