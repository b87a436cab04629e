"""Restores the assembler of a response from its frames, when they are all that is left of it.

Only the ends of batches are states of an assembler: a batch may hold an item's `added` together with its first part, or
all its ends. So nothing is guessed: what the frames show is emitted again, and has to be the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.lifecycle import IllegalEvent, Lifecycle
from app.protocol.stream.phases import SPECS
from app.protocol.stream.projection import parse_frame
from app.protocol.stream.replay import emit_again
from app.protocol.stream.writers import Cut
from app.protocol.wire import events as e
from app.protocol.wire.hosted import HostedItem
from app.protocol.wire.items import (
    ContentPart,
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    RefusalPart,
    SummaryText,
)
from app.protocol.wire.response import Response, decode, seed
from app.protocol.wire.tokens import TokenLogprob


class NotRestorable(ValueError):
    """The frames are not all frames of an unfinished response up to the end of a batch."""


def restore(frames: Sequence[bytes]) -> tuple[Assembler, Sequence[OutputItem]]:
    """An assembler that has emitted these frames, the first of which is `response.created`, and its items, the last of
    which may be open.

    The frames are taken already. It can end the response, or go on with another turn of the model, but not with this
    one: what was received and not shown yet is unknown, and so are the usage and the encrypted form of thinking that is
    still open. Raises NotRestorable.
    """
    shown = _Shown()
    try:
        for event in _events(frames):
            shown.add(event)
        if shown.seed is None:
            raise NotRestorable("there are no frames")
        assembler = emit_again(shown.seed, shown.output, shown.cuts, open_last=shown.writing, running=shown.running)
    except (ValueError, IllegalEvent, InvalidArguments) as error:
        raise NotRestorable(f"The response cannot be restored: {error}") from error
    if assembler.take_first(len(frames)) != list(frames):
        raise NotRestorable("The response cannot be restored: its frames do not come out again as they are.")
    return assembler, shown.output


def _events(frames: Sequence[bytes]) -> Iterator[e.Event]:
    lifecycle = Lifecycle()
    for frame in frames:
        event = parse_frame(frame)
        if event is None:
            raise NotRestorable("a frame has no event")
        lifecycle.advance(event)
        yield event


class _Field(msgspec.Struct):
    """A text that comes in pieces: a part of an item, or the arguments of a call."""

    part: ContentPart | SummaryText | None = None
    whole: bool = False
    """`part` is complete."""
    pieces: list[str] = []
    logprobs: list[TokenLogprob] = []
    counts: list[int] = []
    """Log probabilities of each piece."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def cuts(self) -> Sequence[Cut]:
        lengths = [len(piece) for piece in self.pieces]
        return list(zip(lengths, self.counts, strict=True)) if self.logprobs else lengths

    @property
    def content(self) -> OutputText | RefusalPart:
        """The part of a message, as far as it was shown."""
        if isinstance(self.part, RefusalPart):
            return RefusalPart(self.text)
        if self.whole and isinstance(self.part, OutputText):
            return self.part
        return OutputText(self.text, logprobs=tuple(self.logprobs))

    def add(self, delta: e.TextualDelta) -> None:
        logprobs = delta.logprobs if isinstance(delta, e.TextDelta) else ()
        self.pieces.append(delta.delta)
        self.logprobs.extend(logprobs)
        self.counts.append(len(logprobs))


class _Shown:
    """What the events show: the items, the last of which may be open, and where their deltas were cut."""

    def __init__(self) -> None:
        self.seed: Response | None = None
        self.running = False
        """The open item is a hosted call whose arguments are complete."""
        self._done: list[OutputItem] = []
        self._cuts: list[Sequence[Cut]] = []
        self._open: OutputItem | None = None
        self._fields: list[_Field] = []
        """Of the open item."""

    @property
    def writing(self) -> bool:
        return self._open is not None

    @property
    def output(self) -> Sequence[OutputItem]:
        return self._done if self._open is None else [*self._done, _as_shown(self._open, self._fields)]

    @property
    def cuts(self) -> Sequence[Sequence[Cut]]:
        return [*self._cuts, *(field.cuts for field in self._fields)]

    def add(self, event: e.Event) -> None:
        """Add the next event, which is in its place. Raises NotRestorable at the end of the response."""
        if isinstance(event, e.TextualDelta):
            self._fields[-1].add(event)
            return
        match event:
            case e.Created():
                self.seed = seed(decode(bytes(event.response)))
            case e.ItemAdded():
                self._open, self.running = event.item, False
                self._fields = [_Field()] if _has_arguments(event.item) else []
            case e.PartAdded() | e.SummaryPartAdded():
                self._fields.append(_Field(event.part))
            case e.PartDone():
                self._fields[-1].part, self._fields[-1].whole = event.part, True
            case e.ItemDone():
                self._done.append(event.item)
                self._cuts.extend(field.cuts for field in self._fields)
                self._open, self._fields = None, []
            case e.Completed() | e.Incomplete() | e.Failed() | e.ErrorEvent():
                raise NotRestorable("it has ended")
            case _:
                self.running = self.running or _is_running(self._open, event)


def _has_arguments(item: OutputItem) -> bool:
    """Whether the item has one field from its beginning; messages and thinking have parts instead."""
    if isinstance(item, HostedItem):
        return SPECS[type(item)].arguments is not None
    return not isinstance(item, MessageItem | ReasoningItem)


def _is_running(item: OutputItem | None, event: e.Event) -> bool:
    if not isinstance(item, HostedItem):
        return False
    spec = SPECS[type(item)]
    return type(event) is spec.running or (spec.arguments is not None and type(event) is spec.arguments.done)


def _as_shown(item: OutputItem, fields: Sequence[_Field]) -> OutputItem:
    """The open item with what was shown of it since its `added`."""
    text = "".join(field.text for field in fields)
    match item:
        case MessageItem():
            return msgspec.structs.replace(item, content=tuple(field.content for field in fields))
        case ReasoningItem() if fields and isinstance(fields[0].part, ReasoningText):
            return msgspec.structs.replace(item, content=(ReasoningText(text),))
        case ReasoningItem():
            return msgspec.structs.replace(item, summary=(SummaryText(text),))
        case FunctionCallItem():
            return msgspec.structs.replace(item, arguments=text)
        case _:
            stream = SPECS[type(item)].arguments if isinstance(item, HostedItem) else None
            return msgspec.structs.replace(item, **{stream.field: text}) if stream else item
