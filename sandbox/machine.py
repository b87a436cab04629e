"""What this machine has for sandboxes, for a gateway that may start a service on it."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox import packages
from sandbox.backends import load
from sandbox.protocol import BackendName


def obstacle(name: BackendName) -> str | None:
    """Why this back end cannot work here, according to a quick check; None: it may."""
    return load(name).missing()


def installed_packages() -> Sequence[str]:
    """The packages that code would find here besides the standard library, by name."""
    return packages.names()
