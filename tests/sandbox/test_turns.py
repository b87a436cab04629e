"""Whose code runs next, when more wants to run than may."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import suppress

import pytest

from app.tools.sandbox.client import NotThere, SandboxBusy
from sandbox.turns import Busy, Turns
from tests.sandbox.running import Box, RunningSandbox, running_sandbox

LONG = 60.0


class Jobs:
    """Pieces of code that end when they are told to."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.running: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, name: str, seconds: float = LONG) -> None:
        """`name` is the owner's letter and a number."""
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.ensure_future(self._run(name, seconds))  # noqa: TID251 - a test's own tasks
        await _settle()

    async def end(self, name: str) -> None:
        """And let who waits begin."""
        self._ends[name].set()
        await self.tasks[name]
        await _settle()

    async def _run(self, name: str, seconds: float) -> None:
        async with self.turns.turn(name[0], name, seconds):
            self.running.append(name)
            await self._ends[name].wait()
            self.running.remove(name)


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_owner_alone_leaves_one_slot_to_others() -> None:
    jobs = Jobs(Turns(3))
    for name in ("a1", "a2", "a3", "b1"):
        await jobs.begin(name)

    assert jobs.running == ["a1", "a2", "b1"]
    await jobs.end("a1")
    assert jobs.running == ["a2", "b1"]  # the last slot waits for somebody of whom nothing runs
    await jobs.end("b1")
    assert jobs.running == ["a2", "a3"]
    for name in ("a2", "a3"):
        await jobs.end(name)


async def test_who_has_least_running_comes_first() -> None:
    jobs = Jobs(Turns(3))
    for name in ("a1", "a2", "b1", "a3", "a4", "b2", "c1"):
        await jobs.begin(name)

    assert jobs.running == ["a1", "a2", "b1"]
    await jobs.end("a1")
    assert jobs.running == ["a2", "b1", "c1"]  # though it came last
    await jobs.end("b1")
    assert jobs.running == ["a2", "c1", "b2"]
    await jobs.end("c1")
    assert jobs.running == ["a2", "b2"]
    for name in ("a2", "b2", "a3", "a4"):
        await jobs.end(name)
    assert jobs.running == []


async def test_one_slot_goes_round() -> None:
    jobs = Jobs(Turns(1))
    for name in ("a1", "a2", "b1"):
        await jobs.begin(name)

    await jobs.end("a1")
    assert jobs.running == ["a2"]
    await jobs.end("a2")
    assert jobs.running == ["b1"]
    await jobs.end("b1")


async def test_waiting_ends_with_the_limits_name() -> None:
    jobs = Jobs(Turns(2))
    await jobs.begin("a1")
    await jobs.begin("a2", 0.01)
    with pytest.raises(Busy, match=r"one project runs code in at most 1 sandboxes at a time \(SANDBOX_RUNS\)"):
        await jobs.tasks["a2"]
    await jobs.begin("b1")
    await jobs.begin("c1", 0.01)
    with pytest.raises(Busy, match=r"in at most 2 sandboxes at a time \(SANDBOX_RUNS\)"):
        await jobs.tasks["c1"]
    for name in ("a1", "b1"):
        await jobs.end(name)


async def test_who_gives_up_takes_no_turn_and_too_many_are_refused_at_once() -> None:
    jobs = Jobs(Turns(2))
    await jobs.begin("a1")
    for number in range(2, 34):
        await jobs.begin(f"a{number}")
    await jobs.begin("a34")
    with pytest.raises(Busy, match="32 calls of this project are already waiting"):
        await jobs.tasks["a34"]
    for number in range(2, 33):
        jobs.tasks[f"a{number}"].cancel()
    await _settle()

    await jobs.end("a1")

    assert jobs.running == ["a33"]
    await jobs.end("a33")


@pytest.fixture(scope="module")
def narrow() -> Generator[RunningSandbox]:
    """Three places, and two pieces of code at a time."""
    with running_sandbox(None, more={"sessions": 3, "runs": 2}) as running:
        yield running


async def test_nobody_waits_for_all_that_another_has_in_hand(narrow: RunningSandbox) -> None:
    greedy = [await Box(narrow, "greedy").open() for _ in range(3)]
    loop = "open('begun', 'w').close()\nwhile True: pass"
    hogging = [asyncio.ensure_future(greedy[0].run(loop, 30.0))]  # noqa: TID251 - as above
    await _until_begun(greedy[0])
    hogging += [asyncio.ensure_future(box.run(loop, 30.0)) for box in greedy[1:]]  # noqa: TID251 - as above

    modest = await Box(narrow, "modest").open()  # a session that waits for its turn makes room
    async with asyncio.timeout(25):
        assert (await modest.run("6 * 7")).logs == "42\n"

    assert not hogging[0].done()
    for box in (*greedy, modest):
        with suppress(NotThere):  # one has made room
            await box.close()
    results = await asyncio.gather(*hogging, return_exceptions=True)
    # the one that made room, with a reason
    assert sum(isinstance(result, SandboxBusy | NotThere) for result in results) >= 1


async def test_no_turn_within_the_time_is_said_with_the_limit(narrow: RunningSandbox) -> None:
    first, second = await Box(narrow).open(), await Box(narrow).open()
    hogging = asyncio.ensure_future(first.run("open('begun', 'w').close()\nwhile True: pass", 6.0))  # noqa: TID251 - as above
    await _until_begun(first)

    with pytest.raises(
        SandboxBusy, match=r"within 0.2 s; one project runs code in at most 1 sandboxes at a time \(SANDBOX_RUNS\)"
    ):
        await second.run("1", 0.4)

    await hogging
    await first.close()
    await second.close()


async def _until_begun(box: Box) -> None:
    async with asyncio.timeout(60):
        while not await box.sandbox.files(box.owner, box.id):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.02)
