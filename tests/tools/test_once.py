"""One of several calls makes what all of them need."""

from __future__ import annotations

import asyncio

import pytest

from app.tools._once import Once


class Maker:
    """Makes a value when it is told to."""

    def __init__(self) -> None:
        self.once: Once[str] = Once()
        self.begun: list[str] = []
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    async def get(self, name: str) -> str:
        async with self.once.turn() as value:
            if value is None:
                self.begun.append(name)
                await self.go.wait()
                if self.failure is not None:
                    raise self.failure
                return self.once.settle(f"made by {name}")
            return value

    async def waiting(self, group: asyncio.TaskGroup, *names: str) -> list[asyncio.Task[str]]:
        """Tasks that want the value; the first makes it."""
        tasks = [group.create_task(self.get(name)) for name in names]
        await _settled()
        return tasks

    async def failing(self, *names: str) -> None:
        """Several want the value, and it cannot be made."""
        self.failure = OSError("no room")
        async with asyncio.TaskGroup() as group:
            await self.waiting(group, *names)
            self.go.set()


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_is_made_once_for_all_who_come_meanwhile() -> None:
    maker = Maker()
    async with asyncio.TaskGroup() as group:
        tasks = await maker.waiting(group, "a", "b", "c")
        maker.go.set()
    assert maker.begun == ["a"]
    assert {task.result() for task in tasks} == {"made by a"}
    assert await maker.get("d") == "made by a"


async def test_a_failure_is_everybodys_who_waits_and_the_next_call_tries_again() -> None:
    maker = Maker()
    with pytest.raises(ExceptionGroup) as failures:
        await maker.failing("a", "b", "c")
    assert [str(error) for error in failures.value.exceptions] == ["no room"] * 3
    assert maker.begun == ["a"]
    maker.failure = None
    assert await maker.get("d") == "made by d"


async def test_whoever_is_cancelled_leaves_it_to_the_next() -> None:
    maker = Maker()
    async with asyncio.TaskGroup() as group:
        first, second, third = await maker.waiting(group, "a", "b", "c")
        first.cancel()
        await _settled()
        assert maker.begun == ["a", "b"]
        maker.go.set()
    assert (second.result(), third.result()) == ("made by b", "made by b")


async def test_one_who_waits_and_is_cancelled_disturbs_nobody() -> None:
    maker = Maker()
    async with asyncio.TaskGroup() as group:
        first, second, third = await maker.waiting(group, "a", "b", "c")
        second.cancel()
        await asyncio.sleep(0)
        maker.go.set()
    assert (first.result(), third.result()) == ("made by a", "made by a")


async def test_what_was_replaced_is_not_forgotten_again() -> None:
    maker = Maker()
    maker.go.set()
    first = await maker.get("a")
    maker.once.forget(first)
    second = await maker.get("b")
    maker.once.forget(first)
    assert (await maker.get("c"), second) == ("made by b", "made by b")


async def _fail_after_making(once: Once[str]) -> None:
    async with once.turn():
        once.settle("there")
        raise OSError("mine")


async def _get(once: Once[str]) -> str | None:
    async with once.turn() as value:
        return value


async def test_what_fails_after_it_is_made_does_not_fail_those_who_wait() -> None:
    once: Once[str] = Once()
    begun, go = asyncio.Event(), asyncio.Event()

    async def make_and_fail() -> None:
        async with once.turn():
            begun.set()
            await go.wait()
            once.settle("there")
            raise OSError("mine")

    async def fail() -> None:
        with pytest.raises(OSError, match="mine"):
            await make_and_fail()

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        await begun.wait()
        waiting = [group.create_task(_get(once)) for _ in range(2)]
        await _settled()
        go.set()

    assert [task.result() for task in waiting] == ["there", "there"]


async def test_what_fails_after_it_is_made_is_the_callers_own() -> None:
    once: Once[str] = Once()
    with pytest.raises(OSError, match="mine"):
        await _fail_after_making(once)
    async with once.turn() as value:
        assert value == "there"
