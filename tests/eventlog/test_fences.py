"""Runs whose owner is replaced: what the log takes from whom, and what readers see of it."""

from __future__ import annotations

import asyncio
import random

import pytest
from redis.asyncio import Redis

from app.db.engine import Database
from app.eventlog.base import Append, Batch, EventLog, FencedOff
from app.eventlog.redis import RedisEventLog
from app.eventlog.sql import SqlEventLog
from tests.eventlog.logs import PROJECT, RUN, batch, frames, read


async def test_readers_from_everywhere_see_one_sequence(log: EventLog) -> None:
    early = [asyncio.ensure_future(_read_once_known(log, after)) for after in range(-1, 16)]  # noqa: TID251 - a test's own tasks
    await log.append(PROJECT, RUN, batch(0, 2))
    await log.append(PROJECT, RUN, batch(2, 3))
    await log.seal(PROJECT, RUN, 2)
    await log.append(PROJECT, RUN, batch(5, 1, fence=2))
    midway = [asyncio.ensure_future(read(log, after)) for after in range(-1, 16)]  # noqa: TID251 - a test's own tasks
    await log.append(PROJECT, RUN, batch(6, 4, fence=2))
    await log.seal(PROJECT, RUN, 3)
    await log.seal(PROJECT, RUN, 10)
    await log.append(PROJECT, RUN, batch(10, 2, fence=10))
    await log.append(PROJECT, RUN, batch(12, 1, fence=10, final=True))
    for readers in (early, midway, [read(log, after) for after in range(-1, 16)]):
        for after, seen in zip(range(-1, 16), await asyncio.gather(*readers), strict=True):
            assert seen == frames(after + 1, 13)
    assert [*await log.frames(PROJECT, RUN)] == frames(0, 13)


async def test_an_older_owner_is_refused_once_a_newer_one_has_appended(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 3))
    await log.append(PROJECT, RUN, batch(3, 1, fence=2))
    for late in (Batch(3, (b"late",)), batch(3, 1), batch(3, 4), batch(3, 1, final=True)):
        with pytest.raises(FencedOff):
            await log.append(PROJECT, RUN, late)
    await log.append(PROJECT, RUN, batch(4, 1, fence=2, final=True))
    assert await read(log) == frames(0, 5)


async def test_an_older_owner_is_refused_after_a_seal(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 3))
    await log.seal(PROJECT, RUN, 2)
    await log.seal(PROJECT, RUN, 2)
    for late in (batch(3, 1), batch(3, 1, final=True), batch(0, 3)):
        with pytest.raises(FencedOff):
            await log.append(PROJECT, RUN, late)
    with pytest.raises(FencedOff):
        await log.seal(PROJECT, RUN, 1)
    assert [*await log.frames(PROJECT, RUN)] == frames(0, 3)
    await log.append(PROJECT, RUN, batch(3, 1, fence=2, final=True))
    assert await read(log) == frames(0, 4)


async def test_the_next_owner_takes_the_place_of_one_that_never_appended(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 3))
    await log.seal(PROJECT, RUN, 2)
    await log.seal(PROJECT, RUN, 3)
    for late in (batch(3, 1), batch(3, 1, fence=2)):
        with pytest.raises(FencedOff) as refusal:
            await log.append(PROJECT, RUN, late)
        assert refusal.value.fence == 3
    await log.append(PROJECT, RUN, batch(3, 1, fence=3))
    await log.append(PROJECT, RUN, batch(3, 2, fence=3, final=True))  # the confirmation of the first one was lost
    assert await read(log) == frames(0, 5)


async def test_an_owner_between_two_others_learns_of_the_newest(sql_log: SqlEventLog) -> None:
    await sql_log.append(PROJECT, RUN, batch(0, 3))
    await sql_log.append(PROJECT, RUN, batch(3, 1, fence=3))
    with pytest.raises(FencedOff) as refusal:
        await sql_log.append(PROJECT, RUN, batch(0, 1, fence=2))
    assert refusal.value.fence == 3


