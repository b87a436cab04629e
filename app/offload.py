"""Work for another process: what would hold up the event loop, or could crash on hostile input.

Worker processes start when they are needed and end after five idle minutes (anyio's pool), so that a gateway that never needs them
pays nothing, and their memory goes with them.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from typing import TypeVar

from anyio import BrokenWorkerProcess, CapacityLimiter, to_process

T = TypeVar("T")

_MEMORY_BYTES = 4 * 1024**3
_limiters: dict[str, CapacityLimiter] = {}


class OffloadFailed(Exception):
    """The work took too long, too much memory, or ended its process."""


async def run(work: Callable[..., T], *arguments: object, seconds: float, kind: str = "any", at_once: int = 1) -> T:
    """Call `work` (a module's function; everything goes and comes by pickle) in a worker process.

    At most `at_once` calls of one `kind` run at a time. What the function raises is raised here. Raises OffloadFailed; a call that
    takes longer than `seconds`, or whose caller is cancelled, is killed.
    """
    limiter = _limiters.setdefault(kind, CapacityLimiter(at_once))
    try:
        async with limiter, asyncio.timeout(seconds):
            return await to_process.run_sync(_limited, work, arguments, cancellable=True, limiter=CapacityLimiter(1))
    except TimeoutError as error:
        raise OffloadFailed("it takes too long") from error
    except (BrokenWorkerProcess, MemoryError) as error:
        raise OffloadFailed("it takes too much memory or is malformed") from error


def _limited(work: Callable[..., T], arguments: tuple[object, ...]) -> T:
    if resource.getrlimit(resource.RLIMIT_AS)[0] != _MEMORY_BYTES:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return work(*arguments)
