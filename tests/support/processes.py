"""The servers of tests: how long they are waited for, and that none outlives the test run, however it ends."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
from pathlib import Path

PATIENCE = 300.0
"""Seconds. Every wait ends with what it waits for, so only a failure takes this long, and a slow machine is none."""


def guard(
    process: subprocess.Popen[bytes] | subprocess.Popen[str], how: signal.Signals = signal.SIGTERM, folder: Path | None = None
) -> None:
    """Should the test run end before `release`, even by SIGKILL, the process gets `how`, and its folder goes."""
    _tell(f"{process.pid} {int(how)} {folder or '-'}")


def release(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """The process has been ended."""
    _tell(f"{process.pid} 0 -")


def _tell(line: str) -> None:
    watchdog = _watchdog()
    if watchdog.stdin is not None:
        watchdog.stdin.write(f"{line}\n".encode())
        watchdog.stdin.flush()


@functools.cache
def _watchdog() -> subprocess.Popen[bytes]:
    """In a session of its own, where no Ctrl-C reaches it; it ends when this process closes the pipe by ending."""
    return subprocess.Popen([sys.executable, Path(__file__).with_name("watchdog.py")], stdin=subprocess.PIPE, start_new_session=True)
