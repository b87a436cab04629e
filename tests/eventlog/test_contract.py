"""What every event log does, tried on all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from app.eventlog.base import FIRST_READ, EventLog
from tests.eventlog.logs import PROJECT, RUN, batch, frames, read
from tests.support.processes import PATIENCE


async def test_an_unknown_run_ends_at_once(log: EventLog) -> None:
    assert await read(log) == []
    assert not await log.exists(PROJECT, RUN)


async def test_a_late_reader_gets_everything(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 3))
    await log.append(PROJECT, RUN, batch(3, 1))
    await log.append(PROJECT, RUN, batch(4, 2, final=True))
    assert await log.exists(PROJECT, RUN)
    assert await read(log) == frames(0, 6)


@pytest.mark.parametrize(("count", "size"), [(200, 2), (20, 128)])
async def test_a_reader_gets_a_long_log_in_parts(log: EventLog, count: int, size: int) -> None:
    """Of batches that are small or large, so that one that is slow holds little."""
    batches = [batch(number * size, size, final=number == count - 1) for number in range(count)]
    for one in batches:
        await log.append(PROJECT, RUN, one)
    async with aclosing(log.read(PROJECT, RUN)) as reading:
        parts = [part async for part in reading]
    assert [frame for part in parts for frame in part] == frames(0, count * size)
    assert max(map(len, parts)) <= max(256, FIRST_READ * size)


async def test_another_projects_run_is_unknown(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 3, final=True))
    assert await read(log, project="project-b") == []
    assert not await log.exists("project-b", RUN)


async def test_a_reader_may_start_anywhere(log: EventLog) -> None:
    sizes = (2, 3, 1, 4)
    first = 0
    for size in sizes:
        await log.append(PROJECT, RUN, batch(first, size))
        first += size
    readers = [asyncio.ensure_future(read(log, after)) for after in range(-1, 12)]  # noqa: TID251 - a test's own tasks
    await asyncio.sleep(0)
    await log.append(PROJECT, RUN, batch(10, 1, final=True))
    for after, seen in zip(range(-1, 12), await asyncio.gather(*readers), strict=True):
        assert seen == frames(after + 1, 11)


async def test_readers_follow_without_gap_or_duplicate(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 1))

    async def write() -> None:
        for first in range(1, 61, 3):
            await log.append(PROJECT, RUN, batch(first, 3))
            await asyncio.sleep(0.001)
        await log.append(PROJECT, RUN, batch(61, 1, final=True))

    *seen, _ = await asyncio.gather(*(read(log, after) for after in (-1, -1, 0, 30)), write())
    assert seen == [frames(after + 1, 62) for after in (-1, -1, 0, 30)]


async def test_a_waiting_reader_hears_that_there_is_nothing_new_then_gets_it_before_the_run_ends(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 1))
    async with aclosing(log.read(PROJECT, RUN)) as batches:
        assert await anext(batches) == tuple(frames(0, 1))
        assert await anext(batches) == ()
        await log.append(PROJECT, RUN, batch(1, 2))
        assert await _next(batches) == tuple(frames(1, 3))


async def test_a_reader_beyond_the_end_waits_for_it(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 3))
    async with aclosing(log.read(PROJECT, RUN, 9)) as batches:
        assert await anext(batches) == ()
        await log.append(PROJECT, RUN, batch(3, 2))
        await log.append(PROJECT, RUN, batch(5, 10))
        assert await _next(batches) == tuple(frames(10, 15))


async def test_a_reader_beyond_the_end_of_an_ended_run_ends(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 3, final=True))
    assert await read(log, 2) == await read(log, 9) == []


async def test_what_is_there_can_be_had_without_waiting(log: EventLog) -> None:
    assert [*await log.frames(PROJECT, RUN)] == []
    await log.append(PROJECT, RUN, batch(0, 2))
    await log.append(PROJECT, RUN, batch(2, 3))
    assert [*await log.frames(PROJECT, RUN)] == frames(0, 5)
    await log.append(PROJECT, RUN, batch(5, 1, final=True))
    assert [*await log.frames(PROJECT, RUN)] == frames(0, 6)
    assert [*await log.frames("project-b", RUN)] == []


async def test_a_reader_that_leaves_harms_no_other(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 1))
    leaving, staying = (asyncio.ensure_future(read(log)) for _ in range(2))  # noqa: TID251 - a test's own tasks
    await asyncio.sleep(0.05)
    leaving.cancel()
    await log.append(PROJECT, RUN, batch(1, 1, final=True))
    assert await staying == frames(0, 2)
    await asyncio.wait([leaving])
    assert leaving.cancelled()


async def test_closing_ends_the_readers(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 1))
    reading = asyncio.Event()

    async def follow() -> list[bytes]:
        seen: list[bytes] = []
        async with aclosing(log.read(PROJECT, RUN, -1)) as batches:
            async for fresh in batches:
                seen += fresh
                reading.set()
        return seen

    reader = asyncio.ensure_future(follow())  # noqa: TID251 - a test's own task
    await reading.wait()
    await log.aclose()
    assert await reader == frames(0, 1)


async def test_an_erased_run_is_gone(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 2))
    await log.append("another project", "another run", batch(0, 1))
    await log.erase(PROJECT, RUN)
    await log.erase(PROJECT, RUN)
    assert not await log.exists(PROJECT, RUN)
    assert await read(log) == []
    assert await log.exists("another project", "another run")
    await log.append(PROJECT, RUN, batch(0, 3, final=True))
    assert await read(log) == frames(0, 3)


async def _next(batches: AsyncGenerator[tuple[bytes, ...]]) -> tuple[bytes, ...]:
    """The next frames, however often there is nothing new before."""
    async with asyncio.timeout(PATIENCE):
        while not (fresh := await anext(batches)):
            pass
    return fresh
