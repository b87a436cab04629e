"""Whose code runs next: so many pieces at a time, and no owner waits for all that another has in hand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_MOST_WAITING = 32
"""Of one owner."""


class Busy(Exception):
    """No turn within the time there was, or no place for a session; the message names the limit."""


class _Waiting:
    def __init__(self, owner: str, session: str) -> None:
        self.owner = owner
        self.session = session
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Turns:
    """`slots` pieces of code run at a time. The last free slot is for owners of whom nothing runs; who has least running comes first."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._running = Counter[str]()
        self._waiting: list[_Waiting] = []

    @property
    def share(self) -> int:
        """How many pieces of code one owner can have running."""
        return max(1, self.slots - 1)

    @asynccontextmanager
    async def turn(self, owner: str, session: str, seconds: float) -> AsyncGenerator[None]:
        """Wait for it at most so long. Raises Busy."""
        await self._take(owner, session, seconds)
        try:
            yield
        finally:
            self._give_back(owner)

    def refuse(self, session: str, reason: str) -> None:
        """Nobody waits for this session's turn any more."""
        for waiting in self._waiting:
            if waiting.session == session and not waiting.turn.done():
                waiting.turn.set_exception(Busy(reason))

    async def _take(self, owner: str, session: str, seconds: float) -> None:
        if sum(waiting.owner == owner for waiting in self._waiting) >= _MOST_WAITING:
            raise Busy(f"{_MOST_WAITING} calls of this project are waiting for a sandbox already; {self._limit(owner)}")
        waiting = _Waiting(owner, session)
        self._waiting.append(waiting)
        self._grant()
        try:
            async with asyncio.timeout(seconds):
                await waiting.turn
        except TimeoutError as error:
            self._leave(waiting)
            raise Busy(f"there was no turn for this code within {seconds:g} s; {self._limit(owner)}") from error
        except BaseException:
            self._leave(waiting)
            raise

    def _leave(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        elif not waiting.turn.cancelled():  # it got its turn in the same moment
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
        waiting = [waiting for waiting in self._waiting if not waiting.turn.done() and self._may_run(waiting.owner, free)]
        return min(waiting, key=lambda waiting: self._running[waiting.owner], default=None)

    def _may_run(self, owner: str, free: int) -> bool:
        return free > 0 and (free > 1 or self._running[owner] == 0)

    def _limit(self, owner: str) -> str:
        if self._running[owner] >= self.share:
            return f"one project runs code in at most {self.share} sandboxes at a time (SANDBOX_RUNS)"
        return f"code runs in at most {self.slots} sandboxes at a time (SANDBOX_RUNS)"
