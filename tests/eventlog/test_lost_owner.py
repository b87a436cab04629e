"""Runs whose process died: readers on other replicas end instead of waiting for ever."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from app.db.engine import Database
from app.eventlog.base import Batch, EventLogUnavailable
from app.eventlog.redis import RedisEventLog
from app.eventlog.sql import SqlEventLog
from app.stores.sql import SqlResponseStore
from tests.stores.records import PROJECT, turn
from tests.support.services import Valkey

RUN = "6f1c1b52-7d0f-4a6e-9f0a-000000000001"


class Clock:
    """A time that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def test_a_reader_of_a_silent_run_in_the_database_ends_after_the_lease(database: Database) -> None:
    clock = Clock(1000)
    log = SqlEventLog(database, poll_seconds=0.01, lease_seconds=60, lifetime_seconds=600, clock=clock)
    await log.append("p", RUN, Batch(0, (b"a",)))
    async with aclosing(log.read("p", RUN)) as reader:
        assert await anext(reader) == (b"a",)
        clock.now += 30
        await log.append("p", RUN, Batch(1, (b"b",)))
        clock.now += 59
        assert await anext(reader) == (b"b",)
        assert await log.exists("p", RUN)
        clock.now += 2
        assert await anext(reader, None) is None
    assert not await log.exists("p", RUN)


async def test_expired_batches_are_purged_with_the_responses(database: Database) -> None:
    clock = Clock(1000)
    log = SqlEventLog(database, lifetime_seconds=600, clock=clock)
    store = SqlResponseStore(database, retention_seconds=600)
    await log.append("p", RUN, Batch(0, (b"a",), final=True))
    for now, left in ((1599, True), (1600, False)):
        await store.purge(now, limit=10)
        assert await log.exists("p", RUN) is left


async def test_deleting_a_response_erases_its_frames(database: Database) -> None:
    log = SqlEventLog(database)
    store = SqlResponseStore(database, retention_seconds=600)
    record = turn("regretted")
    await store.save(record)
    await log.append(PROJECT, record.id, Batch(0, (b"regretted",), final=True))
    await store.delete(PROJECT, record.id, now=1)
    assert not await log.exists(PROJECT, record.id)


async def test_a_reader_of_a_silent_run_in_redis_ends_after_the_lease(redis_url: str) -> None:
    log = RedisEventLog(redis_url, lease_seconds=0.2)
    await log.append("p", RUN, Batch(0, (b"a",)))
    async with aclosing(log.read("p", RUN)) as reader:
        assert await anext(reader) == (b"a",)
        assert await anext(reader, None) is None
    assert not await log.exists("p", RUN)
    await log.aclose()


async def test_an_append_that_was_sent_twice_is_there_once(redis_url: str) -> None:
    log = RedisEventLog(redis_url)
    await log.append("p", RUN, Batch(0, (b"a", b"b")))
    await log.append("p", RUN, Batch(0, (b"a", b"b")))
    await log.append("p", RUN, Batch(2, (b"c",), final=True))
    async with aclosing(log.read("p", RUN)) as reader:
        assert [batch async for batch in reader] == [(b"a", b"b"), (b"c",)]
    await log.aclose()


async def test_a_redis_that_restarts_empty_ends_the_reader() -> None:
    with Valkey() as server:
        log = RedisEventLog(server.url, lease_seconds=30)
        await log.append("p", RUN, Batch(0, (b"a",)))
        async with aclosing(log.read("p", RUN)) as reader:
            assert await anext(reader) == (b"a",)
            server.crash()
            server.start()
            assert await anext(reader, None) is None
        await log.append("p", RUN, Batch(1, (b"b",)))
        await log.aclose()


async def test_a_redis_that_is_gone_is_reported() -> None:
    with Valkey() as server:
        log = RedisEventLog(server.url, lease_seconds=1)
        await log.append("p", RUN, Batch(0, (b"a",)))
        server.crash()
        with pytest.raises(EventLogUnavailable):
            await log.append("p", RUN, Batch(1, (b"b",)))
        await log.aclose()
