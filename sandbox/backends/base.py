"""The port of the back ends: each says how to start one confined interpreter, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from sandbox.limits import MEBIBYTE, Limits
from sandbox.stage import Runtime, Volume

DATA = "/mnt/data"
_ADDRESS_SPACE_SPARE = 512 * MEBIBYTE
"""For memory that is mapped and not allocated: mostly libraries."""

_SIGNALS = 256
"""Pending signals, including timers; the kernel counts them per user."""

ENVIRONMENT: Mapping[str, str] = {
    "HOME": "/tmp",  # noqa: S108 - the sandbox's own
    "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "2",
    "PATH": "/usr/bin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How to start an interpreter."""

    command: Sequence[str]
    setup: Mapping[str, Any]
    """The first line on its control socket; see `inside/main.py`."""
    ready_seconds: float = 20.0
    """The time within which it must be ready."""
    data: str = DATA
    """Where the code finds its files; code and output are translated if this is not /mnt/data."""


class Backend(Protocol):
    """One way to confine.

    A back end's module is `sandbox.backends.NAME` and exports it as the constant `BACKEND`.
    """

    own_user: bool
    """Each session can run as its own user, if root can choose."""
    hides: bool
    """Other files, processes and networks are not visible to the code."""

    @property
    def scopes_signals(self) -> bool:
        """The kernel blocks signals to processes outside."""
        ...

    def missing(self) -> str | None:
        """Why it cannot run here, according to a quick check; None: it may."""
        ...

    def launch(self, runtime: Runtime, volume: Volume, limits: Limits, control: int) -> Launch:
        """How to start an interpreter that uses the file descriptor `control`."""
        ...


def bootstrap(program: str, control: int) -> Sequence[str]:
    """Arguments of a Python that runs `inside/main.py`, found below `program`."""
    return (
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {program!r}); from sandbox.inside.main import main; main({control})",
    )


def resources(volume: Volume, limits: Limits) -> dict[str, int]:
    """The limits that the interpreter sets on itself before anything else."""
    return {
        "AS": limits.memory_bytes + _ADDRESS_SPACE_SPARE,
        "DATA": limits.memory_bytes,
        "NPROC": limits.threads + (_threads_of_this_user() if volume.user is None else 0),
        "NOFILE": limits.open_files,
        "FSIZE": limits.disk_bytes,
        "CORE": 0,
        "SIGPENDING": _SIGNALS,
        "MSGQUEUE": 0,
    }


def _threads_of_this_user() -> int:
    """The kernel counts all threads of a user, so a sandbox that shares the service's user needs room for them
    as well.
    """
    me, count = os.geteuid(), 0
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and entry.stat().st_uid == me:
                count += len(os.listdir(f"/proc/{entry.name}/task"))  # noqa: PTH208 - only how many
        except OSError:  # it has ended
            continue
    return count
