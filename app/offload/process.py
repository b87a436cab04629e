"""The gateway's side of a worker process."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from typing import IO, NamedTuple, cast

from app.offload import protocol

_KEPT = (
    "COVERAGE_",
    "DYLD_",
    "HOME",
    "LANG",
    "LC_",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHON",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "TZ",
)
"""Prefixes of the environment variables that a worker inherits; none of them holds keys."""
_FEW_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Numerical libraries would start one thread per processor, each with its own memory, in every worker."""
_ENDING_SECONDS = 5.0


class Setup(NamedTuple):
    """The first message to a worker."""

    memory_bytes: int
    refusal: type[Exception] | None
    confined: bool


class Process:
    """A worker process."""

    def __init__(self, setup: Setup) -> None:
        self.idle = False
        self.calls = 0
        environment = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from app.offload import worker; worker.serve()"],
            env=environment | _FEW_THREADS | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._to, self._back = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        self._setup: Setup | None = setup

    @property
    def alive(self) -> bool:
        """Whether it accepts calls."""
        return self._process.poll() is None

    def call(self, request: tuple[object, ...], most: int) -> protocol.Answer:
        """Send a request to `worker.serve` and return its answer, of at most `most` bytes. Blocks.

        Raises OSError or EOFError if the process ends meanwhile, and BrokenAnswer.
        """
        self.calls += 1
        if self._setup is not None:
            protocol.write(self._to, pickle.dumps(self._setup))
            self._setup = None
        protocol.write(self._to, pickle.dumps(request, pickle.HIGHEST_PROTOCOL))
        return protocol.answer(protocol.read(self._back, most))

    def ending(self) -> int | None:
        """Its exit status; None: it is still running. Blocks briefly."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(_ENDING_SECONDS)
        return None

    def kill(self) -> None:
        """Kill it; a running `call` ends at once."""
        self._process.kill()

    def end(self) -> None:
        """Close its input, so that it exits by itself. Blocks."""
        with suppress(OSError):
            self._to.close()
        self._back.close()
        if self.ending() is None:
            self.kill()
            self._process.wait()
