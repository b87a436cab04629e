"""A Redis cache in front of any store: it makes reads cheap for all replicas and is never required.

Nothing here is durable, and whatever Redis does affects only speed: the store behind it answers instead.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.stores.ports.responses import Lineage, ResponseRecord, ResponseStore, Turn

CONNECT_SECONDS = 1.0
"""To get a connection: many are opened at once at startup, when the process is busiest."""
TIMEOUT_SECONDS = 0.25
"""A cache that takes longer than this is slower than the database."""

CONNECTIONS = 16
"""A burst waits for one of these instead of opening hundreds, which would exceed the time limit."""

REST_SECONDS = 5.0
"""After a failure Redis is not used for this long, then one caller tries it."""

CACHE_SECONDS = 3600
"""The longest a record is cached: bounds how long a replica may see a record whose deletion could not be sent to
Redis.
"""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_RECORD = msgspec.msgpack.Decoder(ResponseRecord)


class RedisCachedStore:
    """Any store with a cache of its newest records in front."""

    def __init__(
        self,
        store: ResponseStore,
        url: str,
        *,
        connections: int = CONNECTIONS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`connections`: at most. `clock` (seconds) times the pause after a failure."""
        self.failures = 0
        """How often Redis has failed so far."""
        self._store = store
        self._clock = clock
        pool = BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] - its options are not annotated
            url,
            max_connections=connections,
            timeout=CONNECT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis.from_pool(pool)
        self._is_out = False
        self._rests_until = 0.0
        self._unforgotten: set[str] = set()

    @property
    def doubtful(self) -> bool:
        """The store's value."""
        return self._store.doubtful

    async def check(self) -> None:
        """The store's check."""
        await self._store.check()

    async def save(self, record: ResponseRecord) -> None:
        """Store the record, then cache it."""
        await self._store.save(record)
        seconds = min(record.expires_at - record.created_at, CACHE_SECONDS)
        if seconds > 0:
            cached = msgspec.msgpack.encode(msgspec.structs.replace(record, foreign_item_ids=(), turn=None))
            await self._ask(lambda: self._redis.set(_key(record.project_id, record.id), cached, ex=seconds))

    async def get(self, project_id: str, response_id: str, now: int) -> ResponseRecord | None:
        """The record from the cache, otherwise from the store.

        A record that was not cached when saved stays uncached: cached now, it could outlive its deletion.
        """
        cached = await self._ask(lambda: self._redis.get(_key(project_id, response_id)))
        record = _decoded(cached)
        if record is None:
            return await self._store.get(project_id, response_id, now)
        return record if record.expires_at > now else None

    async def chain(self, project_id: str, response_id: str, now: int) -> Sequence[Turn] | None:
        """From the store; one read there is as cheap as many here."""
        return await self._store.chain(project_id, response_id, now)

    async def lineage(self, project_id: str, response_id: str, now: int, newest: int) -> Lineage | None:
        """From the store."""
        return await self._store.lineage(project_id, response_id, now, newest)

    async def continuable(self, project_id: str, response_id: str, now: int) -> bool:
        """From the store: a cache does not know about deletions further up."""
        return await self._store.continuable(project_id, response_id, now)

    async def has_ended(self, project_id: str, response_id: str) -> bool:
        """From the store: the cache does not have what was deleted."""
        return await self._store.has_ended(project_id, response_id)

    async def locate_item(self, project_id: str, item_id: str, now: int) -> str | None:
        """From the store."""
        return await self._store.locate_item(project_id, item_id, now)

    async def delete(self, project_id: str, response_id: str, now: int) -> bool:
        """Delete in the cache, in the store, and in the cache again, in case of a save between the two.

        While Redis is unavailable, the key is remembered and deleted first when it is back.
        """
        key = _key(project_id, response_id)
        await self._ask(lambda: self._redis.delete(key))
        deleted = await self._store.delete(project_id, response_id, now)
        if deleted and await self._ask(lambda: self._redis.delete(key)) is None:
            self._unforgotten.add(key)
        return deleted

    async def purge(self, now: int, limit: int) -> int:
        """Done by the store; cached records expire by themselves."""
        return await self._store.purge(now, limit)

    async def count_expired(self, now: int) -> int:
        """From the store."""
        return await self._store.count_expired(now)

    async def aclose(self) -> None:
        """Close the connections to Redis; the store behind stays open."""
        await self._redis.aclose()

    async def _ask(self, command: Callable[[], Awaitable[_T]]) -> _T | None:
        """Redis' reply; None if it failed or is not being used after a failure."""
        now = self._clock()
        if now < self._rests_until:
            return None
        if self._is_out:
            # one caller finds out whether it is back; the others continue without it
            self._rests_until = now + REST_SECONDS
        try:
            if self._unforgotten:
                await self._redis.delete(*self._unforgotten)
                self._unforgotten.clear()
            answer = await command()
        except (RedisError, OSError) as error:
            self._note(error)
            return None
        if self._is_out:
            self._is_out, self._rests_until = False, 0.0
            _log.warning("Redis is available again")
        return answer

    def _note(self, error: Exception) -> None:
        self.failures += 1
        self._rests_until = self._clock() + REST_SECONDS
        if not self._is_out:
            self._is_out = True
            _log.warning("Redis failed, the database is used instead: %s: %s", type(error).__name__, error)


def _key(project_id: str, response_id: str) -> str:
    return f"gw:resp:{project_id}:{response_id}"


def _decoded(cached: object) -> ResponseRecord | None:
    if not isinstance(cached, bytes):
        return None
    try:
        return _RECORD.decode(cached)
    except msgspec.DecodeError:  # written by another version of the gateway
        return None
