"""Landlock, seccomp and resource limits: works in a default container, where namespaces cannot be created."""

from __future__ import annotations

import ctypes
import sys

from sandbox.backends.base import ENVIRONMENT, Launch, bootstrap, resources
from sandbox.limits import Limits
from sandbox.stage import Runtime, Volume

_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/fonts", "/usr/local/share/fonts",
    "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/fonts", "/etc/localtime",
    "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom",
)  # fmt: skip
_CREATE_RULESET = 444
_VERSION_FLAG = 1
_SCOPES_SINCE = 6


class Landlock:
    """The interpreter confines itself before it accepts the first line of code."""

    own_user = True
    hides = False

    def __init__(self, newest: int | None = None) -> None:
        """`newest`: the newest version of Landlock to use, for testing what older kernels enforce.

        None: the kernel's.
        """
        self._newest = newest

    @property
    def version(self) -> int:
        """The Landlock version in use; below 1 there is none."""
        kernel: int = ctypes.CDLL(None).syscall(
            ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG)
        )
        return kernel if self._newest is None else min(kernel, self._newest)

    @property
    def scopes_signals(self) -> bool:
        """Whether this kernel's Landlock blocks signals to processes outside."""
        return self.version >= _SCOPES_SINCE

    def missing(self) -> str | None:
        """Why Landlock cannot be used here; None if it can."""
        if sys.platform != "linux":
            return "Landlock needs Linux"
        if self.version < 1:
            return "the kernel has no Landlock (Linux 5.13 or newer, `landlock` in the `lsm=` boot parameter)"
        return None

    def launch(self, runtime: Runtime, volume: Volume, limits: Limits, control: int) -> Launch:
        """A Python that confines itself with Landlock and seccomp before it runs code."""
        data, scratch = str(volume.data), str(volume.scratch)
        own = {"HOME": scratch, "TMPDIR": scratch, "MPLCONFIGDIR": f"{scratch}/matplotlib"}
        library = str(runtime.home / "lib")
        setup = {
            "environment": {**ENVIRONMENT, **own},
            "data": data,
            "packages": [str(path) for path in runtime.packages],
            "limits": resources(volume, limits),
            "cpu_seconds": limits.cpu_seconds,
            "readable": [*_SYSTEM, library, *(str(path) for path in runtime.packages)],
            "writable": [data, scratch, "/dev/null"],
            "landlock": self._newest,
        }
        program = [str(runtime.executable), *bootstrap(str(runtime.program), control)]
        return Launch(command=["env", "-i", f"LD_LIBRARY_PATH={library}", *program], setup=setup, data=data)


BACKEND = Landlock()
