"""What the back end in use holds, and what it does not, in words for people."""

from __future__ import annotations

from sandbox.backends import Name
from sandbox.backends.base import Backend
from sandbox.protocol import Confinement
from sandbox.stage import Stage

_HIDES = "namespaces of its own: files, processes and network of others are out of sight"
_HIDES_NOT = "no namespaces: names, sizes and times of files whose path code guesses can be seen, their content cannot"


def strength(name: Name, backend: Backend, stage: Stage, disk_bytes: int) -> Confinement:
    """Of a back end that has withstood the self-test."""
    own_user = backend.own_user and stage.users
    bounded = stage.bounds(disk_bytes)
    words = (
        _HIDES if backend.hides else _HIDES_NOT,
        "a user id for each session" if own_user else "one user id for the service and all sessions",
        f"signals to others are refused by {'the kernel' if backend.scopes_signals else 'the filter of system calls alone'}",
        "disk is bounded by the kernel" if bounded else "disk is watched, and a burst can exceed the limit for a moment",
    )
    return Confinement(
        backend=name,
        own_namespaces=backend.hides,
        own_user=own_user,
        signals_scoped=backend.scopes_signals,
        disk_bounded=bounded,
        summary="; ".join(words),
    )
