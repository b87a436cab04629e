"""Discovers adapters: constants that the public modules of a package define.

A new adapter is one new file, registered nowhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

T = TypeVar("T")


def constants(package: str, name: str, kind: type[T]) -> dict[str, T]:
    """Module name -> its constant `name`, for every module directly in `package` that has one; modules with a leading
    `_` are skipped.

    Raises TypeError if a constant of that name is not a `kind`.
    """
    found: dict[str, T] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.startswith("_"):
            continue
        value = getattr(importlib.import_module(f"{package}.{module.name}"), name, None)
        if isinstance(value, kind):
            found[module.name] = value
        elif value is not None:
            raise TypeError(f"{package}.{module.name}.{name} is not a {kind.__name__}")
    return found
