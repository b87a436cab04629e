"""Upstream deltas in, Responses events and items out.

Synchronous and pure. At most one item is being written at any time; its end is emitted before the next one's start.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from app.protocol import deltas as d
from app.protocol.deferral import Deferral, PendingHosted
from app.protocol.events import Created, InProgress
from app.protocol.hosted import HostedCall, HostedItem
from app.protocol.hosted_writer import HostedWriter
from app.protocol.ids import item_prefix
from app.protocol.items import CustomToolCallItem, FunctionCallItem, ItemStatus, OutputItem, ReasoningItem
from app.protocol.options import Options
from app.protocol.phases import SPECS, kind, tells_arguments
from app.protocol.response import IncompleteDetails, Response, ResponseError, encode, usage_of
from app.protocol.writers import (
    CallTarget,
    CallWriter,
    CustomCallWriter,
    Cut,
    Emitter,
    InvalidArguments,
    MessageWriter,
    ReasoningWriter,
)

_BYTES_PER_TOKEN = 4
_HOSTED_CALLS = 0x8000
"""Numbers for the ids of hosted calls, which have no place in the output yet; those of other calls are their places."""


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
        self._writer: MessageWriter | ReasoningWriter | CallWriter | CustomCallWriter | HostedWriter | None = None
        self._calls: dict[int, _PendingCall] = {}
        self._waiting: list[_PendingCall] = []
        self._lead: list[d.Text] = []
        self._deferred = Deferral()
        self.called = False
        """The model has called a tool in this turn."""
        self._hosted_calls = 0
        self._tools: dict[str, dict[str, int]] = {}
        self.usage: d.TokenUsage | None = None
        """Of all turns so far, as far as the upstream counts."""
        self._estimated = False
        self.output: list[OutputItem] = []
        self._turn_began = 0
        self.cuts: list[Sequence[Cut]] = []
        self.finish_reason: d.FinishReason | None = None
        """Of the last turn; None: the turn has not ended."""
        self.cut_short: Literal["max_tool_calls"] | None = None
        """A limit that ended the response."""
        self.response: Response | None = None
        """The finished response."""
        self.body = b""
        """The finished response as JSON."""

    def take(self) -> list[bytes]:
        """The frames emitted since the last call."""
        frames = self._out.frames
        self._out.frames = []
        return frames

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

    @property
    def running(self) -> bool:
        """The open item is a hosted call whose arguments are whole."""
        return isinstance(self._writer, HostedWriter) and self._writer.running

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
        """Close what the turn left open, but for hosted calls, which are to be run now. Raises InvalidArguments."""
        truncated = self.finish_reason in ("length", "content_filter")
        if truncated:
            self.drop_hosted()
        if not isinstance(self._writer, HostedWriter):
            self.close_item("incomplete" if truncated else "completed")
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            self._write_call(call)
            self.close_item("incomplete" if truncated else "completed")
        self._calls.clear()
        self._lead.clear()
        self.called = False

    def begin_turn(self) -> None:
        """The model is asked again, with what its calls have brought."""
        self.finish_reason = None
        self._turn_began = len(self.output)

    @property
    def hosted(self) -> Sequence[HostedCall]:
        """The hosted calls of the turn that has ended, in order. Each is to be begun and settled, or the rest dropped."""
        return self._deferred.calls

    def begin_hosted(self, item: HostedItem, tool: str | None) -> None:
        """The next call, whose item this is, runs from now on; it counts as one of `tool` in the usage."""
        writer = self._deferred.writer or self._open_hosted(item)
        writer.run(item)
        if tool is not None:
            self._tools.setdefault(tool, {"count": 0})["count"] += 1

    def settle_hosted(self, item: HostedItem) -> None:
        """The call that runs has ended; what the model said after it goes on, up to the next one. Raises InvalidArguments."""
        if isinstance(self._writer, HostedWriter):
            self._writer.settle(item)
        self.close_item("completed")
        self._turn_began = len(self.output)
        said = self._deferred.advance()
        waiting, self._deferred = self._deferred, Deferral()
        self.receive(said)
        if waiting:
            self.close_item("completed")
        self._deferred = waiting
        if not waiting:
            self.end_turn()

    def drop_hosted(self) -> None:
        """Forget the calls that have not begun, and what the model said after them."""
        if isinstance(self._writer, HostedWriter):
            self.close_item("incomplete")
        self._deferred.clear()

    def show_hosted(self, item: HostedItem, pieces: Sequence[str], *, running: bool, ended: bool) -> None:
        """Show an item that is known already, as far as it has got; `pieces` are those of its streamed arguments."""
        writer = self._open_hosted(item)
        for piece in pieces:
            writer.show(piece)
        if ended:
            writer.settle(item)
            self.close_item("completed")
        elif running:
            writer.run(item)
        self._turn_began = len(self.output)

    @property
    def may_abandon(self) -> bool:
        """Nothing but thinking of this turn has reached the client; of a plain answer nothing ever has."""
        if self._options.quiet:
            return True
        thought = all(isinstance(item, ReasoningItem) for item in self.output[self._turn_began :])
        return thought and (self._writer is None or isinstance(self._writer, ReasoningWriter))

    def abandon_turn(self) -> None:
        """The turn will be tried again: thinking stays, the rest is forgotten. Its usage still counts."""
        if not self._options.quiet or isinstance(self._writer, ReasoningWriter):
            self.close_item("completed")
        self._writer = None
        kept = self._turn_began
        while kept < len(self.output) and isinstance(self.output[kept], ReasoningItem):
            kept += 1
        if self._options.quiet:
            del self.output[kept:]
        self._calls.clear()
        self._waiting.clear()
        self._lead.clear()
        self._deferred.clear()
        self.called = False
        self.finish_reason = None

    def add_usage(self, usage: d.TokenUsage) -> None:
        """Count a turn whose deltas were not received."""
        before = self.usage
        if before is None:
            self.usage = usage
            return
        self.usage = d.TokenUsage(*(a + b for a, b in zip(msgspec.structs.astuple(before), msgspec.structs.astuple(usage), strict=True)))

    def estimate_usage(self, *, read: int) -> None:
        """Where the upstream reported nothing, say what a rule of thumb does: four bytes a token. `read`: bytes of the prompt."""
        if self.usage is not None:
            return
        wrote = sum(len(msgspec.json.encode(item)) for item in self.output) // _BYTES_PER_TOKEN
        thought = sum(len(msgspec.json.encode(item)) for item in self.output if isinstance(item, ReasoningItem)) // _BYTES_PER_TOKEN
        self.usage = d.TokenUsage(read // _BYTES_PER_TOKEN, wrote, read // _BYTES_PER_TOKEN + wrote, reasoning_tokens=thought)
        self._estimated = True

    def finish(self, now: int) -> None:
        """The model is done: the response is whole."""
        match self.cut_short or self.finish_reason:
            case "max_tool_calls":
                self._end(status="incomplete", incomplete_details=IncompleteDetails("max_tool_calls"))
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
            case d.Text() | d.Reasoning() | d.Refusal():
                self._receive_words(delta)
            case d.CallOpened():
                self._open_call(delta)
            case d.CallArguments():
                self._write_arguments(delta)
            case d.TokenUsage():
                self.add_usage(delta)
            case d.TurnFinished():
                self.finish_reason = delta.reason
            case d.NativeItem() if self._deferred:
                self._deferred.add(delta)
            case d.NativeItem():
                self._show_native(delta)

    def _receive_words(self, delta: d.Text | d.Reasoning | d.Refusal) -> None:
        if self._deferred:
            self._deferred.add(delta)
        elif isinstance(delta, d.Text):
            self._write_text(delta)
        elif not delta.text:
            return
        elif isinstance(delta, d.Reasoning):
            self._lead.clear()
            self._begin_reasoning().write(delta.text)
        else:
            self._open_message().refuse(delta.text)

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
            self._writer = MessageWriter(self._out, self._next_id("message"), len(self.output), self._options.annotate)
        return self._writer

    def _begin_reasoning(self) -> ReasoningWriter:
        self.close_item("completed")
        item_id, index, options = self._next_id("reasoning"), len(self.output), self._options
        self._writer = writer = ReasoningWriter(self._out, item_id, index, raw=options.raw_reasoning, seal=options.seal)
        return writer

    def _open_call(self, delta: d.CallOpened) -> None:
        if delta.index in self._calls or self._deferred.find(delta.index) is not None:
            return
        ignored = self.called and not self._options.parallel_calls
        self.called = True
        if not ignored and delta.name in self._options.hosted:
            self._defer_call(delta)
        elif not ignored and self._deferred:
            self._deferred.add(delta)
        else:
            self._queue_call(_PendingCall(delta.call_id, delta.name, ignored=ignored), delta.index)

    def _queue_call(self, call: _PendingCall, number: int) -> None:
        self._calls[number] = call
        if call.ignored:
            return
        self._waiting.append(call)
        while self._waiting and not self._mid_call:
            self._write_call(self._waiting.pop(0))

    @property
    def _mid_call(self) -> bool:
        return isinstance(self._writer, CallWriter | CustomCallWriter) and not self._writer.complete()

    def _defer_call(self, delta: d.CallOpened) -> None:
        """Queue a hosted call; the first one's item is shown at once if its arguments are shown while they are written."""
        self._hosted_calls += 1
        # Never the upstream's own id: some repeat theirs in every turn, and a response has many.
        call = PendingHosted(delta.index, self._new_id("call", _HOSTED_CALLS + self._hosted_calls), delta.name)
        item = self._options.hosted[call.name](call.call)
        if SPECS[type(item)].arguments is not None and not (self._deferred or self._waiting or self._mid_call):
            call.writer = self._open_hosted(item)
        elif isinstance(self._writer, MessageWriter | ReasoningWriter):
            self.close_item("completed")  # what is said from now on comes after the call
        self._deferred.add(call)

    def _open_hosted(self, item: HostedItem) -> HostedWriter:
        self.close_item("completed")
        self._lead.clear()
        self._writer = writer = HostedWriter(self._out, item, self._next_id(kind(item)), len(self.output))
        return writer

    def _show_native(self, delta: d.NativeItem) -> None:
        if not (isinstance(self._writer, HostedWriter) and self._writer.origin == delta.item.id):
            self._open_hosted(delta.item)
        if delta.done and isinstance(self._writer, HostedWriter):
            self._writer.settle(delta.item)
            self.close_item("completed")
            name = kind(delta.item).removesuffix("_call")
            self._tools.setdefault(name, {"count": 0})["count"] += 1
        elif isinstance(self._writer, HostedWriter) and tells_arguments(delta.item):
            self._writer.run(delta.item)

    def _write_arguments(self, delta: d.CallArguments) -> None:
        call = self._calls.get(delta.index)
        if call is None:
            self._deferred.write(delta)
        elif call.ignored or not delta.fragment:
            return
        elif call.writer is None:
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
        self._deferred.clear()

    def _next_id(self, item_type: str) -> str:
        return self._new_id(item_prefix(item_type), len(self.output))

    def emit_end(self, response: Response, body: bytes) -> None:
        """Emit the terminal event. A step of its own, since the response is stored before anybody hears of its end."""
        self._out.emit_end(response, body)

    def _end(self, **outcome: Any) -> None:
        usage = usage_of(self.usage, self._tools, estimated=self._estimated)
        self.response = msgspec.structs.replace(self.seed, output=tuple(self.output), usage=usage, **outcome)
        self.body = encode(self.response)
