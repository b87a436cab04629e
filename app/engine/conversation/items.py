"""Items of a conversation as the engine hands them on."""

from __future__ import annotations

import msgspec

from app.protocol.wire.requests import InputItem


class Item(msgspec.Struct, frozen=True):
    """One input item: as sent, as read, and where it stood in the request."""

    raw: msgspec.Raw
    fields: InputItem
    place: str


class MoreTools(msgspec.Struct, frozen=True):
    """Tools that an item of the conversation brings, and what it says to the model beside that."""

    tools: tuple[msgspec.Raw, ...]
    place: str
    """Where they stand in the request; "" for those of an earlier turn."""
    found: bool
    """A search has brought them, so they are on offer whether they were deferred or not."""
    result: InputItem | None = None

    def kept(self) -> MoreTools:
        """As a later turn needs them."""
        return MoreTools(self.tools, "", self.found)

    @property
    def weight(self) -> int:
        """Bytes of memory that the definitions take."""
        return sum(len(bytes(raw)) for raw in self.tools)
