"""The location of the packages that code in a sandbox can import."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from sandbox.inside.packages import PACKAGES, SMALL

_OWN_DIRECTORY = "sandbox-packages"


def directories() -> tuple[Path, ...]:
    """`sandbox-packages` in this program's environment; if there is none, the environment's own packages.

    Never the packages of the machine's Python: these can be of any version, or broken.
    """
    own = Path(sys.prefix) / _OWN_DIRECTORY
    if own.is_dir():
        return (own,)
    found = {
        Path(spec.origin).parents[1]
        for name in SMALL.values()
        if (spec := find_spec(name)) is not None and spec.origin is not None
    }
    return tuple(sorted(found))


def names() -> tuple[str, ...]:
    """The installed packages, in the order of the list."""
    places = directories()
    return tuple(name for name, module in PACKAGES.items() if any(_holds(place, module) for place in places))


def _holds(place: Path, module: str) -> bool:
    return (place / module).is_dir() or (place / f"{module}.py").is_file()
