"""Where sandboxes are set up: the interpreter they start, and a volume for each session's files.

Where the machine allows private mounts a volume is a file system of its own with a hard size, and the interpreter is shown at a place that
every user can reach (root's own Python often lies where only root can go). Elsewhere a volume is a directory that is watched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from app.sandbox import mounts, packages

_FIRST_USER = 60600
"""Users of sandboxes, where root can choose: one each, of a range that no system gives out."""
_USER_CAPABILITIES = 1 << 0 | 1 << 6 | 1 << 7
"""CAP_CHOWN, CAP_SETGID and CAP_SETUID."""
_INODES = 20_000
_HERE = Path(__file__).parent


class Runtime(msgspec.Struct, frozen=True):
    """The interpreter, by paths that sandboxes can read."""

    home: Path
    """With `lib`, and `bin` with the interpreter."""
    executable: Path
    packages: tuple[Path, ...]
    """Directories of installed packages outside `home`."""
    program: Path
    """Below it is `app/sandbox/inside`."""


class Volume(msgspec.Struct, frozen=True):
    """A session's files."""

    root: Path
    user: int | None
    """Whose they are and who runs the code; None: the service's own user."""
    hard: bool
    """Its size is limited by the file system itself."""

    @property
    def data(self) -> Path:
        """What the code sees as /mnt/data."""
        return self.root / "data"

    @property
    def scratch(self) -> Path:
        """What it sees as /tmp."""
        return self.root / "tmp"


class Stage:
    """Made once, before any thread starts."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="sandbox-"))
        self._privileged = _can_choose_users()
        self.private = mounts.enter(self.root)
        if self.private:
            mounts.mount_memory(self.root, "size=1m,mode=755")
        elif self._privileged:
            self.root.chmod(0o755)
        self.runtime = self._shown(_installed()) if self.private and self._privileged else _installed()
        self._users = set(range(_FIRST_USER, _FIRST_USER + 500)) if self._privileged else set[int]()

    def make_volume(self, name: str, size: int, *, own_user: bool) -> Volume:
        """An empty volume of `size` bytes, for a user of its own where root can choose. Raises OSError."""
        root = self.root / name
        root.mkdir()
        volume = Volume(root, self._users.pop() if self._privileged and own_user else None, hard=self.private)
        if self.private:
            mounts.mount_memory(root, f"size={size},nr_inodes={_INODES},mode=755")
        for directory in (volume.data, volume.scratch):
            directory.mkdir(mode=0o700)
            if volume.user is not None:
                os.chown(directory, volume.user, volume.user)
        return volume

    def drop_volume(self, volume: Volume) -> None:
        """Remove it with all that is in it."""
        if volume.hard:
            mounts.unmount(volume.root)
        # Not shutil: what the code has left may be nested deeper than Python recurses.
        subprocess.run(["rm", "-rf", "--", volume.root], check=False)  # noqa: S603, S607 - our own path; `rm` from the system's path
        if volume.user is not None:
            self._users.add(volume.user)

    def close(self) -> None:
        """Remove everything."""
        if self.private:
            mounts.unmount(self.root)
        subprocess.run(["rm", "-rf", "--", self.root], check=False)  # noqa: S603, S607 - as above

    def _shown(self, runtime: Runtime) -> Runtime:
        places = {runtime.home: self.root / "python", runtime.program / "app/sandbox/inside": self.root / "program/app/sandbox/inside"}
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


def _can_choose_users() -> bool:
    """This process may run others under any user, and give files to them; root may not where its capabilities were taken."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    capabilities = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return capabilities & _USER_CAPABILITIES == _USER_CAPABILITIES


def _installed() -> Runtime:
    home = Path(sys.base_prefix).resolve()
    executable = Path(sys.executable).resolve()
    if not executable.is_relative_to(home):
        executable = home / "bin" / executable.name
    return Runtime(home, executable, packages.directories(), _HERE.parents[1])
