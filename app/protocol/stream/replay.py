"""Replays the events of a response, stored or in progress.

A stream is its response plus the positions where its deltas were cut; everything else about its events follows from the
items. So a stored stream costs two bytes per delta, and its events are reproduced byte for byte. A response that was
not streamed is replayed with one delta per field.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

import msgspec

from app.protocol import deltas as d
from app.protocol.recovery.client_arguments import Members
from app.protocol.recovery.client_tools import CallTarget, payload_of, tool_of
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.options import Options
from app.protocol.stream.phases import SPECS
from app.protocol.stream.writers import Cut
from app.protocol.wire.client_items import ClientItem, Payload
from app.protocol.wire.hosted import HostedItem
from app.protocol.wire.items import (
    ClientCall,
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    RefusalPart,
)
from app.protocol.wire.response import Response, decode, seed

_DELTAS = 128
"""In a batch, at most."""

_cuts_encoder = msgspec.msgpack.Encoder()
_cuts_decoder = msgspec.msgpack.Decoder(list[list[int | tuple[int, int]]])


def encode_cuts(cuts: Sequence[Sequence[Cut]]) -> bytes:
    """The stored form of the cuts."""
    return _cuts_encoder.encode(cuts)


def replay(body: bytes, cuts: bytes | None) -> Iterator[list[bytes]]:
    """Every frame of a stored response, from `response.created` to the terminal event, in batches.

    A batch is made when it is asked for: together they are many times as large as the response.
    Cuts that cannot be read, or are not those of its texts, are ignored: then its deltas are whole fields.
    """
    response = decode(body)
    assembler = _assembler(seed(response), response.output)
    for _ in _emit(assembler, response.output, _decoded(cuts), open_last=False):
        yield assembler.take()
    assembler.emit_end(response, body)
    yield assembler.take()


def catch_up(assembler: Assembler) -> list[bytes]:
    """The frames that have been taken so far of a response in progress."""
    shown = assembler.so_far()
    again = emit_again(assembler.seed, shown.output, shown.cuts, open_last=shown.writing, running=shown.running)
    return again.take_first(shown.taken)


def emit_again(
    response: Response,
    output: Sequence[OutputItem],
    cuts: Sequence[Sequence[Cut]],
    *,
    open_last: bool,
    running: bool = False,
) -> Assembler:
    """An assembler that has emitted the items again; with `open_last` without the end of the last one.

    Raises InvalidArguments.
    """
    assembler = _assembler(response, output)
    for _ in _emit(assembler, output, cuts, open_last=open_last, running=running):
        pass
    return assembler


def _assembler(response: Response, output: Sequence[OutputItem]) -> Assembler:
    return Assembler(response, lambda _prefix, position: output[position].id, _options(output))


def _emit(
    assembler: Assembler,
    output: Sequence[OutputItem],
    cuts: Sequence[Sequence[Cut]],
    *,
    open_last: bool,
    running: bool = False,
) -> Iterator[None]:
    """Emit the items in steps, each with few enough frames to be a batch."""
    assembler.start()
    remaining = iter(cuts)
    for position, item in enumerate(output):
        ended = not open_last or position < len(output) - 1
        if isinstance(item, HostedItem):
            assembler.show_hosted(item, _argument_pieces(item, remaining), running=running, ended=ended)
            yield
            continue
        deltas = _deltas(item, position, remaining)
        while some := list(islice(deltas, _DELTAS)):
            assembler.receive(some)
            yield
        if ended:
            assembler.close_item(getattr(item, "status", "completed"))


def _decoded(cuts: bytes | None) -> Sequence[Sequence[Cut]]:
    try:
        return _cuts_decoder.decode(cuts) if cuts else ()
    except msgspec.DecodeError:
        return ()


def _options(output: Sequence[OutputItem]) -> Options:
    """What the assembler would otherwise ask for is taken from the items."""
    reasoning = [item for item in output if isinstance(item, ReasoningItem)]
    messages = [item for item in output if isinstance(item, MessageItem)]
    sealed = iter([item.encrypted_content for item in reasoning])
    sources = iter([part.annotations for item in messages for part in item.content if isinstance(part, OutputText)])
    return Options(
        raw_reasoning=any(item.content is not msgspec.UNSET for item in reasoning),
        targets={item.id: _target(item) for item in output if isinstance(item, ClientCall)},
        known_call_ids=None,
        seal=lambda _text: next(sealed),  # type: ignore[arg-type,return-value]  # UNSET where there was none
        annotate=lambda _text: next(sources),
    )


def _argument_pieces(item: HostedItem, cuts: Iterator[Sequence[Cut]]) -> Sequence[str]:
    stream = SPECS[type(item)].arguments
    if stream is None:
        return ()
    return list(_pieces(getattr(item, stream.field), next(cuts, None)))


def _target(item: ClientCall) -> CallTarget:
    if isinstance(item, ClientItem):
        payload, kind = payload_of(item), tool_of(item)
        return CallTarget(kind.type, tool=msgspec.structs.replace(kind, read=partial(_known, payload)))
    return CallTarget(item.name, item.namespace or None, isinstance(item, CustomToolCallItem))


def _known(payload: Payload, _members: Members) -> Payload:
    return payload


def _deltas(
    item: MessageItem | ReasoningItem | ClientCall, position: int, cuts: Iterator[Sequence[Cut]]
) -> Iterator[d.Delta]:
    match item:
        case MessageItem():
            for part in item.content:
                yield from _part(part, next(cuts, None))
        case ReasoningItem():
            text = item.content[0].text if item.content else "".join(part.text for part in item.summary)
            yield from (d.Reasoning(piece) for piece in _pieces(text, next(cuts, None)))
        case _:
            yield d.CallOpened(position, item.call_id, item.id)
            yield from (d.CallArguments(position, piece) for piece in _arguments(item, next(cuts, None)))


def _arguments(item: ClientCall, cuts: Sequence[Cut] | None) -> Iterator[str]:
    match item:
        case FunctionCallItem():
            yield from _pieces(item.arguments, cuts)
        case CustomToolCallItem(status="in_progress"):
            return  # until its end nothing is known of the input
        case CustomToolCallItem():
            yield msgspec.json.encode({"input": item.input}).decode()
        case _:
            yield "{}"


def _part(part: OutputText | RefusalPart, cuts: Sequence[Cut] | None) -> Iterator[d.Delta]:
    if isinstance(part, OutputText):
        yield from _text(part, cuts)
    else:
        yield from (d.Refusal(piece) for piece in _pieces(part.refusal, cuts))


def _pieces(text: str, cuts: Sequence[Cut] | None) -> Iterator[str]:
    if cuts is None or not _divide(cuts, len(text)):
        yield from (text,) if text else ()
        return
    start = 0
    for cut in cuts:
        length = _length(cut)
        yield text[start : start + length]
        start += length


def _divide(cuts: Sequence[Cut], size: int) -> bool:
    """Whether these are cuts of a text of this size."""
    lengths = [_length(cut) for cut in cuts]
    return sum(lengths) == size and min(lengths, default=0) >= 0


def _length(cut: Cut) -> int:
    return cut if isinstance(cut, int) else cut[0]


def _text(part: OutputText, cuts: Sequence[Cut] | None) -> Iterator[d.Delta]:
    if not part.logprobs:
        yield from (d.Text(piece) for piece in _pieces(part.text, cuts))
        return
    start = 0
    if not cuts or not _divide(cuts, len(part.text)):
        cuts = [(len(part.text), len(part.logprobs))]
    for cut, piece in zip(cuts, _pieces(part.text, cuts), strict=True):
        count = 0 if isinstance(cut, int) else cut[1]
        yield d.Text(piece, part.logprobs[start : start + count])
        start += count
