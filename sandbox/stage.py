"""The environment of sandboxes: the interpreter they start, and a volume for each session's files.

The kernel limits a volume's size where the machine allows private mounts (a tmpfs for each), or where file systems were
mounted for the service beforehand (`places`, one for each session). Elsewhere it is a directory that is monitored. With
private mounts the interpreter is mounted where every user can reach it: root's own Python is often in a directory only
root can enter.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from sandbox import mounts, packages, trees

_FIRST_USER = 60600
"""The users of sandboxes, if root can choose: one each, from a range that no system allocates."""
_USER_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7
"""CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_KILL, CAP_SETGID and CAP_SETUID: to become other users, and to clean up
after them.
"""
_NAME = "sandbox-stage-"
_LOCK = ".in-use"
_SEARCH_ONLY = 0o711
"""Other users can enter to reach known names, but cannot list the directory."""
_NEARLY = 1.25
"""A file system may be this much larger than a session's limit, and still counts as enforcing it."""
_log = logging.getLogger("sandbox")
_ROOT = Path(__file__).parents[1]


class Runtime(msgspec.Struct, frozen=True):
    """The interpreter, by paths that are readable in sandboxes."""

    home: Path
    """Contains `lib`, and `bin` with the interpreter."""
    executable: Path
    packages: tuple[Path, ...]
    """Directories of installed packages outside `home`."""
    program: Path
    """Contains `sandbox/inside`."""


class Volume(msgspec.Struct, frozen=True):
    """A session's files."""

    root: Path
    user: int | None
    """The owner, who also runs the code; None: the service's own user."""
    hard: bool
    """The kernel limits its size."""
    place: Path | None = None
    """The mounted file system it uses, to be released."""

    @property
    def data(self) -> Path:
        """Visible to the code as /mnt/data."""
        return self.root / "data"

    @property
    def scratch(self) -> Path:
        """Visible to the code as /tmp."""
        return self.root / "tmp"


class Stage:
    """Created once, before any thread starts."""

    def __init__(self, places: Path | None = None) -> None:
        """`places`: a directory of mounted file systems. Raises ValueError if it contains none."""
        self._places = None if places is None else _mounted(places)
        _remove_abandoned()
        self.root = Path(tempfile.mkdtemp(prefix=_NAME))
        self._lock = _locked(self.root)
        self._privileged = can_choose_users()
        # others do not exist in a user namespace
        in_vain = self._places is not None or (self._privileged and os.geteuid() != 0)
        self.private = not in_vain and mounts.enter(self.root)
        if self.private:
            mounts.mount_memory(self.root, f"size=1m,mode={_SEARCH_ONLY:o}")
        elif self._privileged:
            self.root.chmod(_SEARCH_ONLY)
        self.runtime = self._shown(_installed()) if self.private and self._privileged else _installed()
        self._users = set(range(_FIRST_USER, _FIRST_USER + 500)) if self._privileged else set[int]()

    @property
    def users(self) -> bool:
        """Whether each session can have its own user."""
        return self._privileged

    @property
    def room(self) -> int | None:
        """The number of sessions for which there are mounted file systems; None: unlimited."""
        return None if self._places is None else len(self._places)

    def bounds(self, size: int) -> bool:
        """Whether the kernel limits a volume to this size."""
        return self.private or (
            self._places is not None and all(_size(place) <= size * _NEARLY for place in self._places)
        )

    def share(self, sessions: int) -> int:
        """The bytes that each of so many sessions can use, so that all of them together use at most half of the
        available space.
        """
        if self._places is not None:
            return min(_size(place) for place in self._places)
        return (_memory() if self.private else _free(self.root)) // 2 // sessions

    def make_volume(self, size: int, *, own_user: bool) -> Volume:
        """An empty volume of `size` bytes, for its own user if root can choose. Raises OSError."""
        place = self._places.pop() if self._places is not None else None
        user = self._users.pop() if self._privileged and own_user else None
        try:
            return self._volume(place, user, size)
        except BaseException:
            self._give_back(place, user)
            raise

    def _volume(self, place: Path | None, user: int | None, size: int) -> Volume:
        root = (place or self.root) / secrets.token_hex(16)  # other users must not find it by guessing names
        root.mkdir()
        root.chmod(_SEARCH_ONLY)
        if self.private:
            mounts.mount_memory(root, f"size={size},nr_inodes={trees.MAX_ENTRIES},mode={_SEARCH_ONLY:o}")
        hard = self.private or (place is not None and _size(place) <= size * _NEARLY)
        volume = Volume(root, user, hard, place)
        for directory in (volume.data, volume.scratch):
            directory.mkdir(mode=0o700)
            if user is not None:
                os.chown(directory, user, user)
        return volume

    def _give_back(self, place: Path | None, user: int | None) -> None:
        if user is not None:
            self._users.add(user)
        if self._places is not None and place is not None:
            self._places.append(place)

    def drop_volume(self, volume: Volume) -> None:
        """Remove it with its contents; nothing may be running in it."""
        try:
            if self.private:
                mounts.unmount(volume.root)
        except OSError as error:
            _log.error("files of a session could not be removed from %s: %s", volume.root, error)
        _remove(volume.root)
        self._give_back(volume.place, volume.user)

    def close(self) -> None:
        """Remove everything."""
        if self.private:
            mounts.unmount(self.root)
        _remove(self.root)
        os.close(self._lock)

    def _shown(self, runtime: Runtime) -> Runtime:
        places = {
            runtime.home: self.root / "python",
            runtime.program / "sandbox/inside": self.root / "program/sandbox/inside",
        }
        places |= {path: self.root / f"packages-{number}" for number, path in enumerate(runtime.packages)}
        for source, place in places.items():
            place.mkdir(parents=True)
            mounts.mount_again(source, place)
        return Runtime(
            home=places[runtime.home],
            executable=places[runtime.home] / runtime.executable.relative_to(runtime.home),
            packages=tuple(places[path] for path in runtime.packages),
            program=self.root / "program",
        )


