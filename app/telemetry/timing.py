"""How long the operations of an adapter take, and whether they fail."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Protocol, TypeVar

_T = TypeVar("_T")


class Note(Protocol):
    """Takes one measurement."""

    def __call__(self, operation: str, seconds: float, *, failed: bool) -> None:
        """Note how long the operation of that name took."""
        ...


async def timed(operation: str, work: Awaitable[_T], note: Note, failure: type[Exception]) -> _T:
    """Await the work and note how long it took; it has failed if it raises `failure`."""
    began, failed = time.perf_counter(), False
    try:
        return await work
    except failure:
        failed = True
        raise
    finally:
        note(operation, time.perf_counter() - began, failed=failed)
