"""Recently fetched values, limited in time and memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """Values by key; the oldest are evicted first."""

    def __init__(self, *, weight: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`weight`: of all values together, in the unit of `put`. `seconds`: how long a value is valid."""
        self._most = weight
        self._seconds = seconds
        self._clock = clock
        self._weight = 0
        self._kept: OrderedDict[str, tuple[float, int, V]] = OrderedDict()

    def get(self, key: str) -> V | None:
        """The value, if it is still valid."""
        entry = self._kept.get(key)
        if entry is None:
            return None
        good_until, _, value = entry
        if self._clock() >= good_until:
            self._drop(key)
            return None
        return value

    def put(self, key: str, value: V, weight: int) -> None:
        """Keep it from now on, replacing an earlier one; a value above the total limit is not kept.

        What has expired is removed.
        """
        self._drop(key)
        now = self._clock()
        if weight <= self._most:
            self._kept[key] = (now + self._seconds, weight, value)
            self._weight += weight
        while self._kept and (self._weight > self._most or self._oldest_until <= now):
            self._drop(next(iter(self._kept)))

    @property
    def _oldest_until(self) -> float:
        return next(iter(self._kept.values()))[0]

    def _drop(self, key: str) -> None:
        entry = self._kept.pop(key, None)
        if entry is not None:
            self._weight -= entry[1]
