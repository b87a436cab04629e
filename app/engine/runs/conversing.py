"""The conversation of a run: locked while the response is generated, read before, and added to at the end.

See `docs/adr/0052-conversations.md`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from app.engine.conversation import conversations
from app.engine.conversation.context import Context
from app.engine.conversation.exchanges import Exchanges
from app.engine.conversation.history import View
from app.engine.conversation.locks import LEASE_SECONDS
from app.engine.hosted.sessions import Hosted
from app.engine.request.admission import Admitted
from app.engine.runs.origin import Origin
from app.engine.runs.ports import Ports
from app.protocol.wire.errors import InvalidRequest
from app.stores.ports.conversations import (
    ConversationFull,
    ConversationItem,
    ConversationLocked,
    ConversationTurn,
)
from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.responses import ResponseRecord

_log = logging.getLogger(__name__)
_SECTION = 500
"""Items read at a time."""


class Conversing:
    """What a run does with the conversation that its request names; nothing if there is none."""

    def __init__(self, ports: Ports, project_id: str, admitted: Admitted, origin: Origin) -> None:
        self._ports = ports
        self._project_id = project_id
        self._response_id = origin.id
        self._id = admitted.conversation
        self._adds = admitted.store
        self._taken: frozenset[str] = frozenset()
        """Ids of the conversation's items, as far as they have been read."""
        self._holds = False
        self._stored = origin.seed is not None
        """The run has a row in the run store, which holds the lock as long as it exists."""

    async def begin(self) -> None:
        """Lock the conversation, if the response is to be added.

        Raises NotFound, Locked, InvalidRequest and StoreUnavailable.
        """
        if self._id is None or not self._adds:
            await self.check()
            return
        store, now = self._ports.conversations, int(self._ports.clock())
        lease = 0.0 if self._stored else LEASE_SECONDS
        try:
            found = await store.lock(self._project_id, self._id, self._response_id, lease, now)
        except ConversationLocked:
            raise conversations.locked(self._id) from None
        except ConversationFull:
            raise conversations.full(self._id, "conversation") from None
        if not found:
            raise conversations.not_found(self._id, "conversation")
        if not self._stored:
            self._holds = True
            self._ports.locks.add(self._response_id)

    async def check(self) -> None:
        """Check that there is such a conversation. Raises NotFound and StoreUnavailable."""
        if self._id is None:
            return
        found = await self._ports.conversations.get(self._project_id, self._id, int(self._ports.clock()))
        if found is None:
            raise conversations.not_found(self._id, "conversation")

    async def context(self, view: View, previous_id: str | None, now: int) -> Context:
        """The conversation, or the chain of responses if there is none. Raises InvalidRequest."""
        if self._id is None:
            return await self._ports.history.context(view, previous_id, now)
        return await conversations.context_of(view, await self._items(self._id))

    async def _items(self, conversation_id: str) -> Sequence[ConversationItem]:
        """All items of the conversation. Raises InvalidRequest if they are too large."""
        items: list[ConversationItem] = []
        size, most = 0, self._ports.policy.limits.conversation_bytes
        start: int | None = 0
        while start is not None:
            section = await self._ports.conversations.section(self._project_id, conversation_id, start, _SECTION)
            items += section.items
            size += sum(len(one.item) + len(one.exchange or b"") for one in section.items)
            if size > most:
                raise _too_large(conversation_id, most)
            start = section.next
        self._taken = frozenset(one.id for one in items)
        return items

    def with_turn(self, record: ResponseRecord, hosted: Hosted | None) -> ResponseRecord:
        """The record, which adds the request's items and the output to the conversation."""
        if self._id is None or not self._adds:
            return record
        exchanges = hosted.exchanges if hosted is not None else Exchanges()
        items = conversations.turn_of(record, exchanges, self._taken)
        return msgspec.structs.replace(record, turn=ConversationTurn(self._id, items))

    def hand_over(self) -> None:
        """The run is going to have a row in the run store, from then on it needs no lease."""
        self._stored, self._holds = True, False
        self._ports.locks.discard(self._response_id)

    async def handed_over(self) -> None:
        """The run has its row."""
        if self._id is not None:
            await self._ports.conversations.renew([self._response_id], 0.0)

    async def end(self, *, settled: bool) -> None:
        """Release the lock. `settled`: storing the record has released it."""
        if not self._holds:
            return
        self._holds = False
        self._ports.locks.discard(self._response_id)
        if not settled:
            await self.release()

    async def release(self) -> None:
        """Release the lock of a response that adds nothing."""
        if self._id is None or not self._adds:
            return
        try:
            await self._ports.conversations.unlock(self._response_id)
        except StoreUnavailable as error:
            _log.warning("the lock of conversation %s stays until its lease is over: %s", self._id, error)


def _too_large(conversation_id: str, most: int) -> InvalidRequest:
    message = (
        f"The items of conversation '{conversation_id}' have more than {most} bytes. Delete some of them, or begin a "
        f"new conversation."
    )
    return InvalidRequest(message, code="conversation_too_large", param="conversation")