def can_choose_users() -> bool:
    """Whether this process may run others as any user, and give files to them.

    Root may not if its capabilities were removed.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    capabilities = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return capabilities & _USER_CAPABILITIES == _USER_CAPABILITIES


def _mounted(directory: Path) -> list[Path]:
    places = [path for path in sorted(directory.iterdir()) if os.path.ismount(path)] if directory.is_dir() else []
    if not places:
        raise ValueError(f"there is no mounted file system in {directory}")
    for place in places:
        if place.stat().st_uid != os.geteuid():
            raise ValueError(f"{place} belongs to another user than the sandbox service's ({os.geteuid()})")
        trees.clear(place)
        place.chmod(_SEARCH_ONLY)
    return places


def _locked(root: Path) -> int:
    """While the descriptor is open, no other service takes the stage for abandoned."""
    new = root / f"{_LOCK}.new"
    opened = os.open(new, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(opened, fcntl.LOCK_EX)
    new.rename(root / _LOCK)  # nobody has seen it without the lock
    return opened


def _remove_abandoned() -> None:
    """Left by services that were killed."""
    for root in Path(tempfile.gettempdir()).glob(f"{_NAME}*"):
        with suppress(OSError):  # in use, or another user's
            if root.is_symlink() or root.stat().st_uid != os.geteuid():
                continue
            opened = os.open(root / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                trees.remove(root)
            finally:
                os.close(opened)


def _remove(root: Path) -> None:
    try:
        trees.remove(root)
    except OSError as error:
        _log.error("files of a session could not be removed from %s: %s", root, error)


def _size(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_blocks * found.f_frsize


def _free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def _memory() -> int:
    """Bytes available to this process and its children: the machine's or the container's."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max"
            sizes.append(int(Path(limit).read_text(encoding="ascii")))
    return min(sizes)


def _installed() -> Runtime:
    home = Path(sys.base_prefix).resolve()
    executable = Path(sys.executable).resolve()
    if not executable.is_relative_to(home):
        executable = home / "bin" / executable.name
    return Runtime(home, executable, packages.directories(), _ROOT)
