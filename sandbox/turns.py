"""Whose code runs next: a limited number of runs at a time, shared fairly among owners."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_MOST_WAITING = 32
"""Of one owner."""


class Busy(Exception):
    """No slot became free in time, or there is no room for a session; the message names the limit."""


class _Waiting:
    def __init__(self, owner: str, session: str) -> None:
        self.owner = owner
        self.session = session
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Turns:
    """`slots` runs at a time.

    The last free slot is for owners with none running; the owner with the fewest running goes first.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._running = Counter[str]()
        self._waiting: list[_Waiting] = []

    @property
    def share(self) -> int:
        """The maximum number of concurrent runs of one owner."""
        return max(1, self.slots - 1)

    @asynccontextmanager
    async def turn(self, owner: str, session: str, seconds: float) -> AsyncGenerator[None]:
        """Wait for a slot, at most so long. Raises Busy."""
        await self._take(owner, session, seconds)
        try:
            yield
        finally:
            self._give_back(owner)

    def refuse(self, session: str, reason: str) -> None:
        """End the waiting for this session."""
        for waiting in self._waiting:
            if waiting.session == session and not waiting.turn.done():
                waiting.turn.set_exception(Busy(reason))

    async def _take(self, owner: str, session: str, seconds: float) -> None:
        if sum(waiting.owner == owner for waiting in self._waiting) >= _MOST_WAITING:
            raise Busy(f"{_MOST_WAITING} calls of this project are already waiting for a sandbox; {self._limit(owner)}")
        waiting = _Waiting(owner, session)
        self._waiting.append(waiting)
        self._grant()
        try:
            async with asyncio.timeout(seconds):
                await waiting.turn
        except TimeoutError as error:
            self._leave(waiting)
            raise Busy(f"this code could not start within {seconds:g} s; {self._limit(owner)}") from error
        except BaseException:
            self._leave(waiting)
            raise

    def _leave(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        elif not waiting.turn.cancelled():  # it got its slot at the same moment
            self._give_back(waiting.owner)

    def _give_back(self, owner: str) -> None:
        self._running[owner] -= 1
        self._grant()

    def _grant(self) -> None:
        while (chosen := self._next()) is not None:
            self._waiting.remove(chosen)
            self._running[chosen.owner] += 1
            chosen.turn.set_result(None)

    def _next(self) -> _Waiting | None:
        free = self.slots - self._running.total()
        waiting = [
            waiting for waiting in self._waiting if not waiting.turn.done() and self._may_run(waiting.owner, free)
        ]
        return min(waiting, key=lambda waiting: self._running[waiting.owner], default=None)

    def _may_run(self, owner: str, free: int) -> bool:
        return free > 0 and (free > 1 or self._running[owner] == 0)

    def _limit(self, owner: str) -> str:
        if self._running[owner] >= self.share:
            return f"one project runs code in at most {self.share} sandboxes at a time (SANDBOX_RUNS)"
        return f"code runs in at most {self.slots} sandboxes at a time (SANDBOX_RUNS)"
