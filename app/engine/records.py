"""Items to the JSON that is stored, and back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.engine.admission import Item
from app.engine.exchanges import Exchanges, decode, listings, said
from app.engine.transcript import Transcript
from app.protocol import ids
from app.protocol.requests import parse_item
from app.stores.base import Turn


class _Output(msgspec.Struct, frozen=True):
    output: tuple[msgspec.Raw, ...]


_output = msgspec.json.Decoder(_Output)
_array = msgspec.json.Decoder(tuple[msgspec.Raw, ...])


def input_array(items: Sequence[Item], response_id: str) -> tuple[bytes, Sequence[str]]:
    """The items as a JSON array in which each has an id, and the ids that the client made up itself."""
    foreign: list[str] = []
    raws: list[bytes] = []
    for position, item in enumerate(items):
        item_id = item.fields.id
        if item_id is None:
            raws.append(_with_id(item, ids.item_id(ids.item_prefix(item.fields.type or "message"), response_id, position, output=False)))
            continue
        if ids.locate(item_id) is None:
            foreign.append(item_id)
        raws.append(bytes(item.raw))
    return b"[%b]" % b",".join(raws), foreign


def replay(turn: Turn, transcript: Transcript) -> None:
    """Add what was said in a stored turn, with what the model read of its tools."""
    inherited = raws(turn.inherited) if turn.inherited else ()
    continue_with((*inherited, *raws(turn.input), *output_raws(turn.response)), decode(turn.exchanges), transcript)


def continue_with(items: Sequence[msgspec.Raw], exchanges: Exchanges, transcript: Transcript) -> None:
    """Add items, with what the model read of their tools."""
    found = [(raw, parse_item(raw, "")) for raw in items]
    transcript.add(("", one) for raw, fields in found if (one := said(raw, fields, "", exchanges.calls)) is not None)
    transcript.notes.update(listings(found))
    transcript.notes.update(exchanges.notes)


def output_raws(body: bytes) -> tuple[msgspec.Raw, ...]:
    """The response's output items as JSON."""
    return _output.decode(body).output


def raws(array: bytes) -> tuple[msgspec.Raw, ...]:
    """The items of a stored JSON array."""
    return _array.decode(array)


def _with_id(item: Item, item_id: str) -> bytes:
    raw = bytes(item.raw).strip()
    if b'"id"' in raw:  # perhaps an explicit null, which would win over an id put before it
        return msgspec.json.encode({**msgspec.json.decode(raw), "id": item_id})
    rest = raw[1:].lstrip()
    return b'{"id":"%b"%b%b' % (item_id.encode(), b"" if rest.startswith(b"}") else b",", rest)
