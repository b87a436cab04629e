"""Outages of the database, during which nobody can renew a lease."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Outages:
    """What this process has seen of outages. It must look several times per lease.

    After an outage the leases of healthy workers are over, too. So nobody takes over their work until the database has
    answered for the time of a lease, in which they renew.
    """

    def __init__(self, lease_seconds: float, *, alone: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """`alone`: no other process uses the database, so that there is nobody to wait for."""
        self.lease_seconds = lease_seconds
        self._alone = alone
        self._clock = clock
        self._unbroken_since: float | None = None

    @property
    def may_take_over(self) -> bool:
        """Whether a lease that is over says that its owner is gone."""
        since = self._unbroken_since
        return self._alone or (since is not None and self._clock() - since >= self.lease_seconds)

    @contextmanager
    def watch(self) -> Generator[None]:
        """Around a call of the database: one that fails, or takes half a lease, is an outage."""
        began = self._clock()
        try:
            yield
        except Exception:
            self._unbroken_since = None
            raise
        now = self._clock()
        if now - began >= self.lease_seconds / 2:
            self._unbroken_since = None
        elif self._unbroken_since is None:
            self._unbroken_since = now
