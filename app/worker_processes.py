"""The parent of several worker processes."""

from __future__ import annotations

import os
import signal
import socket

import uvicorn
from uvicorn.supervisors import Multiprocess

_POLL_SECONDS = 0.5


class Parent(Multiprocess):
    """Starts the workers again when they die, until it is told to stop.

    A second stop signal reaches them, too, and ends their drain.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self._stops = 0

    def handle_int(self) -> None:
        self.handle_term()

    def handle_term(self) -> None:
        """Stop."""
        self._stops += 1
        self.should_exit.set()

    def handle_hup(self) -> None:
        """The end of a terminal changes nothing."""

    def join_all(self) -> None:
        """Wait for the workers, which have been told to stop."""
        for worker in self.processes:
            while worker.process.is_alive():
                worker.process.join(_POLL_SECONDS)
                self.handle_signals()
                if self._stops > 1:
                    self._hurry()

    def _hurry(self) -> None:
        """Again and again: a signal is lost if the one before it has not been handled yet."""
        for worker in self.processes:
            if worker.pid is not None and worker.process.is_alive():
                os.kill(worker.pid, signal.SIGTERM)
