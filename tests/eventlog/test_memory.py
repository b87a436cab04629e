"""What a process keeps of finished runs."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from app.eventlog.base import Batch
from app.eventlog.memory import MemoryEventLog

FINAL = Batch(0, (b"a", b"b"), final=True)


async def test_a_finished_run_goes_with_its_last_reader() -> None:
    log = MemoryEventLog()
    await log.append("p", "r", FINAL)
    async with aclosing(log.read("p", "r")) as first, aclosing(log.read("p", "r")) as second:
        assert await anext(first) == (b"a", b"b")
        assert await anext(second) == (b"a", b"b")
        assert await anext(first, None) is None
        assert await log.exists("p", "r")
    assert not await log.exists("p", "r")


async def test_an_unfinished_run_stays_when_its_reader_leaves() -> None:
    log = MemoryEventLog()
    await log.append("p", "r", Batch(0, (b"a",)))
    async with aclosing(log.read("p", "r")) as reader:
        assert await anext(reader) == (b"a",)
    assert await log.exists("p", "r")


async def test_unread_runs_are_bounded() -> None:
    log = MemoryEventLog(unread=2)
    for run in ("1", "2", "3"):
        await log.append("p", run, FINAL)
    assert [await log.exists("p", run) for run in ("1", "2", "3")] == [False, True, True]


async def test_a_forgotten_run_ends_its_readers() -> None:
    log = MemoryEventLog()
    await log.append("p", "r", Batch(0, (b"a",)))
    async with aclosing(log.read("p", "r")) as reader:
        assert await anext(reader) == (b"a",)
        waiting = asyncio.ensure_future(anext(reader, None))  # noqa: TID251 - a test's own task
        await asyncio.sleep(0)
        await log.erase("p", "r")
        assert await waiting is None
    assert not await log.exists("p", "r")
    await log.erase("p", "r")
