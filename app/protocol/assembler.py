"""Upstream deltas in, Responses events and items out.

Synchronous and pure. At most one item is being written at any time; its end is emitted before the next one's start.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from app.protocol import deltas as d
from app.protocol.events import Created, InProgress
from app.protocol.ids import item_prefix
from app.protocol.items import CustomToolCallItem, FunctionCallItem, ItemStatus, OutputItem, ReasoningItem
from app.protocol.response import IncompleteDetails, InputTokensDetails, OutputTokensDetails, Response, ResponseError, Usage, encode
from app.protocol.writers import CallTarget, CallWriter, CustomCallWriter, Cut, Emitter, InvalidArguments, MessageWriter, ReasoningWriter

_BYTES_PER_TOKEN = 4


class Options(msgspec.Struct, frozen=True):
    """How one response is assembled."""

    quiet: bool = False
    """No reader of events: a plain answer."""
    raw_reasoning: bool = False
    """Thinking as `reasoning_text`, not as `reasoning_summary_text`."""
    parallel_calls: bool = True
    """False: calls after the first are left out."""
    targets: Mapping[str, CallTarget] = {}
    """The client's tools by the names the upstream knows."""
    seal: Callable[[str], str] | None = None
    """Makes a reasoning item's `encrypted_content`."""


class _PendingCall(msgspec.Struct):
    """A call the model opened; its fragments wait here until an earlier one is written."""

    call_id: str
    name: str
    fragments: list[str] = []
    writer: CallWriter | CustomCallWriter | None = None
    ignored: bool = False


