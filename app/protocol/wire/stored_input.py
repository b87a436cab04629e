"""A turn's input as it is stored, and as it is read: stored as it came, and an item without an id has the one that says where it is.

The id of an item is a pure function of its response and its place (`ids.item_id`), so it is put in by those who read, which is
seldom, and not by everyone who writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from app.protocol.wire import ids


class _Named(msgspec.Struct, frozen=True):
    id: Any = None
    """Items of other servers may have anything in its place."""
    type: str | None = None


_named = msgspec.json.Decoder(_Named).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(tuple[msgspec.Raw, ...]).decode


def join(items: Sequence[msgspec.Raw]) -> bytes:
    """The items as one JSON array, each as it came."""
    if not items:
        return b"[]"
    parts: list[bytes | msgspec.Raw] = list(items)
    parts[0] = b"[%b" % parts[0]  # the brackets go into the items at the ends: put around the whole, they would copy it once more
    parts[-1] = b"%b]" % parts[-1]
    return b",".join(parts)


def identified(array: bytes, response_id: str) -> tuple[msgspec.Raw, ...]:
    """The items of a stored array, each with an id. One that is there wins; null and an empty one are none.

    Rows of earlier releases hold an id in every item already.
    """
    return tuple([_identified(raw, response_id, position) for position, raw in enumerate(_array(array))])


def _identified(raw: msgspec.Raw, response_id: str, position: int) -> msgspec.Raw:
    named = _named(raw)
    if named.id and isinstance(named.id, str):
        return raw
    item_id = ids.item_id(ids.item_prefix(named.type or "message"), response_id, position, output=False)
    members = _members(raw)
    members.pop("id", None)
    return msgspec.Raw(msgspec.json.encode({"id": item_id, **members}))
