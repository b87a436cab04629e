"""Stores a turn's input as sent, and adds ids on reading to items without one.

The id of an item is a pure function of its response and position (`ids.item_id`), so it is added when reading, which is
rare, and not on every write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from app.protocol.wire import ids


class _Named(msgspec.Struct, frozen=True):
    id: Any = None
    """Items of other servers may have any value here."""
    type: str | None = None


_named = msgspec.json.Decoder(_Named).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(tuple[msgspec.Raw, ...]).decode


def join(items: Sequence[msgspec.Raw]) -> bytes:
    """The items as one JSON array, each as sent."""
    if not items:
        return b"[]"
    parts: list[bytes | msgspec.Raw] = list(items)
    # brackets are added to the first and last item: around the joined array they would cost another copy
    parts[0] = b"[%b" % parts[0]
    parts[-1] = b"%b]" % parts[-1]
    return b",".join(parts)


def _any(_item_id: str) -> bool:
    return True


def identified(array: bytes, response_id: str, keeps: Callable[[str], bool] = _any) -> tuple[msgspec.Raw, ...]:
    """The items of a stored array, each with an id. An existing id wins; null and empty ones do not count, nor do those
    that `keeps` rejects.

    In rows of earlier releases every item already has an id.
    """
    return tuple([_identified(raw, response_id, position, keeps) for position, raw in enumerate(_array(array))])


def _identified(raw: msgspec.Raw, response_id: str, position: int, keeps: Callable[[str], bool]) -> msgspec.Raw:
    named = _named(raw)
    if named.id and isinstance(named.id, str) and keeps(named.id):
        return raw
    item_id = ids.item_id(ids.item_prefix(named.type or "message"), response_id, position, output=False)
    members = _members(raw)
    members.pop("id", None)
    return msgspec.Raw(msgspec.json.encode({"id": item_id, **members}))
