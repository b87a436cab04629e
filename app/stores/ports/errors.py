"""What every port of the stores may raise."""

from __future__ import annotations


class StoreUnavailable(Exception):
    """The store cannot be reached or does not work; the same call may succeed later. Every method may raise it."""
