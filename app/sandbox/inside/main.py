"""The interpreter in a sandbox.

On the control socket come lines of JSON: first the set-up, answered by `{"ready": true}`, then requests `{"code", "seconds"}`, each
answered by `{"timed_out"}`. Everything printed goes to standard output, errors too, in order. The service believes nothing of this: once
code of others has run here, all of it may lie.
"""

from __future__ import annotations

import ast
import json
import linecache
import os
import resource
import signal
import sys
import traceback
from types import FrameType, ModuleType
from typing import Any

from app.sandbox.inside import confine, figures

_output: Any = sys.stdout


class TimeLimitReached(KeyboardInterrupt):
    """The code took too long."""

    __module__ = "builtins"  # tracebacks then show the bare name


def main(control: int) -> None:
    """Confine this process, then run what comes on the file descriptor `control` until the service hangs up."""
    sys.path.pop(0)  # where these files are
    with os.fdopen(control, "rb", closefd=False) as requests, os.fdopen(control, "wb", closefd=False) as replies:
        setup = json.loads(requests.readline())
        _output.reconfigure(line_buffering=True, encoding="utf-8", errors="backslashreplace")
        sys.stderr = _output  # one stream, so that the order is kept
        _prepare(setup)
        _reply(replies, {"ready": True})
        cells = _Cells(setup)
        while line := requests.readline():
            _reply(replies, {"timed_out": cells.run(**json.loads(line))})


def _prepare(setup: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(setup["environment"])
    os.chdir(setup["data"])
    sys.path.extend(setup["packages"])
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
    """Runs code piece by piece in one `__main__` module, as a notebook does."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._directory: str = setup["data"]
        self._cpu: int = setup["cpu_seconds"]
        self._count = 0
        self._module = ModuleType("__main__")
        sys.modules["__main__"] = self._module
        sys.path.insert(0, self._directory)
        signal.signal(signal.SIGALRM, _stop)
        figures.watch(self._directory)

    def run(self, code: str, seconds: float) -> bool:
        """Whether it was stopped for taking too long."""
        self._count += 1
        name = f"<cell {self._count}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent + self._cpu, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                self._execute(code, name)
                figures.save(self._directory)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except SystemExit:
            return False
        except BaseException as error:  # noqa: BLE001 - whatever the code raises is its output
            _show(error)
            return isinstance(error, TimeLimitReached)
        finally:
            _flush()
        return False

    def _execute(self, code: str, name: str) -> None:
        tree = ast.parse(code, name)
        last = [tree.body.pop()] if tree.body and isinstance(tree.body[-1], ast.Expr) else []
        exec(compile(tree, name, "exec"), self._module.__dict__)  # noqa: S102 - this is what the sandbox is for
        exec(compile(ast.Interactive(last), name, "single"), self._module.__dict__)  # noqa: S102 - "single" shows the value


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise TimeLimitReached


def _show(error: BaseException) -> None:
    """The traceback as the code's author expects it, without the frames of this file."""
    try:
        shown = traceback.TracebackException.from_exception(error)
        lines = list(_without_our_frames(shown).format())
    except BaseException as another:  # noqa: BLE001 - an exception that cannot be shown is still its code's affair
        lines = [f"{type(error).__name__} (it cannot be shown: {type(another).__name__})\n"]
    _output.writelines(lines)


def _without_our_frames(shown: traceback.TracebackException) -> traceback.TracebackException:
    link: traceback.TracebackException | None = shown
    while link is not None:
        link.stack[:] = [frame for frame in link.stack if frame.filename != __file__]
        link = link.__cause__ or link.__context__
    return shown


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, _output):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # the code has closed or replaced it
            continue
