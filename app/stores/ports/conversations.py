"""The port to conversations: lists of items that responses read and add to.

Every read takes the owner; another project's conversation is treated as unknown. One response at a time adds its turn
to a conversation: it holds the conversation's lock, a lease by the store's own clock. The turn is stored together with
the response, see `ConversationTurn`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from app.protocol.wire.paging import Page


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation without its items. Times are integer Unix seconds."""

    id: str
    project_id: str
    created_at: int
    metadata: bytes = b"{}"
    """JSON object of strings."""


class ConversationItem(msgspec.Struct, frozen=True):
    """One item."""

    id: str
    item: bytes
    """JSON, with its id."""
    exchange: bytes | None = None
    """What the model read from its tools there (msgpack); never shown to clients."""


class ConversationTurn(msgspec.Struct, frozen=True):
    """What a response adds to its conversation, stored in one transaction with the response."""

    conversation_id: str
    items: Sequence[ConversationItem]


class Section(msgspec.Struct, frozen=True):
    """Consecutive items."""

    items: Sequence[ConversationItem]
    next: int | None
    """The position where the next section begins; None: there is none."""


class ConversationLocked(Exception):
    """A response is being generated in the conversation."""


class ConversationFull(Exception):
    """The conversation has had as many items as it may have."""


class ConversationStore(Protocol):
    """Conversations of all projects. Safe to call concurrently. Every method may raise StoreUnavailable."""

    async def create(self, conversation: Conversation, items: Sequence[ConversationItem]) -> None:
        """Add a conversation with its first items."""
        ...

    async def get(self, project_id: str, conversation_id: str, now: int) -> Conversation | None:
        """The conversation, or None if unknown, expired, deleted or another project's."""
        ...

    async def update(
        self, project_id: str, conversation_id: str, change: Callable[[bytes], bytes], now: int
    ) -> Conversation | None:
        """Replace the metadata by what `change` makes of it; None as in `get`."""
        ...

    async def delete(self, project_id: str, conversation_id: str, now: int) -> bool:
        """Delete it with its items. False as None in `get`. Raises ConversationLocked."""
        ...

    async def add(self, project_id: str, conversation_id: str, items: Sequence[ConversationItem], now: int) -> bool:
        """Add items at the end, all or none. False as None in `get`. Raises ConversationFull."""
        ...

    async def page(self, project_id: str, conversation_id: str, page: Page) -> tuple[Sequence[ConversationItem], bool]:
        """A page of the items, and whether there is more. Raises UnknownCursor."""
        ...

    async def item(self, project_id: str, conversation_id: str, item_id: str) -> ConversationItem | None:
        """The newest item with this id; None if there is none."""
        ...

    async def has_any(self, project_id: str, conversation_id: str, item_ids: Sequence[str]) -> str | None:
        """One of these ids that an item of the conversation has; None: there is no such item."""
        ...

    async def remove(self, project_id: str, conversation_id: str, item_id: str) -> bool:
        """Remove the items with this id. False if there were none."""
        ...

    async def section(self, project_id: str, conversation_id: str, start: int, most: int) -> Section:
        """At most so many items in their order, from the position `start` on; 0 is the beginning."""
        ...

    async def lock(
        self, project_id: str, conversation_id: str, response_id: str, lease_seconds: float, now: int
    ) -> bool:
        """Lock the conversation for a response, or extend its lock. Released when its turn is stored.

        A lock holds until its lease is over, and that of a background run as long as the run has not ended.
        False as None in `get`. Raises ConversationLocked and ConversationFull.
        """
        ...

    async def renew(self, response_ids: Sequence[str], lease_seconds: float) -> None:
        """Extend the leases of these responses, as far as they still have their locks."""
        ...

    async def unlock(self, response_id: str) -> None:
        """Release the lock of the response, if it has one."""
        ...

    async def purge(self, now: int, limit: int) -> int:
        """Remove up to `limit` items of expired conversations, and the conversations without items.

        Returns how many rows were removed. Only one replica at a time does this; the others return 0.
        """
        ...
