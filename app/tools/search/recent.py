"""The answers of the last minutes, so that what is asked again costs nothing."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from app.tools.search.base import Query, Result

_SECONDS = 300.0
_ENTRIES = 512
_BYTES = 8 * 1024 * 1024


class _Entry(msgspec.Struct, frozen=True):
    results: tuple[Result, ...]
    size: int
    until: float


class RecentAnswers:
    """By query, with everything in it; for five minutes, within bounds. Search results are public, so tenants share them."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, entries: int = _ENTRIES, size: int = _BYTES) -> None:
        self._clock = clock
        self._most_entries = entries
        self._most_bytes = size
        self._entries: OrderedDict[Query, _Entry] = OrderedDict()
        self._size = 0

    def get(self, query: Query) -> tuple[Result, ...] | None:
        """What was found; None when nobody asked lately."""
        entry = self._entries.get(query)
        return entry.results if entry and entry.until > self._clock() else None

    def put(self, query: Query, results: tuple[Result, ...]) -> None:
        """Keep it; what was put in first goes first."""
        self._drop(query)
        size = len(msgspec.msgpack.encode((query, results)))
        self._entries[query] = _Entry(results, size, self._clock() + _SECONDS)
        self._size += size
        while self._entries and (self._size > self._most_bytes or len(self._entries) > self._most_entries):
            self._drop(next(iter(self._entries)))

    def _drop(self, query: Query) -> None:
        entry = self._entries.pop(query, None)
        self._size -= entry.size if entry else 0
