"""The servers of tests: how long tests wait for them, and that none outlives the test run, however it ends."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
from pathlib import Path

PATIENCE = 300.0
"""Seconds.

Every wait ends as soon as its condition holds, so only a failure takes this long, and a slow machine is not one.
"""


def guard(
    process: subprocess.Popen[bytes] | subprocess.Popen[str],
    how: signal.Signals = signal.SIGTERM,
    folder: Path | None = None,
) -> None:
    """If the test run ends before `release`, even by SIGKILL, the process gets the signal `how`, and its folder is
    removed.
    """
    _tell(f"{process.pid} {int(how)} {folder or '-'}")


def release(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """The process has ended."""
    _tell(f"{process.pid} 0 -")


def _tell(line: str) -> None:
    watchdog = _watchdog()
    if watchdog.stdin is not None:
        watchdog.stdin.write(f"{line}\n".encode())
        watchdog.stdin.flush()


@functools.cache
def _watchdog() -> subprocess.Popen[bytes]:
    """In its own session, which no Ctrl-C reaches; it ends when this process's end closes the pipe."""
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name("watchdog.py")], stdin=subprocess.PIPE, start_new_session=True
    )
