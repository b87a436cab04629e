"""The resource limits of a sandbox."""

from __future__ import annotations

import msgspec

MEBIBYTE = 1024**2


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one session; times in seconds."""

    memory_bytes: int = 1024 * MEBIBYTE
    """The interpreter's memory."""
    disk_bytes: int = 256 * MEBIBYTE
    """/mnt/data and /tmp together."""
    seconds: float = 60.0
    """The longest run that a caller may request, in wall-clock time."""
    cpu_seconds: int = 60
    """For one run, across all threads."""
    threads: int = 64
    open_files: int = 256
    log_bytes: int = 64 * 1024
    """Of a run's output; the middle of longer output is omitted."""
    idle_seconds: float = 1200.0
    """An unused session is removed after this time."""
