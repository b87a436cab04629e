"""A cache in Redis before any store: it makes reads cheap for all replicas and is never needed.

Nothing here is durable, and whatever Redis does costs speed at most: the store behind answers instead.
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

from app.stores.ports.responses import ResponseRecord, ResponseStore, Turn

CONNECT_SECONDS = 1.0
"""To get a connection: many are opened at once at the start, when the process has most to do."""
TIMEOUT_SECONDS = 0.25
"""A cache that takes longer than this is slower than the database."""

CONNECTIONS = 16
"""A burst waits for one of these rather than opening hundreds, which takes longer than the time limit."""

REST_SECONDS = 5.0
"""After a failure Redis is left alone this long, then asked by one caller."""

CACHE_SECONDS = 3600
"""The longest a record is cached: bounds what a replica sees of a record whose deletion could not be told to Redis."""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_RECORD = msgspec.msgpack.Decoder(ResponseRecord)


class RedisCachedStore:
    """Any store with a cache of its newest records before it."""

    def __init__(
        self, store: ResponseStore, url: str, *, connections: int = CONNECTIONS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`connections`: at most. `clock` (seconds) times the rest after a failure."""
        self.failures = 0
        """How often Redis failed so far."""
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
        """The store's answer."""
        return self._store.doubtful

    async def check(self) -> None:
        """The store's answer."""
        await self._store.check()

    async def save(self, record: ResponseRecord) -> None:
        """Keep the record in the store, then in the cache."""
        await self._store.save(record)
        seconds = min(record.expires_at - record.created_at, CACHE_SECONDS)
        if seconds > 0:
            cached = msgspec.msgpack.encode(msgspec.structs.replace(record, foreign_item_ids=()))
            await self._ask(lambda: self._redis.set(_key(record.project_id, record.id), cached, ex=seconds))

    async def get(self, project_id: str, response_id: str, now: int) -> ResponseRecord | None:
        """The record from the cache, else from the store.

        A record that was not cached when it was saved stays uncached: put there now, it could outlive its deletion.
        """
        cached = await self._ask(lambda: self._redis.get(_key(project_id, response_id)))
        record = _decoded(cached)
        if record is None:
            return await self._store.get(project_id, response_id, now)
        return record if record.expires_at > now else None

    async def chain(self, project_id: str, response_id: str, now: int) -> Sequence[Turn] | None:
        """The store's answer; one read there is as cheap as many here."""
        return await self._store.chain(project_id, response_id, now)

    async def continuable(self, project_id: str, response_id: str, now: int) -> bool:
        """The store's answer: no cache knows of a deletion further up."""
        return await self._store.continuable(project_id, response_id, now)

    async def locate_item(self, project_id: str, item_id: str, now: int) -> str | None:
        """The store's answer."""
        return await self._store.locate_item(project_id, item_id, now)

    async def delete(self, project_id: str, response_id: str, now: int) -> bool:
        """Delete in the cache, in the store, and in the cache again, for a save that was between the two.

        While Redis cannot be told, the key is remembered and is the first thing it hears when it is back.
        """
        key = _key(project_id, response_id)
        await self._ask(lambda: self._redis.delete(key))
        deleted = await self._store.delete(project_id, response_id, now)
        if deleted and await self._ask(lambda: self._redis.delete(key)) is None:
            self._unforgotten.add(key)
        return deleted

    async def purge(self, now: int, limit: int) -> int:
        """The store's work; cached records expire by themselves."""
        return await self._store.purge(now, limit)

    async def count_expired(self, now: int) -> int:
        """The store's answer."""
        return await self._store.count_expired(now)

    async def aclose(self) -> None:
        """Close the connections to Redis; the store behind stays open."""
        await self._redis.aclose()

    async def _ask(self, command: Callable[[], Awaitable[_T]]) -> _T | None:
        """Redis' answer; None when it failed or rests."""
        now = self._clock()
        if now < self._rests_until:
            return None
        if self._is_out:
            self._rests_until = now + REST_SECONDS  # one caller finds out whether it is back; the others go on without
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
            _log.warning("Redis answers again")
        return answer

    def _note(self, error: Exception) -> None:
        self.failures += 1
        self._rests_until = self._clock() + REST_SECONDS
        if not self._is_out:
            self._is_out = True
            _log.warning("Redis fails, the database answers instead: %s: %s", type(error).__name__, error)


def _key(project_id: str, response_id: str) -> str:
    return f"gw:resp:{project_id}:{response_id}"


def _decoded(cached: object) -> ResponseRecord | None:
    if not isinstance(cached, bytes):
        return None
    try:
        return _RECORD.decode(cached)
    except msgspec.DecodeError:  # another version of the gateway wrote it
        return None
