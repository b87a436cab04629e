"""Monitors a session's files while its code runs, if the file system does not limit them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from sandbox import trees
from sandbox.stage import Volume

_GLANCE_SECONDS = 0.01
_LOOK_SECONDS = 0.1


class Watched(Protocol):
    """What is running; its methods may be called from any thread, even after it has ended."""

    @property
    def pid(self) -> int:
        """Its process."""
        ...

    def pause(self) -> None:
        """Stop its processes (SIGSTOP)."""
        ...

    def resume(self) -> None:
        """Continue them."""
        ...

    def strike(self) -> None:
        """End it."""
        ...


class Watch:
    """While entered, code is killed as soon as its files take more than `limit` bytes.

    Counting files takes time, asking a file system for its free space does not: that is done every hundredth of a
    second. If it has shrunk by what the session may still use, the code is paused while its files are counted; ten
    times a second they are counted anyway. It is done in a thread, so that a busy service checks no less often.
    """

    def __init__(self, volume: Volume, limit: int, watched: Watched) -> None:
        self.overfull = False
        self._volume = volume
        self._limit = limit
        self._watched = watched
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    async def __aenter__(self) -> Watch:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        await asyncio.to_thread(self._thread.join)
        self._watched.pause()  # whatever the thread did last: nothing runs between two runs

    def _run(self) -> None:
        left, suspicious = self._limit, False
        while not self._over.is_set():
            begun = time.monotonic()
            left = self._look(left, still=suspicious)
            if left < 0:
                self.overfull = True
                self._watched.strike()
                return
            suspicious = self._wait(left, max(_LOOK_SECONDS, 2 * (time.monotonic() - begun)))

    def _look(self, left: int, *, still: bool) -> int:
        """How many bytes it may still use; it was `left` at the last check."""
        if not still:
            try:
                return self._limit - taken(self._volume, self._watched.pid, self._limit, _Shrinking(self._volume, left))
            except _Shrunk:
                pass
        self._watched.pause()
        try:
            return self._limit - taken(self._volume, self._watched.pid, self._limit)
        finally:
            self._watched.resume()

    def _wait(self, left: int, seconds: float) -> bool:
        """Wait until the next check; whether there is less free space than there should be."""
        until, shrinking = time.monotonic() + seconds, _Shrinking(self._volume, left)
        while time.monotonic() < until and not self._over.wait(_GLANCE_SECONDS):
            try:
                shrinking()
            except _Shrunk:
                return True
        return False


class _Shrunk(Exception):
    """The file system has less free space than if the session had kept to its limit."""


class _Shrinking:
    """Calling it raises _Shrunk if the file system has shrunk by more than `left` bytes, or by more files than a
    session may have.
    """

    def __init__(self, volume: Volume, left: int) -> None:
        self._root = volume.root
        self._left = left
        self._bytes, self._files = self._free()

    def __call__(self) -> None:
        free_bytes, free_files = self._free()
        if self._bytes - free_bytes > self._left or self._files - free_files > trees.MAX_ENTRIES:
            raise _Shrunk

    def _free(self) -> tuple[int, int]:
        found = os.statvfs(self._root)
        return found.f_bfree * found.f_frsize, found.f_ffree


def taken(volume: Volume, pid: int, limit: int, now_and_then: Callable[[], None] | None = None) -> int:
    """Bytes used by the session's files, including deleted open ones; more than `limit` if they cannot be counted."""
    try:
        named = trees.taken(volume.root, now_and_then)
    except (OSError, trees.Unbounded):  # no legitimate code nests this deep
        return limit + 1
    try:
        return named + trees.unnamed(pid, volume.user)
    except OSError:  # it is exiting, and releases them
        return named
