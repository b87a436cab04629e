"""A worker drops the privileges it does not need, with the filters that also confine sandboxed code
(`sandbox/inside`).

A process that reads untrusted files then cannot open files other than the program's, write files, reach the network, or
start or access other processes. If the machine lacks these filters, `lacking` reports it, and only the limits of time
and memory apply.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/fonts", "/usr/share/zoneinfo",
    "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/dev/urandom", "/dev/random", "/dev/zero",
    "/sys/devices/system/cpu", "/proc/cpuinfo", "/proc/meminfo",
)  # fmt: skip
_PACKAGES = ("site-packages", "dist-packages")
_MAPPED_BYTES = 6 * 1024**3
"""Address space beyond writable memory: libraries and models.

It also limits shared memory, which is not counted elsewhere.
"""
_THREADS = 1024
"""Maximum for all workers together, if they have their own user id."""
_USER = 61_917
"""User id of workers if root can change it: unassigned, so that they own no file."""
_CREATE_RULESET, _VERSION_FLAG = 444, 1
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_GET_ACTION_AVAIL, _RETURN_ERRNO = 2, 0x00050000
_CAPABILITY_VERSION = 0x20080522


def lacking() -> Sequence[str]:
    """The confinement mechanisms that this machine lacks; changes nothing."""
    if sys.platform != "linux":
        return ["seccomp and Landlock, which exist only on Linux"]
    missing: list[str] = []
    if not _has_filter():
        missing.append("a seccomp filter (untrusted files could start processes and reach the network)")
    if not _has_landlock():
        missing.append("Landlock, Linux 5.13 or newer (untrusted files could read what the gateway can)")
    return missing


def confine(memory_bytes: int) -> None:
    """Confine this process; call it once, before reading untrusted input.

    Raises OSError if a filter exists but cannot be used.
    """
    if sys.platform != "linux":
        return
    from sandbox.inside import confine as confinement  # noqa: PLC0415 - for Linux only

    readable = _readable()
    own_user = {"NPROC": _THREADS} if _became_nobody(readable) else {}
    confinement.limit({"AS": memory_bytes + _MAPPED_BYTES} | own_user)
    if _has_landlock():
        confinement.landlock([path for path in readable if os.access(path, os.R_OK)], ["/dev/null"])
    if _has_filter():
        confinement.filter_calls(shares_files=True)
    else:
        confinement.end_with_service()


def _has_filter() -> bool:
    number = _SECCOMP.get(platform.machine())
    action = ctypes.c_uint32(_RETURN_ERRNO)
    return (
        number is not None
        and _call(number, ctypes.c_uint(_GET_ACTION_AVAIL), ctypes.c_uint(0), ctypes.byref(action)) == 0
    )


def _has_landlock() -> bool:
    return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG)) >= 1


def _call(number: int, *arguments: object) -> int:
    result: int = ctypes.CDLL(None).syscall(ctypes.c_long(number), *arguments)
    return result


def _readable() -> Sequence[str]:
    """The interpreter and its libraries; in a checkout, where data may be next to the program, only the program."""
    program = Path(__file__).resolve().parents[1]
    imported = [Path(entry) for entry in sys.path if entry]
    libraries = [path for path in imported if path.name in _PACKAGES or not (path / program.name).exists()]
    return [*_SYSTEM, *map(str, (program, Path(sys.base_prefix, "lib"), *libraries))]


def _became_nobody(readable: Sequence[str]) -> bool:
    """Switch from root to another user if that user can read what is needed.

    Otherwise only drop root's capabilities.
    """
    if os.geteuid() != 0:
        return False
    existing = [path for path in readable if os.path.lexists(path)]
    try:
        os.seteuid(_USER)
    except OSError:  # a container whose root may not change user ids
        _drop_capabilities()
        return False
    visible = all(os.access(path, os.R_OK, effective_ids=True) for path in existing)
    os.seteuid(0)
    if visible:
        os.setgroups([])
        os.setresgid(_USER, _USER, _USER)
        os.setresuid(_USER, _USER, _USER)
    else:
        _drop_capabilities()
    return visible


def _drop_capabilities() -> None:
    header, none = (
        ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION, 0)),
        ctypes.create_string_buffer(24),
    )
    if ctypes.CDLL(None, use_errno=True).capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")
