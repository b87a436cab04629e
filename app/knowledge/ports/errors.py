"""What every port of knowledge may raise."""

from __future__ import annotations


class KnowledgeUnavailable(Exception):
    """The database or the storage cannot be reached or does not work; the same call may succeed later.

    Every method may raise it.
    """
