"""What happens to a chain when its oldest turns are removed: pure functions shared by the stores."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from app.protocol.wire import stored_input
from app.stores.ports.responses import Turn


class _Answer(msgspec.Struct):
    output: msgspec.Raw = msgspec.Raw(b"[]")


_ANSWER = msgspec.json.Decoder(_Answer)
_EXCHANGES = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])


def purged_above(parent: str | None, purged: Mapping[str, str | None]) -> tuple[list[str], str | None]:
    """The turns above a child that are being removed, root first, and the turn that the child follows afterwards.

    `purged`: id of each removed turn -> its previous turn.
    """
    path: list[str] = []
    while parent is not None and parent in purged:
        path.append(parent)
        parent = purged[parent]
    path.reverse()
    return path, parent


def items_of(turn: Turn) -> bytes:
    """All items of a turn, as a JSON array: inherited ones, its input, its output.

    The input's ids are written now: in another turn, an item is no longer at the position that its id is derived from.
    """
    own = stored_input.join(stored_input.identified(turn.input, turn.id))
    return concatenate(turn.inherited, own, bytes(_ANSWER.decode(turn.response).output))


def concatenate(*arrays: bytes | None) -> bytes:
    """One JSON array with the elements of all; their bytes are unchanged."""
    insides = (array.strip()[1:-1].strip() for array in arrays if array)
    return b"[" + b",".join(inside for inside in insides if inside) + b"]"


def merged(*maps: bytes | None) -> bytes | None:
    """One msgpack map with the entries of all; later ones win. Their meaning is the engine's business."""
    found: dict[str, msgspec.Raw] = {}
    for one in maps:
        if one:
            found.update(_EXCHANGES.decode(one))
    return msgspec.msgpack.encode(found) if found else None
