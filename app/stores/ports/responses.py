"""The port to stored responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class ResponseRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stored turn. Times are integer Unix seconds."""

    id: str
    """Canonical UUID text, never prefixed."""
    project_id: str
    previous_id: str | None
    """The turn before. When that one has been purged, it becomes the next one above, so that a deleted ancestor stays in sight."""
    created_at: int
    expires_at: int
    status: str
    model: str
    response: bytes
    """The response object, JSON, as answered."""
    input: bytes
    """This turn's input items as they came, a JSON array; read with `protocol.stored_input`, which gives an id to those without."""
    cuts: bytes | None = None
    """Where a streamed response's deltas were cut (msgpack), so that its events can be replayed; None: it was not streamed."""
    inherited: bytes | None = None
    """Items of ancestors that have expired meanwhile (JSON array), moved here when they were purged."""
    exchanges: bytes | None = None
    """What the model read of its tools (msgpack); no client sees it."""
    foreign_item_ids: Sequence[str] = ()
    """Ids in `input` that the client made up itself; kept in an index that `get` does not read. All other ids say where they are."""


class Turn(msgspec.Struct, frozen=True):
    """What a later turn needs of an earlier one."""

    id: str
    input: bytes
    response: bytes
    inherited: bytes | None
    exchanges: bytes | None = None


class AncestorDeleted(Exception):
    """A response further up the chain was deleted, so its descendants cannot be continued."""

    def __init__(self, response_id: str) -> None:
        super().__init__(response_id)
        self.response_id = response_id


class RecordRefused(Exception):
    """The store will never take this record: its id is used already, or it holds what the store cannot hold."""


class ResponseStore(Protocol):
    """Responses of all projects. Safe to call concurrently."""

    @property
    def doubtful(self) -> bool:
        """There is reason to `check` before work is done whose record could not be kept. Costs nothing to ask."""
        ...

    async def check(self) -> None:
        """Whether a record could be kept now. Raises StoreUnavailable with the reason."""
        ...

    async def save(self, record: ResponseRecord) -> None:
        """Keep the record; durable when this returns. Writes of concurrent callers share one transaction. Raises RecordRefused."""
        ...

    async def get(self, project_id: str, response_id: str, now: int) -> ResponseRecord | None:
        """The record, or None when unknown, expired, deleted or another project's."""
        ...

    async def chain(self, project_id: str, response_id: str, now: int) -> Sequence[Turn] | None:
        """The turns from the root to `response_id`, in one read.

        None when the tip is unknown, expired, deleted or foreign. Ancestors may be past their expiry: only the tip's counts.
        Raises AncestorDeleted when one was deleted.
        """
        ...

    async def continuable(self, project_id: str, response_id: str, now: int) -> bool:
        """Whether `chain` would answer: the tip lives and no ancestor was deleted. Cheaper, since no bytes are read."""
        ...

    async def locate_item(self, project_id: str, item_id: str, now: int) -> str | None:
        """The response whose input holds the client-made item id; the newest one, None when unknown."""
        ...

    async def delete(self, project_id: str, response_id: str, now: int) -> bool:
        """Erase the bytes and leave a tombstone that outlives every descendant; False when there was nothing to delete."""
        ...

    async def purge(self, now: int, limit: int) -> int:
        """Remove up to `limit` expired records and return how many went.

        Items of a removed record move into its living children (`inherited`), so that no context becomes shorter.
        Only one replica at a time does the work; the others get 0.
        """
        ...

    async def count_expired(self, now: int) -> int:
        """How many records are past their time and still there, tombstones included."""
        ...
