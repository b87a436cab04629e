"""Looking at a session's files while its code runs, where the file system sets them no limit."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType

from app.sandbox import trees
from app.sandbox.stage import Volume

_GLANCE_SECONDS = 0.01
_LOOK_SECONDS = 0.1


class Watch:
    """While it is entered, `strike` is called as soon as the files of the volume take more than `limit` bytes.

    Counting files takes time, asking a file system for its free space does not: that is done every hundredth of a second, and the files
    are counted when it has shrunk by what the session may still take, and ten times a second anyway. A thread does it, so that a busy
    service looks no less often.
    """

    def __init__(self, volume: Volume, limit: int, pid: int, strike: Callable[[], None]) -> None:
        self.overfull = False
        self._volume = volume
        self._limit = limit
        self._pid = pid
        self._strike = strike
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    async def __aenter__(self) -> Watch:
        self._thread.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while not self._over.is_set():
            begun = time.monotonic()
            left = self._limit - taken(self._volume, self._pid, self._limit)
            if left < 0:
                self.overfull = True
                self._strike()
                return
            self._wait(left, max(_LOOK_SECONDS, 2 * (time.monotonic() - begun)))

    def _wait(self, left: int, seconds: float) -> None:
        """Until it is time to look again."""
        until, free = time.monotonic() + seconds, _free(self._volume)
        while time.monotonic() < until and not self._over.wait(_GLANCE_SECONDS):
            if free - _free(self._volume) > left:
                return


def taken(volume: Volume, pid: int, limit: int) -> int:
    """Bytes that the session's files take, those without a name too; more than `limit` where they cannot be counted."""
    try:
        named = trees.taken(volume.root)
    except (OSError, trees.Unbounded):  # nobody who means well nests so deep
        return limit + 1
    try:
        return named + trees.unnamed(pid, volume.user)
    except OSError:  # it is ending, and lets go of them
        return named


def _free(volume: Volume) -> int:
    found = os.statvfs(volume.root)
    return found.f_bfree * found.f_frsize
