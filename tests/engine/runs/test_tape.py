"""The frames of background streams: in the log before they are seen, and seen without it where it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from app.db.engine import Database
from app.db.migrate import upgrade_apart
from app.engine.runs.tape import LOG_BYTES, LOG_FRAMES, Recorder, Tape
from app.eventlog.base import Batch, EventLog
from app.eventlog.redis import RedisEventLog
from app.eventlog.sql import SqlEventLog
from tests.support.services import Postgres, Valkey

_PROJECT = "project-a"


async def test_the_frames_of_many_runs_are_in_the_log_when_they_are_seen(redis_url: str) -> None:
    async with _redis(redis_url) as (recorder, log):
        tapes = [recorder.tape(_PROJECT, f"run-{number}", 1) for number in range(50)]
        for tape in tapes:
            tape.publish([b"0"])
            tape.publish([b"1", b"2"], final=True)
        for tape in tapes:
            seen = 0
            async with aclosing(tape.read(-1)) as batches:
                async for frames in batches:
                    seen += len(frames)
                    assert (await log.frames(_PROJECT, tape.run_id))[:seen] == (b"0", b"1", b"2")[:seen]
            assert seen == 3


async def test_a_long_answer_is_logged_in_parts_that_end_between_two_batches(redis_url: str) -> None:
    """Readers get whole parts, and a successor goes on behind a whole batch."""
    async with _redis(redis_url) as (recorder, log):
        tape = recorder.tape(_PROJECT, "long", 1)
        for number in range(10):
            tape.publish([b"%d" % number] * 50)
        tape.publish([b"end"], final=True)
        await tape.finished()
        assert await log.frames(_PROJECT, "long") == tuple(tape.frames)
        async with Redis.from_url(redis_url) as redis:  # pyright: ignore[reportUnknownMemberType] - its options are not annotated
            entries: Any = await redis.xrange(f"gw:frames:{_PROJECT}:long")
    assert [int(name.split(b"-")[1]) for name, _ in entries] == [150, 300, 450, 501]


async def test_a_run_that_another_process_has_taken_over_is_lost_and_the_others_go_on(redis_url: str) -> None:
    async with _redis(redis_url) as (recorder, log):
        mine, theirs = recorder.tape(_PROJECT, "mine", 1), recorder.tape(_PROJECT, "theirs", 1)
        await log.seal(_PROJECT, "theirs", 2)
        for tape in (mine, theirs):
            tape.publish([b"0"], final=True)
        assert await _seen(mine) == [b"0"]
        assert await _seen(theirs) == []
        assert theirs.lost
        assert not mine.lost


async def test_readers_do_not_wait_for_a_log_that_is_gone_and_it_gets_everything_when_it_is_back() -> None:
    with Valkey() as server:
        async with _redis(server.url) as (recorder, log):
            tape, later = recorder.tape(_PROJECT, "run", 1), recorder.tape(_PROJECT, "later", 1)
            for one in (tape, later):
                one.lease(time.monotonic() + 60)
            tape.publish([b"0"])
            await tape.finished()
            server.crash()
            tape.publish([b"1"])
            async with aclosing(tape.read(0)) as batches:
                assert await anext(batches) == [b"1"]
            later.publish([b"0"])
            async with aclosing(later.read(-1)) as batches:
                assert await anext(batches) == [b"0"]
            server.start()
            tape.publish([b"2"])
            await tape.finished()
            await later.finished()
            assert await log.frames(_PROJECT, "run") == (b"0", b"1", b"2")
            assert await log.frames(_PROJECT, "later") == (b"0",)


async def test_readers_wait_for_a_database_that_is_slow() -> None:
    with Postgres() as server:
        upgrade_apart(server.url())
        database = Database(server.url())
        async with _recording(SqlEventLog(database)) as recorder:
            tape = recorder.tape(_PROJECT, "run", 1)
            tape.lease(time.monotonic() + 60)
            tape.publish([b"0"])
            await tape.finished()
            server.pause()
            tape.publish([b"1"])
            asyncio.get_running_loop().call_later(2, server.resume)
            async with aclosing(tape.read(0)) as batches:
                assert await anext(batches) == [b"1"]
            assert tape.logged == 2
        await database.aclose()


async def test_a_run_that_ends_while_the_log_is_gone_does_not_wait_for_it() -> None:
    with Valkey() as server:
        async with _redis(server.url) as (recorder, _):
            server.crash()
            tape, later = recorder.tape(_PROJECT, "run", 1), recorder.tape(_PROJECT, "later", 1)
            tape.publish([b"0", b"1"], final=True)
            await tape.finished()
            later.publish([b"0"] * 5000)
            await later.make_room()
            later.publish([b"1"], final=True)
            await later.finished()
            assert await _seen(tape) == [b"0", b"1"]
            assert len(await _seen(later)) == 5001


async def test_a_run_that_came_back_is_logged_whatever_its_earlier_tape_says(redis_url: str) -> None:
    async with _redis(redis_url) as (recorder, log):
        earlier, mine = recorder.tape(_PROJECT, "run", 1), recorder.tape(_PROJECT, "run", 2)
        await log.seal(_PROJECT, "run", 2)
        mine.publish([b"0"], final=True)
        earlier.publish([b"old"])
        await mine.finished()
        await earlier.finished()
        assert await log.frames(_PROJECT, "run") == (b"0",)
        assert earlier.lost


async def test_a_run_with_too_many_frames_for_the_log_goes_on_without_it(redis_url: str) -> None:
    async with _redis(redis_url) as (recorder, log):
        tape = recorder.tape(_PROJECT, "run", 1)
        tape.publish([b"a"] * LOG_FRAMES)
        await tape.finished()
        tape.publish([b"b"] * 3000)
        await tape.make_room()
        tape.publish([b"c"], final=True)
        await tape.finished()
        assert (await _seen(tape))[LOG_FRAMES - 1 :] == [b"a", *[b"b"] * 3000, b"c"]
        assert len(await log.frames(_PROJECT, "run")) == LOG_FRAMES


async def test_a_run_with_too_many_bytes_for_the_log_goes_on_without_it_even_elsewhere(redis_url: str) -> None:
    async with _redis(redis_url) as (recorder, log):
        tape = recorder.tape(_PROJECT, "run", 2)
        await log.append(_PROJECT, "run", Batch(0, (b"there",)))
        tape.adopt([b"x" * LOG_BYTES])
        tape.publish([b"end"], final=True)
        await tape.finished()
        assert await _seen(tape, after=0) == [b"end"]
        assert await log.frames(_PROJECT, "run") == (b"there",)


async def _seen(tape: Tape, *, after: int = -1) -> list[bytes]:
    async with aclosing(tape.read(after)) as batches:
        return [frame async for frames in batches for frame in frames]


@asynccontextmanager
async def _redis(url: str) -> AsyncGenerator[tuple[Recorder, RedisEventLog]]:
    log = RedisEventLog(url)
    async with _recording(log) as recorder:
        yield recorder, log


@asynccontextmanager
async def _recording(log: EventLog) -> AsyncGenerator[Recorder]:
    recorder = Recorder(log)

    async def record() -> None:
        while True:
            await recorder.run()

    async with asyncio.TaskGroup() as group:
        recording = group.create_task(record())
        yield recorder
        recording.cancel()
    await log.aclose()
