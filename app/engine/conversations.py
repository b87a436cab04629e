"""The use cases of `/v1/conversations`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Never

import msgspec

from app.engine.accounts.access import Principal
from app.engine.conversation import conversations
from app.engine.request.admission import items_of
from app.engine.runs.ports import Ports
from app.protocol.wire import ids
from app.protocol.wire.errors import InvalidRequest, NotFound
from app.protocol.wire.paging import Page, UnknownCursor
from app.stores.ports.conversations import Conversation, ConversationFull, ConversationItem, ConversationLocked

_MOST_METADATA = 16


class ConversationPage(msgspec.Struct, frozen=True):
    """A page of a conversation's items."""

    items: Sequence[msgspec.Raw]
    has_more: bool


class Conversations:
    """Create, read, change, delete; the same for items."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._store = ports.conversations

    async def create(
        self, principal: Principal, items: Sequence[msgspec.Raw], metadata: Mapping[str, str]
    ) -> Conversation:
        """A new conversation with these items. Raises InvalidRequest."""
        now = self._ports.clock()
        made = Conversation(
            id=ids.conversation_id(int(now * 1000), os.urandom(10)),
            project_id=principal.project_id,
            created_at=int(now),
            metadata=msgspec.json.encode(metadata),
        )
        await self._store.create(made, await self._checked(principal, items))
        return made

    async def get(self, principal: Principal, conversation_id: str) -> Conversation:
        """The conversation. Raises NotFound."""
        found = await self._store.get(principal.project_id, conversation_id, self._now())
        return found or _missing(conversation_id)

    async def update(
        self, principal: Principal, conversation_id: str, metadata: Mapping[str, str] | None
    ) -> Conversation:
        """Add the metadata to what there is; None removes all of it. Raises NotFound and InvalidRequest."""

        def change(stored: bytes) -> bytes:
            merged = {} if metadata is None else {**msgspec.json.decode(stored), **metadata}
            if len(merged) > _MOST_METADATA:
                raise _too_much_metadata()
            return msgspec.json.encode(merged)

        changed = await self._store.update(principal.project_id, conversation_id, change, self._now())
        return changed or _missing(conversation_id)

    async def delete(self, principal: Principal, conversation_id: str) -> None:
        """Delete the conversation with its items; its responses stay.

        Raises NotFound, and Locked while a response is being generated in it.
        """
        try:
            if not await self._store.delete(principal.project_id, conversation_id, self._now()):
                _missing(conversation_id)
        except ConversationLocked:
            raise conversations.locked(conversation_id) from None

    async def add(
        self, principal: Principal, conversation_id: str, items: Sequence[msgspec.Raw]
    ) -> Sequence[msgspec.Raw]:
        """Add items at the end, all or none; returns them as stored. Raises NotFound and InvalidRequest."""
        await self.get(principal, conversation_id)
        added = await self._checked(principal, items)
        known = await self._store.has_any(principal.project_id, conversation_id, [one.id for one in added])
        if known is not None:
            raise _repeated(known)
        try:
            if not await self._store.add(principal.project_id, conversation_id, added, self._now()):
                _missing(conversation_id)
        except ConversationFull:
            raise conversations.full(conversation_id, "conversation_id") from None
        return [msgspec.Raw(one.item) for one in added]

    async def page(self, principal: Principal, conversation_id: str, page: Page) -> ConversationPage:
        """A page of the items. Raises NotFound and InvalidRequest."""
        await self.get(principal, conversation_id)
        try:
            items, more = await self._store.page(principal.project_id, conversation_id, page)
        except UnknownCursor as error:
            message = f"Invalid '{error.param}': no item of the conversation has the id '{error.cursor}'."
            raise InvalidRequest(message, code="invalid_value", param=error.param) from error
        return ConversationPage([msgspec.Raw(one.item) for one in items], more)

    async def item(self, principal: Principal, conversation_id: str, item_id: str) -> msgspec.Raw:
        """One item. Raises NotFound."""
        await self.get(principal, conversation_id)
        found = await self._store.item(principal.project_id, conversation_id, item_id)
        if found is None:
            raise _no_item(conversation_id, item_id)
        return msgspec.Raw(found.item)

    async def remove(self, principal: Principal, conversation_id: str, item_id: str) -> Conversation:
        """Remove an item; returns the conversation. Raises NotFound."""
        conversation = await self.get(principal, conversation_id)
        if not await self._store.remove(principal.project_id, conversation_id, item_id):
            raise _no_item(conversation_id, item_id)
        return conversation

    async def _checked(self, principal: Principal, raws: Sequence[msgspec.Raw]) -> Sequence[ConversationItem]:
        """The items as they are stored. Raises InvalidRequest."""
        if not raws:
            return ()
        now = self._ports.clock()
        items = await self._ports.history.resolve(principal.project_id, items_of(raws, "items"), int(now))
        conversations.check(items)
        added = conversations.stored([one.raw for one in items], ids.response_id(int(now * 1000), os.urandom(10)))
        seen: set[str] = set()
        for i, one in enumerate(added):
            if conversations.ADDRESSABLE.fullmatch(one.id) is None:
                message = f"Invalid 'items[{i}].id': expected at most 128 letters, digits, '_' and '-'."
                raise InvalidRequest(message, code="invalid_value", param=f"items[{i}].id")
            if one.id in seen:
                raise _repeated(one.id)
            seen.add(one.id)
        return added

    def _now(self) -> int:
        return int(self._ports.clock())


def _missing(conversation_id: str) -> Never:
    raise conversations.not_found(conversation_id, "conversation_id")


def _too_much_metadata() -> InvalidRequest:
    message = f"Invalid 'metadata': a conversation has at most {_MOST_METADATA} pairs, earlier ones included."
    return InvalidRequest(message, code="too_large", param="metadata")


def _no_item(conversation_id: str, item_id: str) -> NotFound:
    message = f"Item with id '{item_id}' not found in conversation '{conversation_id}'."
    return NotFound(message, code="item_not_found", param="item_id")


def _repeated(item_id: str) -> InvalidRequest:
    message = f"Invalid 'items': the conversation has an item with the id '{item_id}' already; leave the id out."
    return InvalidRequest(message, code="invalid_value", param="items")
