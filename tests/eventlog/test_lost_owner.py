"""Runs whose process died: readers on other replicas end instead of waiting for ever."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from redis.asyncio import Redis

from app.db.engine import Database
from app.eventlog.base import Append, Batch, EventLogUnavailable, LogLost
from app.eventlog.redis import RedisEventLog
from app.eventlog.sql import SqlEventLog
from app.stores.sql import SqlResponseStore
from tests.eventlog.logs import PROJECT, RUN, batch, frames, read
from tests.stores import records
from tests.support.services import Valkey


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
    record = records.turn("regretted")
    await store.save(record)
    await log.append(records.PROJECT, record.id, Batch(0, (b"regretted",), final=True))
    await store.delete(records.PROJECT, record.id, now=1)
    assert not await log.exists(records.PROJECT, record.id)


async def test_a_reader_of_a_silent_run_in_redis_ends_after_the_lease(redis_url: str) -> None:
    log = RedisEventLog(redis_url, lease_seconds=0.2)
    await log.append(PROJECT, RUN, Batch(0, (b"a",)))
    assert await read(log) == [b"a"]
    assert not await log.exists(PROJECT, RUN)
    await log.aclose()


async def test_a_run_in_redis_is_kept_for_the_lease_and_after_its_end_for_a_time_of_its_own(redis_url: str) -> None:
    log = RedisEventLog(redis_url, lease_seconds=7200, ended_seconds=600)
    await log.append(PROJECT, RUN, batch(0, 1))
    async with Redis.from_url(redis_url) as redis:  # pyright: ignore[reportUnknownMemberType] - its options are not annotated
        (key,) = await redis.keys()  # pyright: ignore[reportUnknownMemberType] - as above
        assert 600 < await redis.ttl(key) <= 7200
        await log.append(PROJECT, RUN, batch(1, 1, final=True))
        assert 0 < await redis.ttl(key) <= 600
    assert await read(log) == frames(0, 2)
    await log.aclose()


async def test_a_run_in_the_database_is_kept_for_the_lease(database: Database) -> None:
    clock = Clock(1000)
    log = SqlEventLog(database, lease_seconds=7200, clock=clock)
    await log.append(PROJECT, RUN, batch(0, 1))
    clock.now += 7199
    assert await log.exists(PROJECT, RUN)
    clock.now += 1
    assert not await log.exists(PROJECT, RUN)
    with pytest.raises(ValueError, match="at least the lease"):
        SqlEventLog(database, lease_seconds=7201)


async def test_a_redis_that_restarts_empty_ends_the_reader() -> None:
    with Valkey() as server:
        log = RedisEventLog(server.url, lease_seconds=30)
        await log.append(PROJECT, RUN, batch(0, 1))
        async with aclosing(log.read(PROJECT, RUN)) as reader:
            assert await anext(reader) == tuple(frames(0, 1))
            server.crash()
            server.start()
            assert [fresh async for fresh in reader if fresh] == []
        await log.aclose()


async def test_the_owner_of_a_run_that_redis_lost_writes_it_again() -> None:
    with Valkey() as server:
        log = RedisEventLog(server.url, lease_seconds=7200)
        await log.append(PROJECT, RUN, batch(0, 4))
        await log.append(PROJECT, RUN, batch(4, 2, fence=2))
        server.crash()
        server.start()
        with pytest.raises(LogLost):
            await log.append(PROJECT, RUN, batch(6, 1, fence=2))
        await log.append(PROJECT, RUN, batch(0, 7, fence=2))
        await log.append(PROJECT, RUN, batch(7, 1, fence=2, final=True))
        for after in range(-1, 8):
            assert await read(log, after) == frames(after + 1, 8)
        await log.aclose()


async def test_an_expired_run_in_redis_is_lost(redis_url: str) -> None:
    log = RedisEventLog(redis_url, lease_seconds=0.05)
    await log.append(PROJECT, RUN, batch(0, 1))
    await read(log)
    with pytest.raises(LogLost):
        await log.append(PROJECT, RUN, batch(1, 1))
    await log.aclose()


async def test_of_several_runs_only_the_one_that_redis_lost_is_reported(redis_url: str) -> None:
    log = RedisEventLog(redis_url)
    await log.append(PROJECT, "kept", batch(0, 1))
    outcomes = await log.append_all([Append(PROJECT, "kept", batch(1, 1)), Append(PROJECT, "gone", batch(1, 1))])
    assert [type(outcome) for outcome in outcomes] == [type(None), LogLost]
    await log.aclose()


async def test_a_lease_in_redis_is_renewed_while_the_run_goes_on(redis_url: str) -> None:
    log = RedisEventLog(redis_url, lease_seconds=0.4)
    loop = asyncio.get_running_loop()
    end, number = loop.time() + 0.8, 0
    while loop.time() < end:
        await log.append(PROJECT, RUN, batch(number, 1))
        number += 1
    assert [*await log.frames(PROJECT, RUN)] == frames(0, number)
    await log.aclose()


async def test_a_redis_that_is_gone_is_reported() -> None:
    with Valkey() as server:
        log = RedisEventLog(server.url, lease_seconds=7200)
        await log.append(PROJECT, RUN, batch(0, 1))
        server.crash()
        await _is_reported(log)


async def test_a_redis_that_hangs_is_reported() -> None:
    with Valkey() as server:
        log = RedisEventLog(server.url, lease_seconds=7200)
        await log.append(PROJECT, RUN, batch(0, 1))
        async with aclosing(log.read(PROJECT, RUN)) as reader:
            assert await anext(reader) == tuple(frames(0, 1))
            server.pause()
            with pytest.raises(EventLogUnavailable):
                [fresh async for fresh in reader]
        await _is_reported(log)
        server.resume()


async def _is_reported(log: RedisEventLog) -> None:
    calls = (
        log.append(PROJECT, RUN, batch(1, 1)),
        _first_outcome(log),
        log.seal(PROJECT, RUN, 2),
        log.frames(PROJECT, RUN),
        log.exists(PROJECT, RUN),
        read(log),
    )
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors] == [EventLogUnavailable] * len(errors)
    await log.aclose()


async def _first_outcome(log: RedisEventLog) -> None:
    for outcome in await log.append_all([Append(PROJECT, "a", batch(0, 1)), Append(PROJECT, "b", batch(0, 1))]):
        if outcome is not None:
            raise outcome
