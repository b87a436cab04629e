"""What several tests of worker processes need."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path


def hold(path: str) -> None:
    """Tell who works here, and do not end."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


async def gone(pid: int) -> None:
    """Wait until the process works no more."""
    await until(lambda: not works(pid))


def works(pid: int) -> bool:
    """It is there, and has not ended."""
    try:
        # ended, and not ours to wait for
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does; the limit is only there to end a test that fails."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.01)
