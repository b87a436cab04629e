"""The interpreter in a sandbox.

The control socket receives lines of JSON: first the set-up, answered by `{"ready": true}`, then requests `{"code",
"seconds"}`, each answered by `{"timed_out"}`. All output goes to standard output, errors too, in order. The service
trusts nothing of this: once untrusted code has run here, all of it may be forged.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from types import FrameType
from typing import Any

from sandbox.inside import confine, errors
from sandbox.inside.notebook import Notebook

_FOR_LIBRARIES = {"COLUMNS": "160", "JOBLIB_MULTIPROCESSING": "0", "USER": "sandbox"}
"""A width for a reader without a terminal; joblib would look for processes, and warn; the user has no name."""
_OUR_NAME = __name__.partition(".")[0]
_output: Any = sys.stdout


def main(control: int) -> None:
    """Confine this process, then run what arrives on the file descriptor `control` until the service closes it."""
    sys.path.pop(0)  # the directory of these files
    with os.fdopen(control, "rb", closefd=False) as requests, os.fdopen(control, "wb", closefd=False) as replies:
        setup = json.loads(requests.readline())
        _output.reconfigure(line_buffering=True, write_through=True, encoding="utf-8", errors="backslashreplace")
        sys.stderr = _output  # one stream, so that the order is kept
        _prepare(setup)
        _reply(replies, {"ready": True})
        cells = _Cells(setup)
        while line := requests.readline():
            _reply(replies, {"timed_out": cells.run(**json.loads(line))})


def _prepare(setup: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(setup["environment"])
    os.environ.update(_FOR_LIBRARIES)
    os.chdir(setup["data"])
    sys.path.extend(setup["packages"])
    errors.package_directories.extend(setup["packages"])
    sys.argv = [""]
    confine.limit(setup["limits"])
    if setup["readable"] is not None:
        confine.drop_capabilities()
        confine.landlock(setup["readable"], setup["writable"], setup["landlock"])
    confine.filter_calls(shares_files=setup["readable"] is not None)


def _reply(replies: Any, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message).encode() + b"\n")
    replies.flush()


class _Cells:
    """Runs cells within their time limits."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._cpu: int = setup["cpu_seconds"]
        self._notebook = Notebook(setup["data"])
        for name in [name for name in sys.modules if name.partition(".")[0] == _OUR_NAME]:
            del sys.modules[name]  # the code may have a module of the same name
        signal.signal(signal.SIGALRM, _stop)

    def run(self, code: str, seconds: float) -> bool:
        """Whether it was stopped at the time limit."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent + self._cpu, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                self._notebook.run(code)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except errors.TimeLimitReached as reached:
            errors.show(reached)
            return True
        finally:
            _flush()
        return False


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise errors.TimeLimitReached


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, _output):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # the code has closed or replaced it
            continue
