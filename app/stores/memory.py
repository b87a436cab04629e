"""Responses in a dictionary: the reference implementation, and the store for tests of other things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from app.stores.lineage import concatenate, items_of, merged, purged_above
from app.stores.ports.responses import AncestorDeleted, Lineage, RecordRefused, ResponseRecord, Turn


class MemoryResponseStore:
    """Keeps responses in memory until the process ends."""

    def __init__(self, *, retention_seconds: int, grace_seconds: int = 0) -> None:
        """`retention_seconds`: how long a tombstone stays. `grace_seconds`: see `SqlResponseStore`."""
        self._retention = retention_seconds
        self._grace = grace_seconds
        self._records: dict[str, ResponseRecord] = {}
        self._deleted: set[str] = set()
        self.doubtful = False

    async def check(self) -> None:
        """Memory is always writable."""

    async def save(self, record: ResponseRecord) -> None:
        """Store the record."""
        if record.id in self._records:
            raise RecordRefused(f"{record.id} is already in use")
        self._records[record.id] = record

    async def get(self, project_id: str, response_id: str, now: int) -> ResponseRecord | None:
        """The record, if this project has it."""
        record = self._records.get(response_id)
        if record is None or record.project_id != project_id or record.expires_at <= now or record.id in self._deleted:
            return None
        return replace(record, foreign_item_ids=(), turn=None)

    async def chain(self, project_id: str, response_id: str, now: int) -> Sequence[Turn] | None:
        """The turns from the root to `response_id`."""
        record = await self.get(project_id, response_id, now)
        if record is None:
            return None
        turns: list[Turn] = []
        while record is not None and record.project_id == project_id:
            if record.id in self._deleted:
                raise AncestorDeleted(record.id)
            turns.append(_turn(record))
            record = self._records.get(record.previous_id or "")
        return turns[::-1]

    async def lineage(self, project_id: str, response_id: str, now: int, newest: int) -> Lineage | None:
        """The chain in two parts."""
        turns = await self.chain(project_id, response_id, now)
        return None if turns is None else Lineage([turn.id for turn in turns[:-newest]], turns[-newest:])

    async def continuable(self, project_id: str, response_id: str, now: int) -> bool:
        """Whether `chain` would succeed."""
        try:
            return await self.chain(project_id, response_id, now) is not None
        except AncestorDeleted:
            return False

    async def has_ended(self, project_id: str, response_id: str) -> bool:
        """Whether there is a record, whatever its state."""
        record = self._records.get(response_id)
        return record is not None and record.project_id == project_id

    async def locate_item(self, project_id: str, item_id: str, now: int) -> str | None:
        """The newest response that contains the item."""
        holders = [
            r for r in self._records.values() if item_id in r.foreign_item_ids and await self.get(project_id, r.id, now)
        ]
        return max(holders, key=lambda r: (r.created_at, r.id)).id if holders else None

    async def delete(self, project_id: str, response_id: str, now: int) -> bool:
        """Leave a tombstone."""
        record = await self.get(project_id, response_id, now)
        if record is None:
            return False
        self._deleted.add(record.id)
        self._records[record.id] = replace(
            record,
            input=b"",
            response=b"",
            cuts=None,
            inherited=None,
            exchanges=None,
            foreign_item_ids=(),
            expires_at=now + self._retention,
        )
        return True

    async def purge(self, now: int, limit: int) -> int:
        """Remove the oldest expired records."""
        parents = {r.previous_id for r in self._records.values()}
        expired = [r for r in self._expired(now - self._grace) if r.id not in self._deleted or r.id not in parents]
        batch = {r.id: r for r in sorted(expired, key=lambda r: r.expires_at)[:limit]}
        self._bequeath(batch)
        for gone in batch:
            del self._records[gone]
            self._deleted.discard(gone)
        return len(batch)

    def _bequeath(self, batch: Mapping[str, ResponseRecord]) -> None:
        """Move what these records hold to their children."""
        going = {r.id: r.previous_id for r in batch.values()}
        for child in list(self._records.values()):
            path, above = purged_above(child.previous_id, going)
            if path and child.id not in batch and child.id not in self._deleted:
                inherited = concatenate(*(items_of(_turn(batch[one])) for one in path), child.inherited)
                read = merged(*(batch[one].exchanges for one in path), child.exchanges)
                self._records[child.id] = replace(child, previous_id=above, inherited=inherited, exchanges=read)

    async def count_expired(self, now: int) -> int:
        """How many records have expired."""
        return len(self._expired(now))

    def _expired(self, now: int) -> list[ResponseRecord]:
        return [r for r in self._records.values() if r.expires_at <= now]


def _turn(record: ResponseRecord) -> Turn:
    return Turn(record.id, record.input, record.response, record.inherited, record.exchanges)
