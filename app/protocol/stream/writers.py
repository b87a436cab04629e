"""One writer per kind of output item: it emits the item's events from `added` to `done`.

Text is kept in the received fragments and joined once at the end; a replay needs the fragments' lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from app.protocol.recovery.arguments import HeldArguments
from app.protocol.stream.lifecycle import Lifecycle
from app.protocol.wire import events as e
from app.protocol.wire.errors import ErrorType
from app.protocol.wire.items import (
    Annotation,
    ContentPart,
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    RefusalPart,
    SummaryText,
)
from app.protocol.wire.response import Response, encode
from app.protocol.wire.sse import DeltaFrames, frame
from app.protocol.wire.tokens import TokenLogprob

_CATEGORIES: dict[str, ErrorType] = {
    "rate_limit_exceeded": "rate_limit_error",
    "invalid_prompt": "invalid_request_error",
}

Annotate = Callable[[str], Sequence[Annotation]]
"""Finds the sources that a text cites."""

Cut = int | tuple[int, int]
"""Length of a delta's text, with the number of its log probabilities if there are any."""


class SoFar(msgspec.Struct, frozen=True):
    """A response in progress."""

    output: Sequence[OutputItem]
    cuts: Sequence[Sequence[Cut]]
    taken: int
    """How many frames have been taken."""
    writing: bool = False
    """An item is open, the last one; it is shown as if it ended here."""
    running: bool = False
    """It is a hosted call whose arguments are complete."""


class Emitter:
    """Numbers events, checks them against the lifecycle table, and encodes each once.

    Deltas skip the table: a writer with an open field exists only between the field's `added` and `done`, which are
    checked.
    """

    __slots__ = ("_lifecycle", "_quiet", "frames")

    def __init__(self, *, quiet: bool) -> None:
        self.frames: list[bytes] = []
        self._lifecycle = Lifecycle()
        self._quiet = quiet

    def emit(self, kind: Callable[..., e.Event], **fields: object) -> None:
        """Emit a structural event. Without a reader (no stream) nothing is built."""
        if self._quiet:
            return
        event = kind(sequence_number=self._lifecycle.sequence_number + 1, **fields)
        self._lifecycle.advance(event)
        self.frames.append(frame(event))

    @property
    def taken(self) -> int:
        """How many frames have been emitted and taken away."""
        return self._lifecycle.sequence_number + 1 - len(self.frames)

    def emit_start(self, response: Response) -> None:
        """Emit the opening events of a response that is in progress.

        A background response always shows that it was queued, even for no time: its replay cannot know for how long.
        """
        if self._quiet:
            return
        snapshot = first = msgspec.Raw(encode(response))
        if response.background:
            first = msgspec.Raw(encode(msgspec.structs.replace(response, status="queued")))
        self.emit(e.Created, response=first)
        if response.background:
            self.emit(e.Queued, response=first)
        self.emit(e.InProgress, response=snapshot)

    def emit_end(self, response: Response, body: bytes) -> None:
        """Emit the terminal event for the status.

        Before a failure the error, flat and nested, since clients read either.
        """
        kind: Callable[..., e.Event] = e.Incomplete
        if response.status == "completed":
            kind = e.Completed
        elif response.error is not None:
            kind = e.Failed
            code, message = response.error.code, response.error.message
            category = _CATEGORIES.get(code, "server_error")
            self.emit(
                e.ErrorEvent, code=code, message=message, param=None, error=e.NestedError(category, code, message, None)
            )
        self.emit(kind, response=msgspec.Raw(body))

    def field(self, kind: Callable[..., e.TextualDelta], **place: Any) -> Callable[[str], None]:
        """Open a field; returns the function that emits its deltas, the per-token path."""
        if self._quiet:
            return _say_nothing
        template = DeltaFrames(kind(sequence_number=0, delta="", **place))
        lifecycle = self._lifecycle

        def say(text: str) -> None:
            lifecycle.sequence_number = number = lifecycle.sequence_number + 1
            self.frames.append(template.frame(number, text))

        return say


def _say_nothing(_text: str) -> None:
    pass


class ItemWriter(Protocol):
    """The item being written."""

    def close(self, status: ItemStatus) -> OutputItem:
        """Emit the remaining events up to `output_item.done`; returns the finished item. Raises InvalidArguments."""
        ...

    def cuts(self) -> Sequence[Sequence[Cut]]:
        """Where the deltas of each of the item's fields were cut."""
        ...


