"""The port to stored responses with their items.

One turn is one record with only its own items. Bytes are stored as they were sent: the response object is the exact
JSON the client got. Every read takes the owner; another project's id is treated as unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from app.stores.ports.conversations import ConversationTurn


class ResponseRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stored turn. Times are integer Unix seconds."""

    id: str
    """Canonical UUID text, never prefixed."""
    project_id: str
    previous_id: str | None
    """The previous turn.

    When that one is purged, this becomes the next one above, so that a deleted ancestor remains detectable.
    """
    created_at: int
    expires_at: int
    status: str
    model: str
    response: bytes
    """The response object as returned, JSON."""
    input: bytes
    """This turn's input items as received, a JSON array; read with `protocol.stored_input`, which adds missing ids."""
    cuts: bytes | None = None
    """Where a streamed response's deltas were cut (msgpack), so that its events can be replayed.

    None if it was not streamed.
    """
    inherited: bytes | None = None
    """Items of expired ancestors (JSON array), moved here when those were purged."""
    exchanges: bytes | None = None
    """What the model read from its tools (msgpack); never shown to clients."""
    foreign_item_ids: Sequence[str] = ()
    """Ids in `input` that the client chose; kept in an index that `get` does not read.

    All other ids contain their location.
    """
    turn: ConversationTurn | None = None
    """What the response adds to its conversation; `get` does not read it."""


class Turn(msgspec.Struct, frozen=True):
    """What a later turn needs from an earlier one."""

    id: str
    input: bytes
    response: bytes
    inherited: bytes | None
    exchanges: bytes | None = None


class Lineage(msgspec.Struct, frozen=True):
    """A chain whose newest turns have been read."""

    older: Sequence[str]
    """Ids of the turns before `newest`, root first."""
    newest: Sequence[Turn]
    """Ends with the tip."""


class AncestorDeleted(Exception):
    """A response further up the chain was deleted, so its descendants cannot be continued."""

    def __init__(self, response_id: str) -> None:
        super().__init__(response_id)
        self.response_id = response_id


class RecordRefused(Exception):
    """The store will never accept this record: its id exists, or a value cannot be stored."""


class Chains(Protocol):
    """Reads conversations."""

    async def get(self, project_id: str, response_id: str, now: int) -> ResponseRecord | None:
        """The record, or None if unknown, expired, deleted or another project's."""
        ...

    async def chain(self, project_id: str, response_id: str, now: int) -> Sequence[Turn] | None:
        """The turns from the root to `response_id`, in one read.

        None if the tip is unknown, expired, deleted or another project's. Ancestors may have expired: only the tip's
        expiry counts. Raises AncestorDeleted if one was deleted.
        """
        ...

    async def lineage(self, project_id: str, response_id: str, now: int, newest: int) -> Lineage | None:
        """As `chain`, but only the ids of all turns except the `newest`."""
        ...

    async def continuable(self, project_id: str, response_id: str, now: int) -> bool:
        """Whether `chain` would succeed: the tip exists and no ancestor was deleted.

        Cheaper, since no content is read.
        """
        ...

    async def locate_item(self, project_id: str, item_id: str, now: int) -> str | None:
        """The response whose input contains this client-chosen item id; the newest one, None if unknown."""
        ...


class ResponseStore(Chains, Protocol):
    """Responses of all projects. Safe to call concurrently."""

    @property
    def doubtful(self) -> bool:
        """Whether to `check` before starting work whose record might not be stored. Costs nothing to read."""
        ...

    async def check(self) -> None:
        """Raises StoreUnavailable with the reason if no record could be stored now."""
        ...

    async def save(self, record: ResponseRecord) -> None:
        """Store the record; durable when this returns.

        Writes of concurrent callers share one transaction. A turn is added to its conversation, if that still exists,
        and the conversation's lock released. Raises RecordRefused, also if the response has lost that lock.
        """
        ...

    async def has_ended(self, project_id: str, response_id: str) -> bool:
        """Whether there is a record of it, even an expired or deleted one: it is not being generated."""
        ...

    async def delete(self, project_id: str, response_id: str, now: int) -> bool:
        """Erase the content and leave a tombstone that outlives every descendant.

        False if there was nothing to delete.
        """
        ...

    async def purge(self, now: int, limit: int) -> int:
        """Remove up to `limit` expired records and return how many were removed.

        Items of a removed record move to its remaining children (`inherited`), so that no context becomes shorter.
        Only one replica at a time does this; the others return 0.
        """
        ...

    async def count_expired(self, now: int) -> int:
        """How many expired records still exist, tombstones included."""
        ...
