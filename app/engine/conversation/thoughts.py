"""Reads reasoning items: their sealed thinking is opened within bounds, and what a client sends twice is read once."""

from __future__ import annotations

from collections.abc import Callable

from app.engine.conversation.content import at
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import InputItem

_MOST_SEALED = 8 * 1024 * 1024
"""Characters of sealed thinking, more than any model reads: an item of some kilobytes may hold a megabyte."""


class Thoughts:
    """The thinking in one conversation's reasoning items."""

    __slots__ = ("_by_id", "_room", "_sealed", "_unseal", "dropped", "last")

    def __init__(self, unseal: Callable[[str], str | None]) -> None:
        self._unseal = unseal
        self._room = _MOST_SEALED
        self._by_id: dict[str, str] = {}
        self._sealed: tuple[str | None, str | None] = (None, None)
        """The one that was opened last, and what was in it."""
        self.last: str | None = None
        """The last one of the turn being read."""
        self.dropped = False
        """One could not be opened (another server, tenant or model)."""

    def read(self, item: InputItem, place: str) -> str | None:
        """The item's thinking; None if it has just been read, or is the one with that id: some clients send the same
        item before each call of a turn. Raises InvalidRequest if there is too much that is sealed."""
        thought = self._thinking(item)
        if thought == self.last or (item.id and self._by_id.get(item.id) == thought):
            return None
        if item.encrypted_content:
            self._room -= len(thought)
            if self._room < 0 and place:
                param = at(place, "encrypted_content")
                message = f"Invalid '{param}': all encrypted reasoning together is larger than 8 MiB."
                raise InvalidRequest(message, code="too_large", param=param)
        return thought

    def add(self, item_id: str | None, thought: str) -> None:
        """Remember one that was read."""
        self.last = thought
        if item_id:
            self._by_id[item_id] = thought

    def _thinking(self, item: InputItem) -> str:
        if item.encrypted_content:
            opened = self._opened(item.encrypted_content) if self._room > 0 else None
            if opened is not None:
                return opened
        content = item.content if isinstance(item.content, tuple) else ()
        shown = [part.text or "" for part in (*(item.summary or ()), *content)]
        if item.encrypted_content and not any(shown):
            self.dropped = True
        return "\n".join(shown)

    def _opened(self, sealed: str) -> str | None:
        """What was sealed; the same one is opened once."""
        if self._sealed[0] != sealed:
            self._sealed = sealed, self._unseal(sealed)
        return self._sealed[1]
