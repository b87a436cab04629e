"""Kills what a test run has left behind: reads lines `PID SIGNAL FOLDER`; at the end of its input, kills all that were
not released.

The input ends when the test run does, in any way. A SIGNAL of 0 releases a process.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

_GRACE_SECONDS = 20.0

Watched = tuple[int, str]
"""The signal that ends a process, and the folder to remove with it; "-" is none."""


def main() -> None:
    """Read, then kill."""
    watched: dict[int, Watched] = {}
    for line in sys.stdin:
        pid, how, folder = line.rstrip("\n").split(" ", 2)
        if int(how):
            watched[int(pid)] = (int(how), folder)
        else:
            watched.pop(int(pid), None)
    _end(watched)
    for _, folder in watched.values():
        if folder != "-":
            shutil.rmtree(folder, ignore_errors=True)


def _end(watched: Mapping[int, Watched]) -> None:
    for pid, (how, _) in watched.items():
        _send(pid, how)
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(_send(pid, 0) for pid in watched) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in watched:
        _send(pid, signal.SIGKILL)


def _send(pid: int, how: int) -> bool:
    """Whether there is such a process."""
    with suppress(ProcessLookupError):
        os.kill(pid, how)
        return True
    return False


if __name__ == "__main__":
    main()
