"""Measures any store: how long each operation took, and whether it failed."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.responses import Lineage, ResponseRecord, ResponseStore, Turn
from app.stores.ports.runs import Claim, Held, RunState, RunStore, StoredRun
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

    async def lineage(self, project_id: str, response_id: str, now: int, newest: int) -> Lineage | None:
        """Get the newest turns of a conversation, timed."""
        return await self._measure("lineage", self._store.lineage(project_id, response_id, now, newest))

    async def continuable(self, project_id: str, response_id: str, now: int) -> bool:
        """Check whether a response can be continued, timed."""
        return await self._measure("continuable", self._store.continuable(project_id, response_id, now))

    async def has_ended(self, project_id: str, response_id: str) -> bool:
        """Check whether a response has ended, timed."""
        return await self._measure("has_ended", self._store.has_ended(project_id, response_id))

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


class MeasuredRuns:
    """Passes every call to a store of runs, and records how long it took."""

    def __init__(self, store: RunStore, note: Note) -> None:
        self._store = store
        self._note = note

    async def create(self, run: StoredRun, owner: str | None, lease_seconds: float) -> None:
        """Add a run, timed."""
        await self._measure("run_create", self._store.create(run, owner, lease_seconds))

    async def claim(
        self, owner: str, lease_seconds: float, most: int, *, lanes: int = 2, takeover: bool
    ) -> Sequence[Claim]:
        """Claim runs, timed."""
        return await self._measure(
            "run_claim", self._store.claim(owner, lease_seconds, most, lanes=lanes, takeover=takeover)
        )

    async def renew(self, owner: str, ids: Sequence[str], lease_seconds: float) -> Mapping[str, Held]:
        """Extend leases, timed."""
        return await self._measure("run_renew", self._store.renew(owner, ids, lease_seconds))

    async def request_cancel(self, project_id: str, run_id: str) -> RunState | None:
        """Ask for a cancellation, timed."""
        return await self._measure("run_request_cancel", self._store.request_cancel(project_id, run_id))

    async def seize(self, run_id: str, fence: int, owner: str, lease_seconds: float) -> Claim | None:
        """Claim one run, timed."""
        return await self._measure("run_seize", self._store.seize(run_id, fence, owner, lease_seconds))

    async def release(self, owner: str, run_id: str, fence: int) -> bool:
        """Give a run back, timed."""
        return await self._measure("run_release", self._store.release(owner, run_id, fence))

    async def note(self, run_id: str, fence: int, progress: bytes) -> bool:
        """Keep a run's progress, timed."""
        return await self._measure("run_note", self._store.note(run_id, fence, progress))

    async def settle(self, record: ResponseRecord, fence: int) -> bool:
        """End a run, timed."""
        return await self._measure("run_settle", self._store.settle(record, fence))

    async def get(self, project_id: str, run_id: str) -> RunState | None:
        """Get a run, timed."""
        return await self._measure("run_get", self._store.get(project_id, run_id))

    async def waiting(self) -> int:
        """Count waiting runs, timed."""
        return await self._measure("run_waiting", self._store.waiting())

    async def _measure(self, operation: str, work: Awaitable[_T]) -> _T:
        return await timed(operation, work, self._note, StoreUnavailable)
