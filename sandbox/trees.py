"""Directories filled by untrusted code, as a whole: their size, and their removal whatever their modes and depth.

Links are never followed. What the service cannot read it makes readable; that is safe while the code runs, since it
acts on open descriptors and not on names.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable, Generator, Mapping, Set
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from sandbox.files import Entry

MAX_ENTRIES = 20_000
"""Files and directories of one session."""
_MAX_DEPTH = 64
_BATCH = 200
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_VANISHED = (FileNotFoundError, NotADirectoryError)

_libc = ctypes.CDLL(None)


class Unbounded(Exception):
    """More entries, or deeper nesting, than a session may have."""


def taken(root: Path, now_and_then: Callable[[], None] | None = None) -> int:
    """Bytes on disk, including hidden files and directories, hard links once.

    Raises Unbounded, OSError, and what `now_and_then` raises.
    """
    seen: set[int] = set()
    total = 0
    for number, (_, status) in enumerate(_walk(root)):
        if now_and_then is not None and number % _BATCH == 0:
            now_and_then()
        if status.st_ino not in seen:
            seen.add(status.st_ino)
            total += status.st_blocks * 512
    return total


def inventory(root: Path) -> dict[str, Entry]:
    """Every file by path, including hidden ones; what exceeds the limits is omitted."""
    found: dict[str, Entry] = {}
    with suppress(Unbounded):
        for path, status in _walk(root):
            if stat.S_ISREG(status.st_mode):
                found[path] = Entry(status.st_size, status.st_mtime_ns, status.st_ino)
    return found


def unnamed(pid: int, user: int | None) -> int:
    """Bytes of deleted files that a process and its children still have open or mapped. Raises OSError."""
    with _as(user):
        return sum(_unnamed(process) for process in (pid, *_descendants(pid)))


def remove(root: Path) -> None:
    """Remove it with its contents; nothing may be running in it. Raises OSError."""
    with suppress(FileNotFoundError):
        root.chmod(0o700)
        clear(root)
        root.rmdir()


def clear(root: Path) -> None:
    """Remove its contents; nothing may be running in it. Raises OSError."""
    top = os.open(root, _DIRECTORY)
    try:
        _clear(top)
    finally:
        os.close(top)


def keep(root: Path, kept: Mapping[str, Entry]) -> None:
    """Remove what is not, unchanged, in `kept`; nothing may be running in it. Raises OSError."""
    holders = {path[:at] for path in kept for at, letter in enumerate(path) if letter == "/"}
    top = os.open(root, _DIRECTORY)
    try:
        _keep(top, "", kept, holders)
    finally:
        os.close(top)


def _walk(root: Path) -> Generator[tuple[str, os.stat_result]]:
    top = os.open(root, _DIRECTORY)
    try:
        for number, found in enumerate(_below(top, "", _MAX_DEPTH)):
            if number >= MAX_ENTRIES:
                raise Unbounded
            yield found
    finally:
        os.close(top)


def _below(directory: int, prefix: str, depth: int) -> Generator[tuple[str, os.stat_result]]:
    if depth == 0:
        raise Unbounded
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield f"{prefix}{entry.name}", status
            if stat.S_ISDIR(status.st_mode):
                with suppress(*_VANISHED), _entered(entry.name, directory) as inner:
                    yield from _below(inner, f"{prefix}{entry.name}/", depth - 1)


@contextmanager
def _entered(name: str, directory: int) -> Generator[int]:
    """A directory, opened for reading even if its mode denies that to its owner."""
    try:
        opened = os.open(name, _DIRECTORY, dir_fd=directory)
    except PermissionError:
        handle = os.open(name, _HANDLE, dir_fd=directory)
        try:
            Path(f"/proc/self/fd/{handle}").chmod(0o700)
            opened = os.open(".", _DIRECTORY, dir_fd=handle)
        finally:
            os.close(handle)
    try:
        yield opened
    finally:
        os.close(opened)


def _clear(top: int) -> None:
    """Down to a directory without subdirectories and up again, with one descriptor at a time, so that depth does not
    matter.
    """
    inside_of: list[str] = []
    here = os.dup(top)
    try:
        while True:
            name = _clear_until_full(here)
            if name is not None:
                with _entered(name, here) as inner:
                    os.fchmod(inner, 0o700)  # it may be readable but not writable
                    os.dup2(inner, here, inheritable=False)
                inside_of.append(name)
            elif inside_of:
                parent = os.open("..", _DIRECTORY, dir_fd=here)
                os.dup2(parent, here, inheritable=False)
                os.close(parent)
                os.rmdir(inside_of.pop(), dir_fd=here)
            else:
                return
    finally:
        os.close(here)


def _clear_until_full(directory: int) -> str | None:
    """Remove entries until one is a non-empty directory: its name; None: all are removed."""
    while entries := _some(directory):
        for name, is_directory in entries:
            if not is_directory:
                os.unlink(name, dir_fd=directory)
                continue
            try:
                os.rmdir(name, dir_fd=directory)
            except OSError:
                return name
    return None


def _some(directory: int) -> list[tuple[str, bool]]:
    with os.scandir(directory) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in islice(entries, _BATCH)]


def _keep(directory: int, prefix: str, kept: Mapping[str, Entry], holders: Set[str]) -> None:
    """`holders`: the directories that contain kept files."""
    with os.scandir(directory) as entries:
        found = list(entries)
    for entry in found:
        path = f"{prefix}{entry.name}"
        if not entry.is_dir(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            if kept.get(path) != Entry(status.st_size, status.st_mtime_ns, status.st_ino):
                os.unlink(entry.name, dir_fd=directory)
            continue
        with suppress(OSError):  # it is empty
            os.rmdir(entry.name, dir_fd=directory)
            continue
        with _entered(entry.name, directory) as inner:
            os.fchmod(inner, 0o700)
            if path in holders:
                _keep(inner, f"{path}/", kept, holders)
            else:
                _clear(inner)
        with suppress(OSError):  # not empty: something in it is kept
            os.rmdir(entry.name, dir_fd=directory)


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(OSError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
    return children + [below for child in children for below in _descendants(child)]


def _unnamed(pid: int) -> int:
    sizes: dict[tuple[int, int], int] = {}
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        place, _, _, device, inode, *name = line.split(maxsplit=5)
        if inode != "0" and name and name[0].endswith(" (deleted)"):
            begin, end = (int(part, 16) for part in place.split("-"))
            major, minor = (int(part, 16) for part in device.split(":"))
            key = (os.makedev(major, minor), int(inode))
            sizes[key] = sizes.get(key, 0) + end - begin  # an upper bound: how much of it exists is not reported
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            status = entry.stat()  # of the open file
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
            sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


@contextmanager
def _as(user: int | None) -> Generator[None]:
    """This thread only acts as that user: the kernel shows a process's open files to no one else."""
    if user is None:
        yield
        return
    own_user, own_group = os.geteuid(), os.getegid()
    _libc.setfsgid(user)
    _libc.setfsuid(user)
    try:
        yield
    finally:
        _libc.setfsuid(own_user)
        _libc.setfsgid(own_group)
