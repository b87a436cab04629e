"""Worker processes: call functions in them, with limits and fair scheduling of projects.

Workers start on demand and end after five idle minutes, so that a gateway that never needs them pays nothing, and their
memory is freed. They are plain subprocesses, used from threads: unlike those of the pools of anyio and the standard
library they can be killed at any moment, belong to no event loop, do not run the main program again, and have no keys
in their environment.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import TypeVar, cast

import msgspec

from app.fairness import FairQueue
from app.offload.process import Process, Setup
from app.offload.protocol import Answer, BrokenAnswer, Done, Failed, Limits, OutOfMemory, Refused, result

T = TypeVar("T")

_log = logging.getLogger(__name__)
_IDLE_SECONDS = 300
_MOST_CALLS = 200
"""Calls per process; ending it frees whatever libraries have leaked or documents have left behind."""
_LONGEST_REFUSAL = 1000
"""Maximum characters of a worker's reason."""


class OffloadFailed(Exception):
    """The work took too long or too much memory, or crashed its process.

    The message is a clause that begins with "it" or "the".
    """


class Workers:
    """The worker processes of one kind. They keep what they have loaded, and none works for more than one project."""

    def __init__(
        self,
        limits: Limits,
        *,
        places: int = 1,
        waiting: int | None = None,
        refusal: type[Exception] | None = None,
        confined: bool = True,
    ) -> None:
        """`places`: concurrent calls; one project gets at most half of them.

        `waiting`: maximum waiting calls per project. `refusal`: the exception that the work raises for input it
        refuses; it is raised again with its message. `confined`: only the program's files, no network, no processes, if
        the machine supports this.
        """
        self._limits = limits
        self._refusal = refusal
        self._queue = FairQueue(places, waiting=waiting, seconds=None if waiting is None else limits.seconds)
        self._setup = Setup(limits.memory_bytes, refusal, confined)
        self._places = places
        self._idle: list[tuple[str, Process, asyncio.TimerHandle]] = []
        _kinds.append(self)

    async def run(self, work: Callable[..., T], *arguments: object, project: str = "", share: float = 1.0) -> T:
        """Call `work`, a module-level function whose arguments can be pickled and whose annotated result type msgspec
        supports.

        `share`: fraction of the CPU time limit for this call. Raises `refusal`, OffloadFailed, and Busy if too many of
        the project's calls wait. A call that exceeds its limits, or whose caller is cancelled, is killed; waiting does
        not count.
        """
        cpu = self._limits.cpu_seconds
        limits = msgspec.structs.replace(self._limits, cpu_seconds=None if cpu is None else ceil(cpu * share))
        async with self._queue.place(project):
            answer, found = await self._asked(project, limits, work, arguments)
        match answer:
            case Done():
                return cast("T", found)
            case Refused(message) if self._refusal is not None:
                raise self._refusal(message[:_LONGEST_REFUSAL])
            case OutOfMemory():
                raise OffloadFailed(self._too_much_memory)
            case Refused(reason) | Failed(reason):
                _log.error("%s failed in a worker process: %s", work.__qualname__, reason[-4000:])
                raise OffloadFailed("it cannot be processed here; the log says why")

    async def _asked(
        self, project: str, limits: Limits, work: Callable[..., T], arguments: tuple[object, ...]
    ) -> tuple[Answer, object]:
        """Call a worker. Raises OffloadFailed, after which the worker no longer exists."""
        try:
            process = self._take(project)
        except OSError as error:  # out of file descriptors, processes or memory
            raise OffloadFailed(f"the process for it cannot be started ({error.strerror})") from error

        def ask() -> tuple[Answer, object]:
            answer = process.call((limits.seconds, limits.cpu_seconds, work, arguments), limits.answer_bytes)
            return answer, result(answer, work) if isinstance(answer, Done) else None

        try:
            async with asyncio.timeout(limits.seconds):
                told = await asyncio.get_running_loop().run_in_executor(_threads, ask)
        except TimeoutError as late:
            raise OffloadFailed(f"it took more than {limits.seconds:g} s") from late
        except BrokenAnswer as error:
            raise OffloadFailed(str(error)) from error
        except (OSError, EOFError) as ended:
            raise OffloadFailed(await self._why(process, limits)) from ended
        else:
            if not isinstance(told[0], Failed) and process.calls < _MOST_CALLS:
                self._give_back(project, process)
            return told
        finally:
            if not process.idle:
                process.kill()
                _threads.submit(process.end)

    async def _why(self, process: Process, limits: Limits) -> str:
        """The reason why the process ended by itself."""
        code = await asyncio.get_running_loop().run_in_executor(_threads, process.ending)
        if code == -getattr(signal, "SIGXCPU", 0) and limits.cpu_seconds is not None:
            return f"it took more than {limits.cpu_seconds:g} s of CPU time"
        return f"it crashed the worker process: it is malformed, or {self._too_much_memory.removeprefix('it ')}"

    @property
    def _too_much_memory(self) -> str:
        return f"it needs more than {self._limits.memory_bytes / 2**30:g} GiB of memory"

    def _take(self, project: str) -> Process:
        """The project's most recently used worker, or a new one."""
        for entry in reversed(self._idle):
            owner, process, retirement = entry
            if owner == project:
                retirement.cancel()
                self._idle.remove(entry)
                if process.alive:
                    process.idle = False
                    return process
                _threads.submit(process.end)
                break
        return Process(self._setup)

    def _give_back(self, project: str, process: Process) -> None:
        """Mark it idle; it ends if it stays idle, or if others have become idle since."""
        process.idle = True
        retirement = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._retire, process)
        self._idle.append((project, process, retirement))
        while len(self._idle) > self._places:
            self._retire(self._idle[0][1])

    def _retire(self, process: Process) -> None:
        for entry in self._idle:
            if entry[1] is process:
                entry[2].cancel()
        self._idle = [entry for entry in self._idle if entry[1] is not process]
        _threads.submit(process.end)

    def end(self) -> None:
        """End all workers, at exit."""
        for _, process, _ in self._idle:
            process.end()
        self._idle.clear()


_threads = ThreadPoolExecutor(max_workers=64, thread_name_prefix="offload")
_kinds: list[Workers] = []


@atexit.register
def _end() -> None:
    for workers in _kinds:
        workers.end()
