"""Ways to confine an interpreter, one file each; in the order `auto` tries them."""

from __future__ import annotations

import importlib
from typing import Literal, get_args

from app.sandbox.backends.base import Backend

Name = Literal["bubblewrap", "landlock", "wasi"]
NAMES: tuple[Name, ...] = get_args(Name)


def load(name: Name) -> Backend:
    """The back end with this name."""
    backend: Backend = importlib.import_module(f"app.sandbox.backends.{name}").BACKEND
    return backend
