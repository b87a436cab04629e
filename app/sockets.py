"""System resources of client connections: buffers and file descriptors."""

from __future__ import annotations

import logging
import os
import socket
import sys

_log = logging.getLogger(__name__)
_SEGMENT_BYTES = 1460
"""Ethernet's. With loopback's 64 KiB a client's own system accepts three megabytes before it sees a refusal."""
_SPARE_FILES = 256
"""File descriptors for everything other than client connections."""


def bound(listener: int) -> None:
    """Limit, by the segment size, what the system buffers for each connection of this listening socket, a file
    descriptor.
    """
    option = getattr(socket, "TCP_MAXSEG", None)
    with socket.socket(fileno=os.dup(listener)) as same:
        if option is not None and same.family in (socket.AF_INET, socket.AF_INET6):
            same.setsockopt(socket.IPPROTO_TCP, option, _SEGMENT_BYTES)


def make_room(connections: int) -> None:
    """Raise this process's limit of open files as far as allowed: a stream needs one for its client and one for its
    upstream.
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - Unix only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < wanted:
            _log.warning(
                "%d open files are allowed, %d connections may need %d: raise the limit (`ulimit -n`)",
                most,
                connections,
                wanted,
            )
