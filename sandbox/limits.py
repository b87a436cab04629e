"""What a sandbox may use."""

from __future__ import annotations

import msgspec

MEBIBYTE = 1024**2


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one session; times in seconds."""

    memory_bytes: int = 1024 * MEBIBYTE
    """What the interpreter may allocate."""
    disk_bytes: int = 256 * MEBIBYTE
    """/mnt/data and /tmp together."""
    seconds: float = 60.0
    """The most a caller may ask for one run, on the wall clock."""
    cpu_seconds: int = 60
    """For one run, over all threads."""
    threads: int = 64
    open_files: int = 256
    log_bytes: int = 64 * 1024
    """Of what a run prints; the middle of more is left out."""
    idle_seconds: float = 1200.0
    """A session nobody uses goes after this time."""
