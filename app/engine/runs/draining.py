"""What happens to runs when the process is to stop."""

from __future__ import annotations

import asyncio
import logging

from app.engine.runs.background import BackgroundRuns
from app.engine.runs.supervisor import Runs
from app.engine.upstreams.failures import STOPPED

_log = logging.getLogger(__name__)


class Drain:
    """Lets running responses end by themselves for a while.

    What nobody has seen a word of is given to other processes at once.
    """

    def __init__(self, runs: Runs, background: BackgroundRuns, seconds: float) -> None:
        """`seconds`: how long."""
        self._runs = runs
        self._background = background
        self._seconds = seconds
        self._handing_over: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The process has received a stop signal; with the second one the time is over."""
        if self._handing_over is not None:
            self.end()
            return
        self._handing_over = self._runs.start(self._background.drain())
        asyncio.get_running_loop().call_later(self._seconds, self.end)

    def end(self) -> None:
        """End all runs: their clients and readers get a terminal event."""
        left = len(self._runs) + len(self._background)
        if left:
            _log.warning("%d running responses are ended, since the server stops", left)
        self._runs.interrupt(STOPPED)
        self._background.interrupt(STOPPED)
