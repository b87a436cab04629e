"""Files written by untrusted code: accessed without ever following a link or leaving the directory.

Every function takes the session's directory; paths are relative to it, with `/` between the parts. Only regular files
exist here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import msgspec

MAX_FILES = 1000
"""Beyond this many, files are not listed."""
_MAX_ENTRIES = 20_000
_MAX_DEPTH = 8
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(msgspec.Struct, frozen=True):
    """A file in its current state."""

    bytes: int
    modified_ns: int
    inode: int


def scan(root: Path) -> dict[str, Entry]:
    """The files by path, without hidden ones."""
    found: dict[str, Entry] = {}
    top = os.open(root, _DIRECTORY)
    try:
        _scan(top, "", found, _MAX_ENTRIES)
    finally:
        os.close(top)
    return found


def _scan(directory: int, prefix: str, found: dict[str, Entry], entries_left: int) -> int:
    with os.scandir(directory) as entries:
        for entry in entries:
            entries_left -= 1
            if entries_left <= 0 or len(found) >= MAX_FILES:
                return 0
            path = f"{prefix}{entry.name}"
            if not _is_presentable(entry.name):
                continue
            if entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                found[path] = Entry(status.st_size, status.st_mtime_ns, status.st_ino)
            elif entry.is_dir(follow_symlinks=False) and path.count("/") < _MAX_DEPTH:
                with suppress(OSError), _opened(entry.name, _DIRECTORY, directory) as inner:
                    # it may be unreadable, even for its owner
                    entries_left = _scan(inner, f"{path}/", found, entries_left)
    return entries_left


def open_file(root: Path, path: str) -> tuple[int, int]:
    """A file descriptor for reading, for the caller to close, and the file's size. Raises FileNotFoundError."""
    with _parent(root, path) as (directory, name):
        opened = os.open(name, _READ, dir_fd=directory)
    status = os.fstat(opened)
    if not stat.S_ISREG(status.st_mode):
        os.close(opened)
        raise FileNotFoundError(path)
    return opened, status.st_size


def create_file(root: Path, name: str, user: int | None) -> int:
    """A file descriptor for writing a new file, for the caller to close; an existing file is replaced.

    Raises OSError.
    """
    with _opened(root, _DIRECTORY) as directory:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        opened = os.open(name, _CREATE, 0o644, dir_fd=directory)
        if user is not None:
            os.fchown(opened, user, user)
        return opened


def remove_file(root: Path, path: str) -> None:
    """Raises FileNotFoundError."""
    with _parent(root, path) as (directory, name):
        os.unlink(name, dir_fd=directory)


def is_file_name(name: str) -> bool:
    """Whether it can be the name of an uploaded file: one part, not hidden, printable."""
    return "/" not in name and _is_presentable(name) and len(name.encode()) <= 255  # noqa: PLR2004 - the file systems' limit


def _is_presentable(name: str) -> bool:
    return bool(name) and not name.startswith((".", "__pycache__")) and name.isprintable()


@contextmanager
def _parent(root: Path, path: str) -> Generator[tuple[int, str]]:
    """The directory of a path, and the path's last part; anything wrong with the path is a FileNotFoundError."""
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or parts[0] == "/":
        raise FileNotFoundError(path)
    current = os.open(root, _DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _DIRECTORY, dir_fd=current)
            os.close(current)
            current = inner
        yield current, parts[-1]
    except (OSError, ValueError) as error:  # a link, a missing part, a NUL
        raise FileNotFoundError(path) from error
    finally:
        os.close(current)


@contextmanager
def _opened(path: str | Path, flags: int, directory: int | None = None) -> Generator[int]:
    opened = os.open(path, flags, dir_fd=directory)
    try:
        yield opened
    finally:
        os.close(opened)
