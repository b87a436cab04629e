"""The worker process: runs one call after the other until its input ends."""

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
    os.dup2(2, 1)  # output that libraries print must not mix with answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the gateway, which stops its workers
    with suppress(EOFError):
        setup: Setup = _received(requests)
        # this imports the work's module, which may be where a confined process cannot read
        request = _received(requests)
        try:
            _prepare(setup)
        except OSError:
            _send(replies, protocol.Failed(traceback.format_exc()))
            return
        while True:
            _send(replies, _answer(setup, *request))
            request = _received(requests)


def _received(requests: IO[bytes]) -> Any:
    return pickle.loads(protocol.read(requests, _ANY_SIZE))  # noqa: S301 - from the gateway


def _answer(
    setup: Setup, seconds: float, cpu_seconds: float | None, work: Any, arguments: tuple[Any, ...]
) -> protocol.Answer:
    _end_in(seconds + 1)  # in case the gateway is gone and cannot kill it
    _allow_cpu(cpu_seconds)
    try:
        return protocol.Done(msgspec.Raw(msgspec.msgpack.encode(work(*arguments))))
    except MemoryError:
        return protocol.OutOfMemory()
    except Exception as error:  # noqa: BLE001 - the gateway handles all of them
        if setup.refusal is not None and isinstance(error, setup.refusal):
            return protocol.Refused(str(error))
        return protocol.Failed(traceback.format_exc())
    finally:
        _end_in(0)


def _send(replies: IO[bytes], answer: protocol.Answer) -> None:
    try:
        content = msgspec.msgpack.encode(answer)
    except UnicodeEncodeError:  # an exception's message may contain any characters
        content = msgspec.msgpack.encode(protocol.Failed("the worker's message cannot be encoded"))
    protocol.write(replies, content)


if sys.platform == "win32":

    def _prepare(setup: Setup) -> None:
        """Windows has none of these limits."""

    def _end_in(seconds: float) -> None:
        del seconds

    def _allow_cpu(seconds: float | None) -> None:
        del seconds

else:
    import resource

    def _prepare(setup: Setup) -> None:
        """Raises OSError if it cannot be confined as required."""
        with suppress(OSError):  # on Linux: if memory runs out nevertheless, this process is killed, not the gateway
            Path("/proc/self/oom_score_adj").write_text("1000")
        # Writable memory, not address space: libraries map models and reserve address space by the gigabyte.
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
        signal.alarm(math.ceil(seconds))  # ends the process even inside a library's loop; 0 cancels it

    def _allow_cpu(seconds: float | None) -> None:
        """From now on; the process is killed at the limit.

        The hard limit stays, since it could not be raised for the next call.
        """
        if seconds is None:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        most = math.ceil(used.ru_utime + used.ru_stime + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
