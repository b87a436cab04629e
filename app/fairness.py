"""Places that projects share: no project fills them all, and those that wait are served in turns."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager

_HALF_LIFE = 60.0
"""Seconds after which what a project has used counts half."""
_FEW = 2


class Busy(Exception):
    """The project has too much waiting, or has waited too long; the message is a sentence, `retry_after` in seconds."""

    retry_after = 5.0


class Turns:
    """Whose turn it is.

    A project holds at most half of the places, so that others find one free. Of those that wait, whoever has held places for the fewest
    seconds of late goes first; where that is the same, whoever was served longest ago. Of more than two places the last one is kept for
    projects that have used less than a second of late: several busy ones together do not hold up a newcomer either.
    """

    def __init__(self, places: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is in seconds."""
        self._free = places
        self._share = (places + 1) // 2
        self._reserves = places > _FEW
        self._clock = clock
        self._held: dict[str, deque[float]] = {}
        self._used: dict[str, tuple[float, float]] = {}
        self._line: list[str] = []

    def next(self, waiting: Iterable[str]) -> str | None:
        """Of the projects that wait, the one that may take a place now; None: nobody may."""
        wanting = dict.fromkeys(waiting)
        self._line = [project for project in self._line if project in wanting]
        known = set(self._line)
        self._line += [project for project in wanting if project not in known]
        if not self._free:
            return None
        now = self._clock()
        able = [project for project in self._line if len(self._held.get(project, ())) < self._share]
        first = min(able, key=lambda project: int(self._recent(project, now)), default=None)
        if first is not None and self._reserves and self._free == 1 and self._recent(first, now) >= 1:
            return None
        return first

    def take(self, project: str) -> None:
        """It has a place, and was served last."""
        self._free -= 1
        self._held.setdefault(project, deque()).append(self._clock())
        if project in self._line:
            self._line.remove(project)
            self._line.append(project)

    def give_back(self, project: str) -> None:
        """It has one place less."""
        now = self._clock()
        self._used = {one: use for one, use in self._used.items() if _faded(use, now) >= 1}
        begun = self._held[project].popleft()
        self._used[project] = (_faded(self._used.get(project, (0.0, now)), now) + now - begun, now)
        self._free += 1
        if not self._held[project]:
            del self._held[project]

    def _recent(self, project: str, now: float) -> float:
        """Seconds for which it has held places, older ones counting less."""
        return _faded(self._used.get(project, (0.0, now)), now) + sum(now - begun for begun in self._held.get(project, ()))


def _faded(use: tuple[float, float], now: float) -> float:
    """What seconds that were used up to a moment count now."""
    seconds, until = use
    return seconds * 0.5 ** ((now - until) / _HALF_LIFE)


class FairQueue:
    """Waiting for a place, by turns of the projects. Used by one event loop at a time."""

    def __init__(self, places: int, *, waiting: int | None = None, seconds: float | None = None) -> None:
        """`waiting`: the most a project may have in the line; `seconds`: the longest it waits there. None: no limit."""
        self._turns = Turns(places)
        self._most = waiting
        self._seconds = seconds
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def place(self, project: str) -> AsyncGenerator[None]:
        """A place while it is entered. Raises Busy."""
        await self._acquire(project)
        try:
            yield
        finally:
            self._release(project)

    async def _acquire(self, project: str) -> None:
        line = self._waiting.setdefault(project, deque())
        if self._most is not None and len(line) >= self._most:
            raise Busy("Too much of this project is waiting for its turn already. Try again in a moment.")
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        self._serve()
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except TimeoutError as error:
            self._leave(project, turn)
            raise Busy(f"Its turn has not come within {self._seconds:g} s. Try again in a moment.") from error
        except BaseException:
            self._leave(project, turn)
            raise

    def _leave(self, project: str, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():  # the place came in the same moment
            self._release(project)
            return
        line = self._waiting.get(project, deque())
        if turn in line:
            line.remove(turn)
            if not line:
                del self._waiting[project]

    def _release(self, project: str) -> None:
        self._turns.give_back(project)
        self._serve()

    def _serve(self) -> None:
        while (project := self._turns.next(self._waiting)) is not None:
            line = self._waiting[project]
            self._turns.take(project)
            turn = line.popleft()
            if not line:
                del self._waiting[project]
            if turn.cancelled():  # whoever waited is about to leave the line
                self._turns.give_back(project)
            else:
                turn.set_result(None)
