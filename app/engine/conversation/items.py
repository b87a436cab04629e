"""Input items, and the tools that they add."""

from __future__ import annotations

import msgspec

from app.protocol.wire.requests import InputItem


class Item(msgspec.Struct, frozen=True):
    """One input item: as sent, as parsed, and its position in the request."""

    raw: msgspec.Raw
    fields: InputItem
    place: str


class MoreTools(msgspec.Struct, frozen=True):
    """Tools that an item of the conversation adds, and the item's other content for the model."""

    tools: tuple[msgspec.Raw, ...]
    place: str
    """Their place in the request; "" for those of an earlier turn."""
    found: bool
    """A search found them, so they are offered even if they were deferred."""
    result: InputItem | None = None

    def kept(self) -> MoreTools:
        """The part that later turns need."""
        return MoreTools(self.tools, "", self.found)

    @property
    def weight(self) -> int:
        """Size of the definitions in bytes."""
        return sum(len(bytes(raw)) for raw in self.tools)