class Assembler:
    """Builds one response. `new_id(prefix, position)` names items and calls."""

    def __init__(self, response: Response, new_id: Callable[[str, int], str], options: Options) -> None:
        self.seed = response
        self._new_id = new_id
        self._options = options
        self._out = Emitter(quiet=options.quiet)
        self._writer: MessageWriter | ReasoningWriter | CallWriter | CustomCallWriter | None = None
        self._calls: dict[int, _PendingCall] = {}
        self._waiting: list[_PendingCall] = []
        self._lead: list[d.Text] = []
        self._usage: d.TokenUsage | None = None
        self._estimated = False
        self.output: list[OutputItem] = []
        self.cuts: list[Sequence[Cut]] = []
        self.finish_reason: d.FinishReason | None = None
        """Of the last turn; None: the turn has not ended."""
        self.response: Response | None = None
        """The finished response."""
        self.body = b""
        """The finished response as JSON."""

    def take(self) -> list[bytes]:
        """The frames emitted since the last call."""
        frames = self._out.frames
        self._out.frames = []
        return frames

    @property
    def called(self) -> bool:
        """Whether the model has called a tool."""
        return bool(self._calls) or any(isinstance(item, FunctionCallItem | CustomToolCallItem) for item in self.output)

    def so_far(self) -> tuple[Sequence[OutputItem], Sequence[Sequence[Cut]]]:
        """What is written, with its cuts; the last item may be open still, and is shown as if it ended here."""
        if self._writer is None:
            return self.output, self.cuts
        writer = copy.deepcopy(self._writer, {id(self._out): Emitter(quiet=True)})
        item = writer.close("incomplete")
        return [*self.output, item], [*self.cuts, *writer.cuts()]

    @property
    def writing(self) -> bool:
        """An item is open."""
        return self._writer is not None

    def start(self) -> None:
        """Emit the two opening events."""
        if self._options.quiet:
            return
        snapshot = msgspec.Raw(encode(self.seed))
        self._out.emit(Created, response=snapshot)
        self._out.emit(InProgress, response=snapshot)

    def receive(self, deltas: Sequence[d.Delta]) -> None:
        """Take what one read of the upstream brought. Raises InvalidArguments."""
        for delta in deltas:
            writer = self._writer
            if type(delta) is d.Text and type(writer) is MessageWriter and delta.text and not delta.logprobs:  # noqa: SIM114 - joined it is unreadable
                writer.write(delta.text)
            elif type(delta) is d.Reasoning and type(writer) is ReasoningWriter and delta.text:
                writer.write(delta.text)
            else:
                self._receive_other(delta)

    def end_turn(self) -> None:
        """Close what the turn left open. Raises InvalidArguments."""
        truncated = self.finish_reason in ("length", "content_filter")
        self.close_item("incomplete" if truncated else "completed")
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            self._write_call(call)
            self.close_item("incomplete" if truncated else "completed")
        self._calls.clear()
        self._lead.clear()

    def abandon_turn(self) -> None:
        """The turn will be tried again: what was shown stays, the rest is forgotten. Its usage still counts."""
        self.close_item("completed")
        self._calls.clear()
        self._lead.clear()
        self.finish_reason = None

    def add_usage(self, usage: d.TokenUsage) -> None:
        """Count a turn whose deltas were not received."""
        before = self._usage
        if before is None:
            self._usage = usage
            return
        self._usage = d.TokenUsage(*(a + b for a, b in zip(msgspec.structs.astuple(before), msgspec.structs.astuple(usage), strict=True)))

    def estimate_usage(self, *, read: int) -> None:
        """Where the upstream reported nothing, say what a rule of thumb does: four bytes a token. `read`: bytes of the prompt."""
        if self._usage is not None:
            return
        wrote = sum(len(msgspec.json.encode(item)) for item in self.output) // _BYTES_PER_TOKEN
        thought = sum(len(msgspec.json.encode(item)) for item in self.output if isinstance(item, ReasoningItem)) // _BYTES_PER_TOKEN
        self._usage = d.TokenUsage(read // _BYTES_PER_TOKEN, wrote, read // _BYTES_PER_TOKEN + wrote, reasoning_tokens=thought)
        self._estimated = True

    def finish(self, now: int) -> None:
        """The model is done: the response is whole."""
        match self.finish_reason:
            case "length":
                self._end(status="incomplete", incomplete_details=IncompleteDetails("max_output_tokens"))
            case "content_filter":
                self._end(status="incomplete", incomplete_details=IncompleteDetails("content_filter"))
            case _:
                self._end(status="completed", completed_at=now)

    def fail(self, error: ResponseError) -> None:
        """Something broke: close what is open; the stream will end with an `error` event and `response.failed`."""
        self._abandon()
        self._end(status="failed", error=error)

    def cancel(self) -> None:
        """Nobody wants the rest. There is no event of that name in the API: the terminal one is `response.incomplete`."""
        self._abandon()
        self._end(status="cancelled")

    def _receive_other(self, delta: d.Delta) -> None:
        match delta:
            case d.Text():
                self._write_text(delta)
            case d.Reasoning():
                if delta.text:
                    self._lead.clear()
                    self._begin_reasoning().write(delta.text)
            case d.Refusal():
                if delta.text:
                    self._open_message().refuse(delta.text)
            case d.CallOpened():
                self._open_call(delta)
            case d.CallArguments():
                self._write_arguments(delta)
            case d.TokenUsage():
                self.add_usage(delta)
            case d.TurnFinished():
                self.finish_reason = delta.reason

    def _write_text(self, delta: d.Text) -> None:
        if not isinstance(self._writer, MessageWriter):
            # White space before the first word is no message yet: models write it between thinking and a call.
            self._lead.append(delta)
            if not delta.text.strip():
                return
            lead, self._lead = self._lead, []
            delta = d.Text("".join(piece.text for piece in lead), tuple(entry for piece in lead for entry in piece.logprobs))
        if delta.logprobs:
            self._open_message().write_scored(delta.text, delta.logprobs)
        elif delta.text:
            self._open_message().write(delta.text)

    def _open_message(self) -> MessageWriter:
        if not isinstance(self._writer, MessageWriter):
            self.close_item("completed")
            self._writer = MessageWriter(self._out, self._next_id("message"), len(self.output))
        return self._writer

    def _begin_reasoning(self) -> ReasoningWriter:
        self.close_item("completed")
        item_id, index, options = self._next_id("reasoning"), len(self.output), self._options
        self._writer = writer = ReasoningWriter(self._out, item_id, index, raw=options.raw_reasoning, seal=options.seal)
        return writer

    def _open_call(self, delta: d.CallOpened) -> None:
        if delta.index in self._calls:
            return
        call = _PendingCall(delta.call_id, delta.name)
        call.ignored = self.called and not self._options.parallel_calls
        self._calls[delta.index] = call
        if call.ignored:
            return
        self._waiting.append(call)
        while self._waiting and not (isinstance(self._writer, CallWriter | CustomCallWriter) and not self._writer.complete()):
            self._write_call(self._waiting.pop(0))

    def _write_arguments(self, delta: d.CallArguments) -> None:
        call = self._calls[delta.index]
        if call.ignored or not delta.fragment:
            return
        if call.writer is None:
            call.fragments.append(delta.fragment)
        elif call.writer is self._writer:
            call.writer.write(delta.fragment)
        elif delta.fragment.strip():
            raise InvalidArguments(call.name)

    def _write_call(self, call: _PendingCall) -> None:
        self.close_item("completed")
        self._lead.clear()
        index = len(self.output)
        target = self._options.targets.get(call.name) or CallTarget(call.name)
        call_id = call.call_id or self._new_id("call", index)
        namespace = target.namespace or msgspec.UNSET
        if target.custom:
            custom = CustomToolCallItem(self._next_id("custom_tool_call"), "in_progress", call_id, target.name, namespace=namespace)
            call.writer = CustomCallWriter(self._out, custom, index)
        else:
            item = FunctionCallItem(self._next_id("function_call"), "in_progress", call_id, target.name, namespace=namespace)
            call.writer = CallWriter(self._out, item, index)
        self._writer = call.writer
        for fragment in call.fragments:
            call.writer.write(fragment)

    def close_item(self, status: ItemStatus) -> None:
        """End the item being written, if there is one. Raises InvalidArguments."""
        writer = self._writer
        if writer is None:
            return
        self.output.append(writer.close(status))
        self._writer = None  # not before: an item that cannot be completed stays open until `fail` ends it
        self.cuts.extend(writer.cuts())

    def _abandon(self) -> None:
        self.close_item("incomplete")
        self._waiting.clear()

    def _next_id(self, kind: str) -> str:
        return self._new_id(item_prefix(kind), len(self.output))

    def emit_end(self, response: Response, body: bytes) -> None:
        """Emit the terminal event. A step of its own, since the response is stored before anybody hears of its end."""
        self._out.emit_end(response, body)

    def _end(self, **outcome: Any) -> None:
        usage = _usage(self._usage, estimated=self._estimated)
        self.response = msgspec.structs.replace(self.seed, output=tuple(self.output), usage=usage, **outcome)
        self.body = encode(self.response)


def _usage(counted: d.TokenUsage | None, *, estimated: bool) -> Usage | None:
    if counted is None:
        return None
    return Usage(
        counted.input_tokens,
        InputTokensDetails(counted.cached_tokens, counted.cache_write_tokens),
        counted.output_tokens,
        OutputTokensDetails(counted.reasoning_tokens),
        counted.total_tokens,
        x_estimated=estimated or msgspec.UNSET,
    )
