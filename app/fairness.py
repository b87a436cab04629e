"""Fair scheduling of slots that projects share: no project takes all of them, and waiting projects take turns."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager

_HALF_LIFE = 60.0
"""Seconds after which a project's past use counts half."""
_FEW = 2


class Busy(Exception):
    """Too much of the project is waiting, or it has waited too long.

    The message is a sentence, `retry_after` in seconds.
    """

    retry_after = 5.0


class Turns:
    """Decides which project is next.

    A project holds at most half of the slots, so that others find one free. Of the waiting projects, the one that has
    recently held slots for the fewest seconds goes first; if equal, the one served longest ago. If there are more than
    two slots, the last one is reserved for projects with less than a second of recent use: several busy projects
    together do not delay a newcomer either.
    """

    def __init__(self, places: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._free = places
        self._share = (places + 1) // 2
        self._reserves = places > _FEW
        self._clock = clock
        self._held: dict[str, deque[float]] = {}
        self._used: dict[str, tuple[float, float]] = {}
        self._line: list[str] = []

    def next(self, waiting: Iterable[str]) -> str | None:
        """The waiting project that may take a slot now; None: none may."""
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
        """The project takes a slot; it is now the one served last."""
        self._free -= 1
        self._held.setdefault(project, deque()).append(self._clock())
        if project in self._line:
            self._line.remove(project)
            self._line.append(project)

    def give_back(self, project: str) -> None:
        """The project releases a slot."""
        now = self._clock()
        self._used = {one: use for one, use in self._used.items() if _faded(use, now) >= 1}
        begun = self._held[project].popleft()
        self._used[project] = (_faded(self._used.get(project, (0.0, now)), now) + now - begun, now)
        self._free += 1
        if not self._held[project]:
            del self._held[project]

    def _recent(self, project: str, now: float) -> float:
        """Seconds for which it has held slots; older ones count less."""
        return _faded(self._used.get(project, (0.0, now)), now) + sum(
            now - begun for begun in self._held.get(project, ())
        )


def _faded(use: tuple[float, float], now: float) -> float:
    """The present weight of seconds used up to a moment."""
    seconds, until = use
    return seconds * 0.5 ** ((now - until) / _HALF_LIFE)


class FairQueue:
    """A queue for slots in which projects take turns. Used by one event loop at a time."""

    def __init__(self, places: int, *, waiting: int | None = None, seconds: float | None = None) -> None:
        """`waiting`: maximum queue entries per project; `seconds`: maximum time in the queue. None: no limit."""
        self._turns = Turns(places)
        self._most = waiting
        self._seconds = seconds
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def place(self, project: str) -> AsyncGenerator[None]:
        """Context manager that holds a slot. Raises Busy."""
        await self._acquire(project)
        try:
            yield
        finally:
            self._release(project)

    async def _acquire(self, project: str) -> None:
        line = self._waiting.setdefault(project, deque())
        if self._most is not None and len(line) >= self._most:
            raise Busy("Too much work of this project is already waiting. Try again in a moment.")
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        self._serve()
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except TimeoutError as error:
            self._leave(project, turn)
            raise Busy(
                f"No slot became free for this project within {self._seconds:g} s. Try again in a moment."
            ) from error
        except BaseException:
            self._leave(project, turn)
            raise

    def _leave(self, project: str, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():  # it got a slot in the same moment
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
            if turn.cancelled():  # the waiter is about to leave the queue
                self._turns.give_back(project)
            else:
                turn.set_result(None)
