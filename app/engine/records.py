"""Items to the JSON that is stored, and back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.engine.admission import Item
from app.engine.exchanges import Exchanges, decode, said
from app.engine.transcript import Transcript
from app.protocol import ids, stored_input
from app.protocol.requests import parse_item
from app.stores.base import Turn


class _Output(msgspec.Struct, frozen=True):
    output: tuple[msgspec.Raw, ...]


_output = msgspec.json.Decoder(_Output)
_array = msgspec.json.Decoder(tuple[msgspec.Raw, ...])


def input_array(items: Sequence[Item]) -> tuple[bytes, Sequence[str]]:
    """The items as the JSON array that is stored, each as it came, and the ids that the client made up itself."""
    foreign = [item_id for item in items if (item_id := item.fields.id) and ids.locate(item_id) is None]
    return stored_input.join([item.raw for item in items]), foreign


def items_of(turn: Turn) -> Sequence[msgspec.Raw]:
    """What the model was given in a stored turn: the items it has inherited, and its own; each has an id."""
    inherited = raws(turn.inherited) if turn.inherited else ()
    return (*inherited, *stored_input.identified(turn.input, turn.id))


def replay(turn: Turn, transcript: Transcript) -> None:
    """Add what was said in a stored turn, with what the model read of its tools."""
    continue_with((*items_of(turn), *output_raws(turn.response)), decode(turn.exchanges), transcript)


def continue_with(items: Sequence[msgspec.Raw], exchanges: Exchanges, transcript: Transcript) -> None:
    """Add items, with what the model read of their tools."""
    found = ((raw, parse_item(raw, "")) for raw in items)
    transcript.add(("", one) for raw, fields in found if (one := said(raw, fields, "", exchanges.calls)) is not None)
    transcript.notes.update(exchanges.notes)


def output_raws(body: bytes) -> tuple[msgspec.Raw, ...]:
    """The response's output items as JSON."""
    return _output.decode(body).output


def raws(array: bytes) -> tuple[msgspec.Raw, ...]:
    """The items of a JSON array as they are there."""
    return _array.decode(array)
