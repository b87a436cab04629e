"""What a WebSocket knows beyond the store: its responses with `store` false, for as long as it is open.

They can be continued on their own connection and nowhere else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from app.engine.conversation.history import History
from app.protocol.wire import ids
from app.stores.ports.responses import Chains, Lineage, ResponseRecord, Turn

_ENTRY_BYTES = 1000
"""Memory of a kept response beside its texts."""
_CONTEXT_BYTES = 1024 * 1024
"""Memory for the encoded contexts of one connection."""
_CONTINUABLE = frozenset({"completed", "incomplete"})


class _Kept(msgspec.Struct, frozen=True):
    record: ResponseRecord
    lane: str | None
    """Which lane of the connection made it."""

    @property
    def size(self) -> int:
        record = self.record
        return _ENTRY_BYTES + len(record.response) + len(record.input) + len(record.exchanges or b"")


class KeptResponses:
    """The responses of all connections of this process; the least recently used go first."""

    def __init__(self, capacity: int) -> None:
        """`capacity` in bytes."""
        self._capacity = capacity
        self._kept: OrderedDict[tuple[int, str], _Kept] = OrderedDict()
        self.size = 0
        """In bytes."""

    def find(self, connection: int, response_id: str) -> _Kept | None:
        """The response, if this connection has it."""
        kept = self._kept.get((connection, response_id))
        if kept is not None:
            self._kept.move_to_end((connection, response_id))
        return kept

    def put(self, connection: int, kept: _Kept) -> None:
        """Keep a response, at the expense of others."""
        self._kept[connection, kept.record.id] = kept
        self.size += kept.size
        while self.size > self._capacity:
            self.size -= self._kept.popitem(last=False)[1].size

    def drop(self, connection: int, response_id: str) -> None:
        """Drop a response, if it is there."""
        kept = self._kept.pop((connection, response_id), None)
        if kept is not None:
            self.size -= kept.size


class ConnectionState:
    """The responses of one connection, before those of the store. Belongs to one project."""

    def __init__(self, store: Chains, responses: KeptResponses) -> None:
        self._store = store
        self._responses = responses
        self._ids: set[str] = set()
        self.history = History(self, _CONTEXT_BYTES, shared=True)
        """Contexts of chains that end with a response of this connection, or that must not be known elsewhere."""

    def has(self, response_id: str) -> bool:
        """Whether the response is one of this connection that is not stored."""
        found = ids.normalize_response_id(response_id)
        return found is not None and self._find(found) is not None

    def keep(self, record: ResponseRecord, lane: str | None) -> None:
        """Keep a response that ended and can be continued."""
        if record.status in _CONTINUABLE:
            self._ids.add(record.id)
            self._responses.put(id(self), _Kept(record, lane))

    def evict(self, response_id: str, lane: str | None) -> None:
        """A continuation on that lane has failed: its parent goes, unless another lane made it."""
        found = ids.normalize_response_id(response_id)
        kept = self._find(found) if found is not None else None
        if kept is not None and kept.lane == lane:
            self._drop(kept.record.id)

    def close(self) -> None:
        """The connection is closed."""
        for response_id in tuple(self._ids):
            self._drop(response_id)

    async def get(self, project_id: str, response_id: str, now: int) -> ResponseRecord | None:
        """See `Chains`."""
        kept = self._find(response_id)
        return kept.record if kept is not None else await self._store.get(project_id, response_id, now)

    async def chain(self, project_id: str, response_id: str, now: int) -> Sequence[Turn] | None:
        """See `Chains`; None, too, if a turn that the tip needs has been evicted."""
        before, turns = self._newest(response_id)
        if before is None:
            return turns
        earlier = await self._store.chain(project_id, before, now)
        return None if earlier is None else (*earlier, *turns)

    async def lineage(self, project_id: str, response_id: str, now: int, newest: int) -> Lineage | None:
        """See `Chains`."""
        before, turns = self._newest(response_id)
        if not turns:
            return await self._store.lineage(project_id, response_id, now, newest)
        earlier = () if before is None else await self._store.chain(project_id, before, now)
        return None if earlier is None else Lineage((), (*earlier, *turns))

    async def continuable(self, project_id: str, response_id: str, now: int) -> bool:
        """See `Chains`."""
        before, _ = self._newest(response_id)
        return before is None or await self._store.continuable(project_id, before, now)

    async def locate_item(self, project_id: str, item_id: str, now: int) -> str | None:
        """See `Chains`."""
        return await self._store.locate_item(project_id, item_id, now)

    def _newest(self, response_id: str) -> tuple[str | None, Sequence[Turn]]:
        """The turns of this connection at the end of the chain, and the id of the turn before them."""
        turns: list[Turn] = []
        above: str | None = response_id
        while above is not None and (kept := self._find(above)) is not None:
            record = kept.record
            turns.append(Turn(record.id, record.input, record.response, record.inherited, record.exchanges))
            above = record.previous_id
        return above, turns[::-1]

    def _find(self, response_id: str) -> _Kept | None:
        return self._responses.find(id(self), response_id) if response_id in self._ids else None

    def _drop(self, response_id: str) -> None:
        self._ids.discard(response_id)
        self._responses.drop(id(self), response_id)
