"""A Redis that dies, hangs and comes back costs speed, never data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator

import pytest

from app.db.engine import Database
from app.stores.redis import REST_SECONDS, RedisCachedStore
from app.stores.sql import SqlResponseStore
from tests.stores.records import LIFE, PROJECT, turn
from tests.support.services import Valkey


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Generator[Valkey]:
    """A Valkey of this test's own, to be mistreated."""
    with Valkey() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    """The time by which Redis rests after a failure."""
    return Clock()


@pytest.fixture
async def plain(sqlite_url: str) -> AsyncGenerator[SqlResponseStore]:
    """The store behind the cache."""
    database = Database(sqlite_url)
    yield SqlResponseStore(database, retention_seconds=LIFE)
    await database.aclose()


@pytest.fixture
async def store(plain: SqlResponseStore, server: Valkey, clock: Clock) -> AsyncGenerator[RedisCachedStore]:
    """The cached store."""
    cached = RedisCachedStore(plain, server.url, clock=clock)
    yield cached
    await cached.aclose()


async def test_reads_come_from_the_cache(store: RedisCachedStore, plain: SqlResponseStore) -> None:
    record = turn("cached")
    await store.save(record)
    assert await plain.delete(PROJECT, record.id, now=1)  # behind the cache's back
    assert await store.get(PROJECT, record.id, now=1) == record
    assert await store.get("project-b", record.id, now=1) is None
    assert await store.get(PROJECT, record.id, now=LIFE) is None


async def test_everything_works_without_redis(
    store: RedisCachedStore, plain: SqlResponseStore, server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    before = turn("before")
    await store.save(before)
    records = [turn(str(number), after=before) for number in range(50)]
    saving = asyncio.gather(*(store.save(record) for record in records))
    await asyncio.sleep(0)
    server.crash()  # with saves under way
    await saving
    with caplog.at_level(logging.WARNING):
        await asyncio.gather(*(store.get(PROJECT, record.id, now=1) for record in records))
    for record in [before, *records]:
        assert await store.get(PROJECT, record.id, now=1) == record
        assert await plain.get(PROJECT, record.id, now=1) == record
    assert len(await store.chain(PROJECT, records[0].id, now=1) or ()) == 2
    assert store.failures > 0
    assert await store.delete(PROJECT, before.id, now=1)
    assert await store.get(PROJECT, before.id, now=1) is None
    assert sum("Redis fails" in message for message in caplog.messages) <= 1


async def test_a_failed_redis_is_left_alone_for_a_while(
    store: RedisCachedStore, server: Valkey, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server.crash()
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            await store.save(turn("uncached"))
        assert store.failures == 1
        clock.now += REST_SECONDS
        await asyncio.gather(*(store.save(turn("uncached")) for _ in range(10)))
        assert store.failures == 2
        server.start()
        clock.now += REST_SECONDS
        await store.save(turn("cached"))
        await store.save(turn("cached"))
        assert store.failures == 2
    assert [message.partition(",")[0] for message in caplog.messages] == ["Redis failed", "Redis is available again"]


async def test_a_deletion_during_the_outage_reaches_redis_before_any_read(
    store: RedisCachedStore, server: Valkey, clock: Clock
) -> None:
    record = turn("regretted")
    await store.save(record)
    server.pause()
    assert await store.get(PROJECT, record.id, now=1) == record  # Redis fails and is left alone
    server.resume()
    assert await store.delete(PROJECT, record.id, now=1)
    assert await store.get(PROJECT, record.id, now=1) is None
    clock.now += REST_SECONDS
    assert await store.get(PROJECT, record.id, now=1) is None


async def test_a_hanging_redis_delays_no_one_for_long(store: RedisCachedStore, server: Valkey) -> None:
    server.pause()
    record = turn("patient")
    async with asyncio.timeout(20):
        await asyncio.gather(store.save(record), *(store.save(turn(str(number))) for number in range(50)))
    assert await store.get(PROJECT, record.id, now=1) == record
    server.resume()
