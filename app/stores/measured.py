"""Measures any store: how long each operation took, and whether it failed."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.responses import ResponseRecord, ResponseStore, Turn
from app.telemetry.timing import Note, timed

_T = TypeVar("_T")


class MeasuredStore:
    """Passes every call to a store, and records how long it took."""

    def __init__(self, store: ResponseStore, note: Note) -> None:
        self._store = store
        self._note = note

    @property
    def doubtful(self) -> bool:
        """The store's value."""
        return self._store.doubtful

    async def check(self) -> None:
        """Check whether the store is writable, timed."""
        await self._measure("check", self._store.check())

    async def save(self, record: ResponseRecord) -> None:
        """Save a response, timed."""
        await self._measure("save", self._store.save(record))

    async def get(self, project_id: str, response_id: str, now: int) -> ResponseRecord | None:
        """Get a response, timed."""
        return await self._measure("get", self._store.get(project_id, response_id, now))

    async def chain(self, project_id: str, response_id: str, now: int) -> Sequence[Turn] | None:
        """Get the turns of a conversation, timed."""
        return await self._measure("chain", self._store.chain(project_id, response_id, now))

    async def continuable(self, project_id: str, response_id: str, now: int) -> bool:
        """Check whether a response can be continued, timed."""
        return await self._measure("continuable", self._store.continuable(project_id, response_id, now))

    async def locate_item(self, project_id: str, item_id: str, now: int) -> str | None:
        """Find the response that contains an item, timed."""
        return await self._measure("locate_item", self._store.locate_item(project_id, item_id, now))

    async def delete(self, project_id: str, response_id: str, now: int) -> bool:
        """Delete a response, timed."""
        return await self._measure("delete", self._store.delete(project_id, response_id, now))

    async def purge(self, now: int, limit: int) -> int:
        """Remove expired responses, timed."""
        return await self._measure("purge", self._store.purge(now, limit))

    async def count_expired(self, now: int) -> int:
        """Count expired responses, timed."""
        return await self._measure("count_expired", self._store.count_expired(now))

    async def _measure(self, operation: str, work: Awaitable[_T]) -> _T:
        return await timed(operation, work, self._note, StoreUnavailable)
