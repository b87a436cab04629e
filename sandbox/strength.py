"""What the back end in use guarantees, and what it does not, in words for people."""

from __future__ import annotations

from sandbox.backends.base import Backend
from sandbox.protocol import BackendName, Confinement
from sandbox.stage import Stage

_HIDES = "its own namespaces: other files, processes and networks are not visible"
_HIDES_NOT = "no namespaces: code that guesses a file's path can see its name, size and times, but not its content"


def strength(name: BackendName, backend: Backend, stage: Stage, disk_bytes: int) -> Confinement:
    """Of a back end that has passed the self-test."""
    own_user = backend.own_user and stage.users
    bounded = stage.bounds(disk_bytes)
    words = (
        _HIDES if backend.hides else _HIDES_NOT,
        "a user id for each session" if own_user else "one user id for the service and all sessions",
        f"signals to others are blocked by {'the kernel' if backend.scopes_signals else 'the system call filter only'}",
        "disk use is limited by the kernel"
        if bounded
        else "disk use is monitored, and a burst can exceed the limit briefly",
    )
    return Confinement(
        backend=name,
        own_namespaces=backend.hides,
        own_user=own_user,
        signals_scoped=backend.scopes_signals,
        disk_bounded=bounded,
        summary="; ".join(words),
    )
