"""Turns of projects: nobody fills every place, nobody is passed over, and whoever gives up leaves no gap."""

from __future__ import annotations

import asyncio

import pytest

from app.fairness import Busy, FairQueue, Turns


def taken(turns: Turns, waiting: list[str], count: int) -> list[str | None]:
    """Who gets the next places."""
    found: list[str | None] = []
    for _ in range(count):
        project = turns.next(waiting)
        found.append(project)
        if project is not None:
            turns.take(project)
            waiting.remove(project)
    return found


def test_a_project_has_at_most_half_of_the_places() -> None:
    assert taken(Turns(4), ["a"] * 9, 3) == ["a", "a", None]
    assert taken(Turns(1), ["a"] * 9, 2) == ["a", None]


def test_projects_take_turns() -> None:
    assert taken(Turns(8), [*"aaaaaaabbbbbbbc"], 8) == [*"abcababa"]


def test_with_one_place_the_turn_goes_round() -> None:
    turns, waiting, served = Turns(1), [*"aaaabbbc"], list[str]()
    while waiting:
        project = turns.next(waiting)
        assert project is not None
        turns.take(project)
        waiting.remove(project)
        served.append(project)
        turns.give_back(project)
    assert served == [*"abcababa"]


def test_whoever_has_used_little_of_late_goes_before_those_who_waited_longer() -> None:
    now = 0.0
    turns = Turns(1, lambda: now)
    for project in ("a", "b"):
        turns.take(project)
        now += 20
        turns.give_back(project)
    assert turns.next(["a", "b", "new"]) == "new"
    assert turns.next(["b", "a"]) == "a"  # its seconds are older
    assert turns.next(["c"]) == "c"
    now += 3600
    assert turns.next(["b", "a"]) == "b"  # forgotten: the order of asking


def test_the_last_place_is_kept_for_those_who_have_used_little() -> None:
    now = 0.0
    turns = Turns(3, lambda: now)
    for project in ("a", "b"):
        turns.take(project)
    now += 20
    assert turns.next(["a", "b"]) is None
    assert turns.next(["a", "b", "new"]) == "new"
    now += 3600
    for project in ("a", "b"):
        turns.give_back(project)
    assert turns.next(["a", "b"]) == "a"


def test_what_a_project_holds_counts_too() -> None:
    now = 0.0
    turns = Turns(4, lambda: now)
    turns.take("a")
    now += 20
    assert turns.next(["a", "b"]) == "b"


class Line:
    """Tasks that hold places until they are told."""

    def __init__(self, queue: FairQueue, tasks: asyncio.TaskGroup) -> None:
        self._queue = queue
        self._tasks = tasks
        self.served: list[str] = []
        self.let: dict[str, asyncio.Event] = {}

    async def join(self, name: str) -> asyncio.Task[None]:
        """A project's task, named like "a1", waits or works when this returns."""
        self.let[name] = asyncio.Event()
        task = self._tasks.create_task(self._work(name))
        await settled()
        return task

    async def end(self, name: str) -> None:
        """It gives its place back."""
        self.let[name].set()
        await settled()

    async def _work(self, name: str) -> None:
        async with self._queue.place(name[0]):
            self.served.append(name)
            await self.let[name].wait()


async def settled() -> None:
    """Everything that can run has run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_line_of_one_project_does_not_keep_another_waiting() -> None:
    async with asyncio.TaskGroup() as tasks:
        line = Line(FairQueue(2), tasks)
        for name in ("a1", "a2", "a3", "b1", "c1", "c2"):
            await line.join(name)
        assert line.served == ["a1", "b1"]
        for ends, begins in (("b1", "c1"), ("a1", "a2"), ("c1", "c2"), ("a2", "a3")):
            await line.end(ends)
            assert line.served[-1] == begins
        await line.end("c2")
        await line.end("a3")
    assert len(line.served) == 6


async def test_whoever_gives_up_leaves_no_gap() -> None:
    async with asyncio.TaskGroup() as tasks:
        queue = FairQueue(1)
        line = Line(queue, tasks)
        await line.join("a1")
        quitter = await line.join("b1")
        await line.join("c1")
        quitter.cancel()
        await line.end("a1")
        assert line.served == ["a1", "c1"]
        late = await line.join("d1")
        line_before = list(line.served)
        await line.end("c1")
        assert line.served == [*line_before, "d1"]
        late.cancel()
        await settled()
        await line.join("e1")
        assert line.served[-1] == "e1"
        await line.end("e1")


async def test_a_place_that_comes_in_the_moment_of_giving_up_is_passed_on() -> None:
    async with asyncio.TaskGroup() as tasks:
        line = Line(FairQueue(1), tasks)
        await line.join("a1")
        quitter = await line.join("b1")
        await line.join("c1")
        line.let["a1"].set()  # without letting anything run between the two
        await asyncio.sleep(0)
        quitter.cancel()
        await settled()
        assert line.served[-1] == "c1"
        await line.end("c1")


async def test_a_line_has_an_end() -> None:
    async with asyncio.TaskGroup() as tasks:
        queue = FairQueue(1, waiting=2)
        line = Line(queue, tasks)
        for name in ("a1", "a2", "a3"):
            await line.join(name)
        with pytest.raises(Busy, match="Too much"):
            async with queue.place("a"):
                pass
        other = await line.join("b1")
        assert not other.done()
        for name in ("a1", "b1", "a2", "a3"):
            await line.end(name)


async def test_the_wait_has_an_end() -> None:
    queue = FairQueue(1, waiting=2, seconds=0.01)
    async with queue.place("a"):
        with pytest.raises(Busy, match="No slot became free"):
            async with queue.place("b"):
                pass
    async with queue.place("b"):
        pass