class MessageWriter:
    """Writes a message: text and refusal parts."""

    def __init__(self, out: Emitter, item_id: str, index: int, annotate: Annotate | None = None) -> None:
        self._out = out
        self._annotate = annotate
        self._at = {"item_id": item_id, "output_index": index}
        self._id = item_id
        self._index = index
        self._parts: list[OutputText | RefusalPart] = []
        self._cuts: list[list[Cut]] = []
        self._fragments: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._counts: list[int] = []
        self._refusing: bool | None = None
        self._say = _say_nothing
        out.emit(e.ItemAdded, output_index=index, item=MessageItem(item_id, "in_progress"))

    def write(self, text: str) -> None:
        """Add to the answer; the per-token path."""
        if self._refusing is not False:
            self._open_part(refusing=False)
        self._fragments.append(text)
        if self._counts:
            self._counts.append(0)
        self._say(text)

    def write_scored(self, text: str, logprobs: Sequence[TokenLogprob]) -> None:
        """Add text with log probabilities."""
        if self._refusing is not False:
            self._open_part(refusing=False)
        self._counts.extend([0] * (len(self._fragments) - len(self._counts)))
        self._fragments.append(text)
        self._logprobs.extend(logprobs)
        self._counts.append(len(logprobs))
        self._out.emit(e.TextDelta, **self._place(), delta=text, logprobs=tuple(logprobs))

    def refuse(self, text: str) -> None:
        """Add to a refusal."""
        if self._refusing is not True:
            self._open_part(refusing=True)
        self._fragments.append(text)
        self._say(text)

    def close(self, status: ItemStatus) -> MessageItem:
        """Emit the item's remaining events and return it."""
        self._close_part()
        item = MessageItem(self._id, status, tuple(self._parts))
        self._out.emit(e.ItemDone, output_index=self._index, item=item)
        return item

    def cuts(self) -> Sequence[Sequence[Cut]]:
        """Where the deltas of each of the item's fields were cut."""
        return self._cuts

    def _place(self) -> dict[str, Any]:
        return {**self._at, "content_index": len(self._parts)}

    def _open_part(self, *, refusing: bool) -> None:
        self._close_part()
        self._refusing = refusing
        place = self._place()
        part: ContentPart = RefusalPart("") if refusing else OutputText("")
        self._out.emit(e.PartAdded, **place, part=part)
        self._say = self._out.field(e.RefusalDelta if refusing else e.TextDelta, **place)

    def _close_part(self) -> None:
        if self._refusing is None:
            return
        place, text = self._place(), "".join(self._fragments)
        part: OutputText | RefusalPart
        if self._refusing:
            part = RefusalPart(text)
            self._out.emit(e.RefusalDone, **place, refusal=text)
        else:
            annotations = tuple(self._annotate(text)) if self._annotate else ()
            for number, annotation in enumerate(annotations):
                self._out.emit(e.AnnotationAdded, **place, annotation_index=number, annotation=annotation)
            part = OutputText(text, annotations, tuple(self._logprobs))
            self._out.emit(e.TextDone, **place, text=text, logprobs=part.logprobs)
        self._out.emit(e.PartDone, **place, part=part)
        lengths = [len(fragment) for fragment in self._fragments]
        self._cuts.append(list(zip(lengths, self._counts, strict=True)) if self._counts else [*lengths])
        self._parts.append(part)
        self._fragments, self._logprobs, self._counts, self._refusing = [], [], [], None


class ReasoningWriter:
    """Writes a reasoning item, as one summary part or (`raw`) as one content part."""

    def __init__(self, out: Emitter, item_id: str, index: int, *, raw: bool, seal: Callable[[str], str] | None) -> None:
        self._out = out
        self._id = item_id
        self._index = index
        self._raw = raw
        self._seal = seal
        self._fragments: list[str] = []
        out.emit(e.ItemAdded, output_index=index, item=ReasoningItem(item_id, "in_progress"))
        self._place: dict[str, Any] = {
            "item_id": item_id,
            "output_index": index,
            ("content_index" if raw else "summary_index"): 0,
        }
        if raw:
            out.emit(e.PartAdded, **self._place, part=ReasoningText(""))
            self._say = out.field(e.ReasoningTextDelta, **self._place)
        else:
            out.emit(e.SummaryPartAdded, **self._place, part=SummaryText(""))
            self._say = out.field(e.SummaryTextDelta, **self._place)

    def write(self, text: str) -> None:
        """Add to the thinking; the per-token path."""
        self._fragments.append(text)
        self._say(text)

    def close(self, status: ItemStatus) -> ReasoningItem:
        """Emit the item's remaining events and return it."""
        text = "".join(self._fragments)
        sealed = self._seal(text) if self._seal else msgspec.UNSET
        if self._raw:
            self._out.emit(e.ReasoningTextDone, **self._place, text=text)
            self._out.emit(e.PartDone, **self._place, part=ReasoningText(text))
            item = ReasoningItem(self._id, status, content=(ReasoningText(text),), encrypted_content=sealed)
        else:
            self._out.emit(e.SummaryTextDone, **self._place, text=text)
            self._out.emit(e.SummaryPartDone, **self._place, part=SummaryText(text))
            item = ReasoningItem(self._id, status, summary=(SummaryText(text),), encrypted_content=sealed)
        self._out.emit(e.ItemDone, output_index=self._index, item=item)
        return item

    def cuts(self) -> Sequence[Sequence[Cut]]:
        """Where the deltas of each of the item's fields were cut."""
        return [[len(fragment) for fragment in self._fragments]]


class HeldCallWriter:
    """Common base of call writers that show nothing until the arguments are complete."""

    def __init__(self) -> None:
        self._arguments = HeldArguments()

    @property
    def whole(self) -> bool:
        """Whether nothing more can be added to the arguments."""
        return self._arguments.whole

    def write(self, fragment: str) -> None:
        """Add to the arguments, even after the call is closed, which `is_right` then takes into account."""
        self._arguments.feed(fragment)
