"""Work for another process: what would hold up the event loop, or could crash on hostile input.

Workers start when they are needed and end after five idle minutes, so that a gateway that never needs them pays nothing, and their
memory goes with them. They are plain subprocesses that threads speak to: unlike those of the pools of anyio and the standard library
they can be killed at any moment, belong to no event loop, do not run the main program again, and find no keys in their environment.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from anyio import CapacityLimiter

T = TypeVar("T")

_MEMORY_BYTES = 4 * 1024**3
_IDLE_SECONDS = 300
_SECRETS = ("GATEWAY_", "AWS_", "DASHSCOPE_")
"""How the names of variables begin that a worker has no need of."""
_PROTOCOL = pickle.HIGHEST_PROTOCOL


class OffloadFailed(Exception):
    """The work took too long, too much memory, or ended its process."""


async def run(work: Callable[..., T], *arguments: object, seconds: float, kind: str = "any", at_once: int = 1) -> T:
    """Call `work` (a module's function; everything goes and comes by pickle) in a worker process.

    At most `at_once` calls of one `kind` run at a time; waiting for the others does not count. A worker serves one kind only: what it
    has loaded stays at hand. What the function raises is raised here. Raises OffloadFailed; a call that takes longer than `seconds`,
    or whose caller is cancelled, is killed.
    """
    request = pickle.dumps((seconds, work, arguments), _PROTOCOL)
    pool = _pools.setdefault(kind, _Pool(at_once))
    async with pool.limiter:
        worker = pool.take()
        try:
            async with asyncio.timeout(seconds):
                result, error = await asyncio.get_running_loop().run_in_executor(_threads, worker.call, request)
        except TimeoutError as late:
            raise OffloadFailed("it takes too long") from late
        except (OSError, EOFError, pickle.UnpicklingError) as ended:
            raise OffloadFailed("it takes too much memory or is malformed") from ended
        else:
            pool.give_back(worker)
        finally:
            if not worker.idle:
                worker.discard()
    if isinstance(error, MemoryError):
        raise OffloadFailed("it takes too much memory") from error
    if error is not None:
        raise error
    return cast("T", result)


class _Pool:
    """The idle workers of one kind. Used by the event loop's thread only."""

    def __init__(self, at_once: int) -> None:
        self.limiter = CapacityLimiter(at_once)
        self._idle: list[tuple[_Worker, asyncio.TimerHandle]] = []

    def take(self) -> _Worker:
        """The worker that was used last, or a new one."""
        while self._idle:
            worker, retirement = self._idle.pop()
            retirement.cancel()
            if worker.alive:
                worker.idle = False
                return worker
        return _Worker()

    def give_back(self, worker: _Worker) -> None:
        """It is idle now, and ends if it stays so."""
        worker.idle = True
        self._idle.append((worker, asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._retire, worker)))

    def _retire(self, worker: _Worker) -> None:
        self._idle = [entry for entry in self._idle if entry[0] is not worker]
        _threads.submit(worker.end)

    def end(self) -> None:
        """The program ends."""
        for worker, _ in self._idle:
            worker.end()
        self._idle.clear()


class _Worker:
    """This end of a worker process."""

    def __init__(self) -> None:
        self.idle = False
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from app import offload; offload.serve()"],
            env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._to, self._back = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)

    @property
    def alive(self) -> bool:
        """It can be asked."""
        return self._process.poll() is None

    def call(self, request: bytes) -> tuple[Any, Exception | None]:
        """What the work returned or raised. Blocks. Raises OSError, EOFError, UnpicklingError when the process ends meanwhile."""
        self._to.write(request)
        self._to.flush()
        return pickle.load(self._back)  # noqa: S301 - of our own process

    def discard(self) -> None:
        """Stop whatever it is doing; a `call` ends at once."""
        self._process.kill()
        _threads.submit(self.end)

    def end(self) -> None:
        """Let it end by itself, as it does when its input ends. Blocks."""
        with suppress(OSError):
            self._to.close()
        self._back.close()
        self._process.wait()


_threads = ThreadPoolExecutor(max_workers=64, thread_name_prefix="offload")
_pools: dict[str, _Pool] = {}


@atexit.register
def _end() -> None:
    for pool in _pools.values():
        pool.end()


# --- In the worker process -----------------------------------------------------------------------------------------------------


def serve() -> None:
    """Do what is asked, one thing after the other, until the input ends."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the gateway, which ends its workers
    _limit_memory()
    while requests.peek(1):
        try:
            reply = pickle.dumps((_do(requests), None), _PROTOCOL)
        except Exception as error:  # noqa: BLE001 - all of them are raised again on the other side
            error.add_note(traceback.format_exc())
            reply = pickle.dumps((None, error), _PROTOCOL)
        replies.write(reply)
        replies.flush()


def _do(requests: IO[bytes]) -> object:
    seconds, work, arguments = pickle.load(requests)  # noqa: S301 - of our own process
    _end_in(seconds + 1)  # should nobody be left to kill it
    try:
        return work(*arguments)
    finally:
        _end_in(0)


if sys.platform == "win32":

    def _limit_memory() -> None:
        """Windows has neither this limit nor that signal."""

    def _end_in(seconds: float) -> None:
        del seconds

else:
    import resource

    def _limit_memory() -> None:
        # What is written to, not what is mapped: libraries map models and reserve address space by the gigabyte.
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        with suppress(OSError):  # on Linux: where memory runs out all the same, this process goes and not the gateway
            Path("/proc/self/oom_score_adj").write_text("1000")

    def _end_in(seconds: float) -> None:
        signal.alarm(math.ceil(seconds))  # ends the process even in the middle of a library's loop; 0 calls it off