async def test_of_two_owners_that_append_at_the_same_end_one_is_refused(
    sql_log: SqlEventLog, database: Database
) -> None:
    other = Database(database.url.render_as_string(hide_password=False))
    for first in range(20):
        owners = [
            SqlEventLog(writer).append(PROJECT, RUN, batch(first, 1, fence=fence))
            for fence, writer in ((1, database), (2, other))
        ]
        outcomes = await asyncio.gather(*owners, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["FencedOff", "NoneType"]
    await other.aclose()
    assert [*await sql_log.frames(PROJECT, RUN)] == frames(0, 20)


async def test_several_runs_are_appended_to_at_once_and_a_refused_one_does_not_matter_to_the_others(
    log: EventLog,
) -> None:
    await log.append(PROJECT, "taken-over", batch(0, 3, fence=2))
    await log.append(PROJECT, "repeated", batch(0, 3))
    appends = [
        Append(PROJECT, "a", batch(0, 2)),
        Append(PROJECT, "taken-over", batch(0, 3)),
        Append("project-b", "b", batch(0, 1, final=True)),
        Append(PROJECT, "repeated", batch(0, 5)),
    ]
    outcomes = await log.append_all(appends)
    assert [type(outcome).__name__ for outcome in outcomes] == ["NoneType", "FencedOff", "NoneType", "NoneType"]
    assert [*await log.frames(PROJECT, "a")] == frames(0, 2)
    assert [*await log.frames(PROJECT, "taken-over")] == frames(0, 3)
    assert [*await log.frames("project-b", "b")] == frames(0, 1)
    assert [*await log.frames(PROJECT, "repeated")] == frames(0, 5)
    assert await log.append_all([]) == []


async def test_an_append_whose_reply_was_lost_may_be_repeated(log: EventLog) -> None:
    for fence, first in ((1, 0), (2, 10)):
        await log.append(PROJECT, RUN, batch(first, 2, fence=fence))
        await log.append(PROJECT, RUN, batch(first, 2, fence=fence))
        await log.append(PROJECT, RUN, batch(first + 2, 3, fence=fence))
        await log.append(PROJECT, RUN, batch(first + 2, 8, fence=fence))
    await log.append(PROJECT, RUN, batch(20, 1, fence=2, final=True))
    await log.append(PROJECT, RUN, batch(20, 1, fence=2, final=True))
    for after in range(-1, 22):
        assert await read(log, after) == frames(after + 1, 21)


async def test_an_owner_that_never_appended_is_refused_after_a_seal(redis_log: RedisEventLog, redis_url: str) -> None:
    await redis_log.seal(PROJECT, RUN, 2)
    with pytest.raises(FencedOff) as refusal:
        await redis_log.append(PROJECT, RUN, batch(0, 3))
    assert refusal.value.fence == 2
    assert await redis_log.exists(PROJECT, RUN)
    async with Redis.from_url(redis_url) as redis:  # pyright: ignore[reportUnknownMemberType] - its options are not annotated
        (key,) = await redis.keys()  # pyright: ignore[reportUnknownMemberType] - as above
        assert 0 < await redis.ttl(key) <= 180


async def test_a_run_of_which_there_is_only_a_seal_has_no_frames_yet(log: EventLog) -> None:
    await log.seal(PROJECT, RUN, 2)
    assert [*await log.frames(PROJECT, RUN)] == []
    reader = asyncio.ensure_future(_read_once_known(log, -1))  # noqa: TID251 - a test's own task
    await log.append(PROJECT, RUN, batch(0, 1, fence=2, final=True))
    assert await reader == frames(0, 1)


async def test_frames_after_missing_ones_are_held_back_until_an_owner_writes_them_again(log: EventLog) -> None:
    await log.append(PROJECT, RUN, batch(0, 2))
    await log.append(PROJECT, RUN, batch(5, 1))
    assert [*await log.frames(PROJECT, RUN)] == frames(0, 2)
    reader = asyncio.ensure_future(read(log))  # noqa: TID251 - a test's own task
    await log.append(PROJECT, RUN, batch(2, 7, fence=2))
    await log.append(PROJECT, RUN, batch(9, 1, fence=2, final=True))
    assert await reader == frames(0, 10)


@pytest.mark.parametrize("seed", range(8))
async def test_what_was_appended_stays_and_nothing_else_is_there(log: EventLog, seed: int) -> None:
    """Owners that do not know of each other append, repeat and take over in any order."""
    chance = random.Random(seed)  # noqa: S311 - a test's order of events
    owners = [_Owner(log, 1)]
    for _ in range(60):
        if chance.random() < 0.1:
            owners.append(_Owner(log, len(owners) + 1))
            await owners[-1].take_over()
        else:
            owner = chance.choice([owner for owner in owners[-3:] if not owner.is_over])
            await owner.append(chance.randint(1, 4), repeated=chance.random() < 0.3)
    last = owners[-1]
    while not await last.append(1, repeated=False):
        assert not last.is_over
    written = dict(item for owner in owners for item in owner.written.items())
    assert sum(len(owner.written) for owner in owners) == len(written)
    assert [*await log.frames(PROJECT, RUN)] == [written[number] for number in range(len(written))]
    await log.append(PROJECT, RUN, Batch(last.end, (b"end",), final=True, fence=last.fence))
    assert await read(log) == [*(written[number] for number in range(len(written))), b"end"]


class _Owner:
    """Appends where it knows the end to be, until it is fenced off for good."""

    def __init__(self, log: EventLog, fence: int) -> None:
        self.fence = fence
        self.end = 0
        self.is_over = False
        self.written: dict[int, bytes] = {}
        self._log = log

    async def take_over(self) -> None:
        await self._log.seal(PROJECT, RUN, self.fence)
        self.end = len(await self._log.frames(PROJECT, RUN))

    async def append(self, count: int, *, repeated: bool) -> bool:
        """Append that many frames of its own. False: it was refused."""
        fresh = {number: f"{number} of {self.fence}".encode() for number in range(self.end, self.end + count)}
        more = Batch(self.end, tuple(fresh.values()), fence=self.fence)
        try:
            await self._log.append(PROJECT, RUN, more)
            if repeated:
                await self._log.append(PROJECT, RUN, more)
        except FencedOff as refusal:
            if refusal.fence < self.fence:
                await self.take_over()
            else:
                self.is_over = True
            return False
        self.end += count
        self.written |= fresh
        return True


async def _read_once_known(log: EventLog, after: int) -> list[bytes]:
    while not (seen := await read(log, after)) and not await log.exists(PROJECT, RUN):
        pass
    return seen or await read(log, after)
