"""Private mounts: a view of the file system that only this process and its children share.

Root creates them in its own mount namespace, other users in a user namespace as well, where the machine allows it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def enter(trial: Path) -> bool:
    """Move this process into its own mount namespace; False if the machine does not allow it. Call before any thread
    starts.

    `trial`: a directory to mount on. A child tries first, since a namespace that turns out to be useless cannot be left
    again.
    """

    def attempt() -> None:
        _enter()
        mount_memory(trial, "size=4096")

    if not _works(attempt):
        return False
    _enter()
    return True


def mount_memory(target: Path, options: str) -> None:
    """Mount a tmpfs of a fixed size. Raises OSError."""
    _mount("tmpfs", target, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)


def mount_again(source: Path, target: Path) -> None:
    """Bind-mount a directory at a second path. Raises OSError."""
    _mount(str(source), target, None, _MS_BIND | _MS_REC, None)


def unmount(target: Path) -> None:
    """Unmount lazily: the mount disappears when it is no longer in use. Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), _DETACH), f"umount {target}")


def _enter() -> None:
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _check(_libc.unshare(_CLONE_NEWNS), "unshare")
        _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "mount /")
        return
    _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER), "unshare")
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")


def _works(attempt: Callable[[], None]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _mount(source: str, target: Path, kind: str | None, flags: int, options: str | None) -> None:
    raw = [None if text is None else text.encode() for text in (kind, options)]
    result = _libc.mount(source.encode(), os.fsencode(target), raw[0], ctypes.c_ulong(flags), raw[1])
    _check(result, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
