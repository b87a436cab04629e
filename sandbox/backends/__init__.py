"""Ways to confine an interpreter, one file each."""

from __future__ import annotations

import importlib

from sandbox.backends.base import Backend
from sandbox.protocol import BackendName


def load(name: BackendName) -> Backend:
    """The back end with this name."""
    backend: Backend = importlib.import_module(f"sandbox.backends.{name}").BACKEND
    return backend
