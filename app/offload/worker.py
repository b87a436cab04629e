"""In a worker process: does what it is asked, one thing after the other, until its input ends."""

from __future__ import annotations

import math
import os
import pickle
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from app.offload import confinement, protocol
from app.offload.process import Setup

_ANY_SIZE = 2**62


def serve() -> None:
    """The worker's main program."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the gateway, which ends its workers
    with suppress(EOFError):
        setup: Setup = _received(requests)
        request = _received(requests)  # which imports the work's module: it may lie where a confined process cannot read
        try:
            _prepare(setup)
        except OSError:
            _send(replies, protocol.Failed(traceback.format_exc()))
            return
        while True:
            _send(replies, _answer(setup, *request))
            request = _received(requests)


def _received(requests: IO[bytes]) -> Any:
    return pickle.loads(protocol.read(requests, _ANY_SIZE))  # noqa: S301 - of the gateway


def _answer(setup: Setup, seconds: float, cpu_seconds: float | None, work: Any, arguments: tuple[Any, ...]) -> protocol.Answer:
    _end_in(seconds + 1)  # should nobody be left to kill it
    _allow_cpu(cpu_seconds)
    try:
        return protocol.Done(msgspec.Raw(msgspec.msgpack.encode(work(*arguments))))
    except MemoryError:
        return protocol.OutOfMemory()
    except Exception as error:  # noqa: BLE001 - all of them are the gateway's to judge
        if setup.refusal is not None and isinstance(error, setup.refusal):
            return protocol.Refused(str(error))
        return protocol.Failed(traceback.format_exc())
    finally:
        _end_in(0)


def _send(replies: IO[bytes], answer: protocol.Answer) -> None:
    try:
        content = msgspec.msgpack.encode(answer)
    except UnicodeEncodeError:  # an exception's words may be of any characters
        content = msgspec.msgpack.encode(protocol.Failed("the worker's words cannot be encoded"))
    protocol.write(replies, content)


if sys.platform == "win32":

    def _prepare(setup: Setup) -> None:
        """Windows has none of the limits."""

    def _end_in(seconds: float) -> None:
        del seconds

    def _allow_cpu(seconds: float | None) -> None:
        del seconds

else:
    import resource

    def _prepare(setup: Setup) -> None:
        """Raises OSError where it cannot be confined as it should."""
        with suppress(OSError):  # on Linux: where memory runs out all the same, this process goes and not the gateway
            Path("/proc/self/oom_score_adj").write_text("1000")
        # What is written to, not what is mapped: libraries map models and reserve address space by the gigabyte.
        _limit(resource.RLIMIT_DATA, setup.memory_bytes)
        _limit(resource.RLIMIT_CORE, 0)
        if setup.confined:
            _limit(resource.RLIMIT_FSIZE, 0)
            _limit(resource.RLIMIT_NOFILE, 256)
            confinement.confine(setup.memory_bytes)

    def _limit(kind: int, value: int) -> None:
        hard = resource.getrlimit(kind)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (allowed, allowed))

    def _end_in(seconds: float) -> None:
        signal.alarm(math.ceil(seconds))  # ends the process even in the middle of a library's loop; 0 calls it off

    def _allow_cpu(seconds: float | None) -> None:
        """From now on; then the process is ended. The hard limit stays, since it could not be raised for the next call."""
        if seconds is None:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        most = math.ceil(used.ru_utime + used.ru_stime + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
