"""Resource usage of this process."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")
_MEMORY = Path("/proc/self/statm")


def cpu_seconds() -> float:
    """CPU time used so far, of all threads."""
    return time.process_time()


def resident_bytes() -> float:
    """Resident memory; if the system does not report it, the peak."""
    if _MEMORY.exists():
        return float(_MEMORY.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        return 0.0
    import resource  # noqa: PLC0415 - not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else most * 1024)


def open_descriptors() -> float:
    """Open files and sockets; 0 if the system does not report them."""
    return float(len(os.listdir(_DESCRIPTORS))) if _DESCRIPTORS.exists() else 0.0  # noqa: PTH208 - only the count is needed, no objects


def most_descriptors() -> float:
    """The limit of open files and sockets; 0 if the system does not report it."""
    if sys.platform == "win32":
        return 0.0
    import resource  # noqa: PLC0415 - not on Windows

    return float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
