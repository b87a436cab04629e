"""Irrevocably gives up what untrusted code must not have: done once, before its first line runs."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Sequence
from typing import Any

from sandbox.inside import seccomp

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SIGKILL = 9
_FILTER_MODE = 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION = 0x20080522
_VERSION_FLAG = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_MAKE_CHAR, _MAKE_SOCK, _MAKE_BLOCK = 64, 512, 2048
_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}
"""The number of file access rights of each Landlock version; from 5 on it is 16."""
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6

_libc = ctypes.CDLL(None, use_errno=True)


def limit(limits: dict[str, int]) -> None:
    """Set resource limits, named as in the `resource` module without `RLIMIT_`. A lower existing limit is kept."""
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (allowed, allowed))
    os.nice(5)


def end_with_service() -> None:
    """Exit when the service does, however it ends; a stopped process would not notice otherwise."""
    _control(_PR_SET_PDEATHSIG, _SIGKILL)


def landlock(readable: Sequence[str], writable: Sequence[str], newest: int | None = None) -> None:
    """Allow only these files, no TCP and, on newer kernels, no signals to others and no abstract sockets. Raises
    OSError.

    `newest`: the newest version of Landlock to use, to see what an older kernel enforces; None: the kernel's.
    """
    version = _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    version = version if newest is None else min(version, newest)
    rights = (1 << _RIGHTS_BY_VERSION.get(version, 16)) - 1
    attributes = struct.pack(
        "=QQQ", rights, 3 if version >= _NETWORK_SINCE else 0, 3 if version >= _SCOPES_SINCE else 0
    )
    attributes = attributes[: 8 + 8 * (version >= _NETWORK_SINCE) + 8 * (version >= _SCOPES_SINCE)]
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    for path in readable:
        _allow(ruleset, path, _EXECUTE | _READ_FILE | _READ_DIR)
    for path in writable:
        _allow(ruleset, path, rights & ~(_MAKE_CHAR | _MAKE_SOCK | _MAKE_BLOCK))
    _no_new_privileges()
    _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def drop_capabilities() -> None:
    """Root that may not switch to another user runs the code as root: then without any capabilities. Raises OSError."""
    _call(_CAPSET[platform.machine()], struct.pack("=Ii", _CAPABILITY_VERSION, 0), bytes(24))


def filter_calls(*, shares_files: bool) -> None:
    """Install the seccomp filter. Raises OSError."""
    end_with_service()
    program = seccomp.program(os.getpid(), shares_files=shares_files)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    _no_new_privileges()
    _control(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(header))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):  # noqa: PTH112 - pathlib takes 10 ms to import, of the 60 a sandbox takes to start
        rights &= _EXECUTE | _WRITE_FILE | _READ_FILE
    try:
        rule = struct.pack("=Qi", rights, opened)
        _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
    finally:
        os.close(opened)


def _no_new_privileges() -> None:
    _control(_PR_SET_NO_NEW_PRIVS, 1)


def _control(option: int, value: int, pointer: Any = 0) -> None:
    if _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)) < 0:
        raise _error(f"prctl({option})")


def _call(number: int, *arguments: Any) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise _error(f"system call {number}")
    return result


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")
