"""Converts items to the stored JSON, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from app.engine.conversation.exchanges import Exchanges, decode, listings, said
from app.engine.conversation.items import Item
from app.engine.conversation.transcript import Transcript
from app.protocol.wire import ids, stored_input
from app.protocol.wire.requests import InputItem, parse_item
from app.stores.ports.responses import Turn


class _Output(msgspec.Struct, frozen=True):
    output: tuple[msgspec.Raw, ...]
    status: str = "completed"


class _Named(msgspec.Struct, frozen=True):
    id: str


class _Belonging(msgspec.Struct, frozen=True):
    conversation: _Named | None = None


_belonging = msgspec.json.Decoder(_Belonging)
_output = msgspec.json.Decoder(_Output)
_array = msgspec.json.Decoder(tuple[msgspec.Raw, ...])


def input_array(items: Sequence[Item]) -> tuple[bytes, Sequence[str]]:
    """The items as the stored JSON array, each as it was sent, and the ids that the client chose itself."""
    foreign = [item_id for item in items if (item_id := item.fields.id) and ids.locate(item_id) is None]
    return stored_input.join([item.raw for item in items]), foreign


def items_of(turn: Turn) -> Sequence[msgspec.Raw]:
    """The model's input in a stored turn: inherited items, and its own; each has an id."""
    inherited = raws(turn.inherited) if turn.inherited else ()
    return (*inherited, *stored_input.identified(turn.input, turn.id))


def replay(turn: Turn, transcript: Transcript) -> None:
    """Add a stored turn, with the tool results as the model read them."""
    exchanges = decode(turn.exchanges)
    transcript.resume()
    if turn.inherited:
        replay_items(raws(turn.inherited), exchanges, transcript)
        transcript.resume()
    _add([(raw, parse_item(raw, "")) for raw in raws(turn.input)], exchanges, transcript)
    transcript.close_stored()
    continue_with(turn.response, exchanges, transcript)


def continue_with(body: bytes, exchanges: Exchanges, transcript: Transcript) -> None:
    """Add a response's output, with the tool results as the model read them; the next items continue it."""
    response = _output.decode(body)
    _add([(raw, parse_item(raw, "")) for raw in response.output], exchanges, transcript)
    transcript.notes.update(exchanges.notes)
    transcript.end_turn(cut=response.status != "completed")


def _add(items: Iterable[tuple[msgspec.Raw, InputItem]], exchanges: Exchanges, transcript: Transcript) -> None:
    found = list(items)
    transcript.add(("", one) for raw, fields in found if (one := said(raw, fields, "", exchanges.calls)) is not None)
    transcript.notes.update(listings(found))


def replay_items(items: Sequence[msgspec.Raw], exchanges: Exchanges, transcript: Transcript) -> None:
    """Add the items of several turns, which only ids distinguish: the id of an output item names its response."""
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
    transcript.notes.update(exchanges.notes)
    transcript.end_turn(cut=False)


def _end_turn(transcript: Transcript) -> None:
    transcript.end_turn(cut=False)
    transcript.resume()


def _place(location: ids.ItemLocation | None) -> tuple[str, bool] | None:
    return location and (location.response_id, location.output)


def output_raws(body: bytes) -> tuple[msgspec.Raw, ...]:
    """The response's output items as JSON."""
    return _output.decode(body).output


def conversation_of(body: bytes) -> str | None:
    """The id of the conversation that a response belongs to; None: none."""
    named = _belonging.decode(body).conversation
    return named and named.id


def raws(array: bytes) -> tuple[msgspec.Raw, ...]:
    """The items of a JSON array, unparsed."""
    return _array.decode(array)
