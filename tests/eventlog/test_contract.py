"""What every event log does, tried on all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from app.db.engine import Database
from app.eventlog.base import Batch, EventLog
from app.eventlog.redis import RedisEventLog
from app.eventlog.sql import SqlEventLog

PROJECT = "project-a"
RUN = "6f1c1b52-7d0f-4a6e-9f0a-000000000001"


@pytest.fixture(params=["sqlite", "postgresql", "valkey"])
async def log(request: pytest.FixtureRequest) -> AsyncGenerator[EventLog]:
    """Each log in turn, empty."""
    match request.param:
        case "valkey":
            redis = RedisEventLog(request.getfixturevalue("redis_url"))
            yield redis
            await redis.aclose()
        case engine:
            database = Database(request.getfixturevalue("sqlite_url" if engine == "sqlite" else "postgres_url"))
            yield SqlEventLog(database, poll_seconds=0.01)
            await database.aclose()


def _batch(first: int, count: int, *, final: bool = False) -> Batch:
    return Batch(first, tuple(_frame(number) for number in range(first, first + count)), final)


def _frame(number: int) -> bytes:
    return f"data: {number} é\n\n".encode()


async def _read(log: EventLog, after: int = -1, *, project: str = PROJECT) -> list[bytes]:
    """Every frame until the reader ends by itself."""
    frames: list[bytes] = []
    async with aclosing(log.read(project, RUN, after)) as batches:
        async for batch in batches:
            assert batch
            frames += batch
    return frames


async def test_an_unknown_run_ends_at_once(log: EventLog) -> None:
    assert await _read(log) == []
    assert not await log.exists(PROJECT, RUN)


async def test_a_late_reader_gets_everything(log: EventLog) -> None:
    await log.append(PROJECT, RUN, _batch(0, 3))
    await log.append(PROJECT, RUN, _batch(3, 1))
    await log.append(PROJECT, RUN, _batch(4, 2, final=True))
    assert await log.exists(PROJECT, RUN)
    assert await _read(log) == [_frame(number) for number in range(6)]


async def test_another_projects_run_is_unknown(log: EventLog) -> None:
    await log.append(PROJECT, RUN, _batch(0, 3, final=True))
    assert await _read(log, project="project-b") == []
    assert not await log.exists("project-b", RUN)


async def test_a_reader_may_start_anywhere(log: EventLog) -> None:
    sizes = (2, 3, 1, 4)
    first = 0
    for size in sizes:
        await log.append(PROJECT, RUN, _batch(first, size))
        first += size
    readers = [asyncio.ensure_future(_read(log, after)) for after in range(-1, 12)]  # noqa: TID251 - a test's own tasks
    await asyncio.sleep(0)
    await log.append(PROJECT, RUN, _batch(10, 1, final=True))
    for after, frames in zip(range(-1, 12), await asyncio.gather(*readers), strict=True):
        assert frames == [_frame(number) for number in range(after + 1, 11)]


async def test_readers_follow_without_gap_or_duplicate(log: EventLog) -> None:
    await log.append(PROJECT, RUN, _batch(0, 1))

    async def write() -> None:
        for first in range(1, 61, 3):
            await log.append(PROJECT, RUN, _batch(first, 3))
            await asyncio.sleep(0.001)
        await log.append(PROJECT, RUN, _batch(61, 1, final=True))

    *seen, _ = await asyncio.gather(*(_read(log, after) for after in (-1, -1, 0, 30)), write())
    assert seen == [[_frame(number) for number in range(after + 1, 62)] for after in (-1, -1, 0, 30)]


async def test_frames_reach_a_waiting_reader_before_the_run_ends(log: EventLog) -> None:
    await log.append(PROJECT, RUN, _batch(0, 1))
    async with aclosing(log.read(PROJECT, RUN)) as batches:
        assert await anext(batches) == (_frame(0),)
        waiting = asyncio.ensure_future(anext(batches))  # noqa: TID251 - a test's own task
        await asyncio.sleep(0)
        await log.append(PROJECT, RUN, _batch(1, 2))
        assert await waiting == (_frame(1), _frame(2))


async def test_a_reader_that_leaves_harms_no_other(log: EventLog) -> None:
    await log.append(PROJECT, RUN, _batch(0, 1))
    leaving, staying = (asyncio.ensure_future(_read(log)) for _ in range(2))  # noqa: TID251 - a test's own tasks
    await asyncio.sleep(0.05)
    leaving.cancel()
    await log.append(PROJECT, RUN, _batch(1, 1, final=True))
    assert await staying == [_frame(0), _frame(1)]
    await asyncio.wait([leaving])
    assert leaving.cancelled()


async def test_closing_ends_the_readers(log: EventLog) -> None:
    await log.append(PROJECT, RUN, _batch(0, 1))
    reading = asyncio.Event()

    async def read() -> list[bytes]:
        frames: list[bytes] = []
        async with aclosing(log.read(PROJECT, RUN, -1)) as batches:
            async for batch in batches:
                frames += batch
                reading.set()
        return frames

    reader = asyncio.ensure_future(read())  # noqa: TID251 - a test's own task
    await reading.wait()
    await log.aclose()
    assert await reader == [_frame(0)]


async def test_an_erased_run_is_gone(log: EventLog) -> None:
    await log.append(PROJECT, RUN, _batch(0, 2))
    await log.append("another project", "another run", _batch(0, 1))
    await log.erase(PROJECT, RUN)
    await log.erase(PROJECT, RUN)
    assert not await log.exists(PROJECT, RUN)
    assert await _read(log) == []
    assert await log.exists("another project", "another run")
