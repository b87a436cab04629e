"""Items to the JSON that is stored, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from app.engine.admission import Item
from app.engine.exchanges import Exchanges, decode, listings, said
from app.engine.transcript import Transcript
from app.protocol import ids
from app.protocol.requests import InputItem, parse_item
from app.stores.base import Turn


class _Output(msgspec.Struct, frozen=True):
    output: tuple[msgspec.Raw, ...]
    status: str = "completed"


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
    exchanges = decode(turn.exchanges)
    transcript.resume()
    if turn.inherited:
        _add_inherited(raws(turn.inherited), exchanges, transcript)
    _add([(raw, parse_item(raw, "")) for raw in raws(turn.input)], exchanges, transcript)
    transcript.close_stored()
    continue_with(turn.response, exchanges, transcript)


def continue_with(body: bytes, exchanges: Exchanges, transcript: Transcript) -> None:
    """Add a response's output, with what the model read of its tools; the next items continue it."""
    response = _output.decode(body)
    _add([(raw, parse_item(raw, "")) for raw in response.output], exchanges, transcript)
    transcript.notes.update(exchanges.notes)
    transcript.end_turn(cut=response.status != "completed")


def _add(items: Iterable[tuple[msgspec.Raw, InputItem]], exchanges: Exchanges, transcript: Transcript) -> None:
    found = list(items)
    transcript.add(("", one) for raw, fields in found if (one := said(raw, fields, "", exchanges.calls)) is not None)
    transcript.notes.update(listings(found))


def _add_inherited(items: Sequence[msgspec.Raw], exchanges: Exchanges, transcript: Transcript) -> None:
    """Add the items of several turns, which nothing but the items' ids tells apart: those of a response's output say whose they are."""
    before: ids.ItemLocation | None = None
    for raw in items:
        fields = parse_item(raw, "")
        location = ids.locate(fields.id) if fields.id else None
        if before is not None and _place(location) != _place(before):
            if before.output:
                _end_turn(transcript)
            elif location is not None and location.response_id == before.response_id:
                transcript.close_stored()
        _add([(raw, fields)], exchanges, transcript)
        before = location
    _end_turn(transcript)


def _end_turn(transcript: Transcript) -> None:
    transcript.end_turn(cut=False)
    transcript.resume()


def _place(location: ids.ItemLocation | None) -> tuple[str, bool] | None:
    return location and (location.response_id, location.output)


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
