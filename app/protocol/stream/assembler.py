"""Converts upstream deltas to Responses events and items.

Synchronous and pure. At most one item is being written at any time; its end is emitted before the next one's start.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from app.protocol import deltas as d
from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.recovery.client_tools import CallTarget
from app.protocol.stream.call_writers import CallIds, ClientCallWriter, PendingCall, call_writer
from app.protocol.stream.deferral import Deferral, PendingHosted
from app.protocol.stream.hosted_writer import HostedWriter
from app.protocol.stream.options import Options
from app.protocol.stream.phases import SPECS, kind, tells_arguments
from app.protocol.stream.usage import UsageCounter
from app.protocol.stream.writers import Cut, Emitter, MessageWriter, ReasoningWriter, SoFar
from app.protocol.wire.hosted import HostedCall, HostedItem
from app.protocol.wire.ids import item_prefix
from app.protocol.wire.items import ItemStatus, OutputItem, ReasoningItem
from app.protocol.wire.response import IncompleteDetails, Response, ResponseError, encode, tool_usage_of, usage_of

_HOSTED_CALLS = 0x8000
"""First number for the ids of hosted calls, which have no position in the output yet; others use their positions."""
_CUT_OFF: Mapping[d.FinishReason | None, IncompleteDetails] = {
    "length": IncompleteDetails("max_output_tokens"),
    "content_filter": IncompleteDetails("content_filter"),
}


class Assembler:
    """Builds one response. `new_id(prefix, position)` creates the ids of items and calls."""

    def __init__(self, response: Response, new_id: Callable[[str, int], str], options: Options) -> None:
        self.seed = response
        self._new_id = new_id
        self._options = options
        self._out = Emitter(quiet=options.quiet)
        self._writer: MessageWriter | ReasoningWriter | ClientCallWriter | HostedWriter | None = None
        self._calls: dict[int, PendingCall] = {}
        self._waiting: deque[PendingCall | d.Text | d.Reasoning | d.Refusal | d.NativeItem] = deque()
        """Deltas received while a call was still incomplete."""
        self._call_ids = CallIds(options.known_call_ids)
        self._turn_start = 0
        """Items before this position are from earlier turns."""
        self._lead: list[d.Text] = []
        self._deferred = Deferral()
        self.called = False
        """The model has called a tool in this turn."""
        self.hosted_calls = 0  # that the model has made in this response
        self.usage = UsageCounter()
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
        frames, self._out.frames = self._out.frames, []
        return frames

    def take_first(self, count: int) -> list[bytes]:
        """At most so many of them; `take` gives the rest."""
        frames = self.take()
        self._out.frames = frames[count:]
        return frames[:count]

    def so_far(self) -> SoFar:
        """The output so far, with its cuts; the last item may still be open."""
        if self._writer is None:
            return SoFar(self.output, self.cuts, self._out.taken)
        writer = copy.deepcopy(self._writer, {id(self._out): Emitter(quiet=True)})
        item = writer.close("incomplete")
        running = isinstance(self._writer, HostedWriter) and self._writer.running
        return SoFar([*self.output, item], [*self.cuts, *writer.cuts()], self._out.taken, writing=True, running=running)

    def start(self) -> None:
        """Emit the opening events."""
        self._out.emit_start(self.seed)

    def go_on(
        self, new_id: Callable[[str, int], str], options: Options, usage: UsageCounter, hosted_calls: int
    ) -> None:
        """Continue what was restored (`app.protocol.stream.restore`), with a new turn of the model."""
        self._new_id, self._options = new_id, options
        self._call_ids = CallIds(options.known_call_ids)
        self._turn_start = len(self.output)
        self.usage, self.hosted_calls = usage, hosted_calls
        if options.quiet:
            self._out = Emitter(quiet=True)

    def receive(self, deltas: Sequence[d.Delta]) -> None:
        """Process one batch of deltas from the upstream. Raises InvalidArguments."""
        for delta in deltas:
            writer = self._writer
            if type(delta) is d.Text and type(writer) is MessageWriter and delta.text and not delta.logprobs:  # noqa: SIM114 - unreadable if combined
                writer.write(delta.text)
            elif type(delta) is d.Reasoning and type(writer) is ReasoningWriter and delta.text:
                writer.write(delta.text)
            else:
                self._receive_other(delta)

    def end_turn(self) -> None:
        """Close what the turn left open, except hosted calls, which run next. Raises InvalidArguments."""
        truncated = self.finish_reason in _CUT_OFF
        if truncated:  # its hosted calls are not run, and what followed them is dropped
            if isinstance(self._writer, HostedWriter):
                self.close_item("incomplete")
            self._deferred.clear()
        if not isinstance(self._writer, HostedWriter):
            self._close_rest(truncated=truncated)
        for call in self._calls.values():
            if call.late and call.writer is not None and not call.writer.is_right():
                raise InvalidArguments(call.name)
        self._calls.clear()
        self._lead.clear()
        self.called = False

    def begin_turn(self) -> None:
        """Begin the next turn: the model is called again with the results of its calls."""
        self.finish_reason = None
        self._turn_start = len(self.output)

    @property
    def hosted(self) -> Sequence[HostedCall]:
        """The hosted calls of the finished turn, in order. Each must be begun and settled, or skipped."""
        return self._deferred.calls

    def begin_hosted(self, item: HostedItem, tool: str | None) -> None:
        """Show that the next call, with this item, is running; it counts as a call of `tool` in the usage."""
        writer = self._deferred.writer or self._open_hosted(item)
        writer.run(item)
        if tool is not None:
            self.usage.add_tool(tool)

    def settle_hosted(self, item: HostedItem) -> None:
        """End the running call; what the model said after it follows, up to the next call. Raises InvalidArguments."""
        if isinstance(self._writer, HostedWriter):
            self._writer.settle(item)
        self.skip_hosted()

    def skip_hosted(self) -> None:
        """As `settle_hosted`, for a call that is not run: what was shown of it stays, incomplete."""
        self.close_item("completed")
        said = self._deferred.advance()
        waiting, self._deferred = self._deferred, Deferral()
        self.receive(said)
        if waiting:
            self.close_item("completed")
        self._deferred = waiting
        if not waiting:
            self.end_turn()
        self._turn_start = len(self.output)

    def show_hosted(self, item: HostedItem, pieces: Sequence[str], *, running: bool, ended: bool) -> None:
        """Show an item that is already known, up to its current state; `pieces` are those of its streamed arguments."""
        writer = self._open_hosted(item)
        for piece in pieces:
            writer.show(piece)
        if ended:
            writer.settle(item)
            self.close_item("completed")
            self._turn_start = len(self.output)
        elif running:
            writer.run(item)

    @property
    def may_abandon(self) -> bool:
        """Whether only thinking has been shown of the turn, so that it can be retried."""
        shown = self.output[self._turn_start :]
        return self._options.quiet or (
            isinstance(self._writer, ReasoningWriter | None) and all(isinstance(item, ReasoningItem) for item in shown)
        )

    def abandon_turn(self) -> None:
        """Drop a turn that `may_abandon`, to retry it: its thinking stays, and its usage still counts."""
        kept = self._turn_start
        while kept < len(self.output) and isinstance(self.output[kept], ReasoningItem):
            kept += 1
        if kept == len(self.output) and isinstance(self._writer, ReasoningWriter):
            self.close_item("completed")
        elif self._options.quiet:
            del self.output[kept:]
            self._writer = None
        self._calls.clear()
        self._waiting.clear()
        self._lead.clear()
        self._deferred.clear()
        self.called = False
        self.finish_reason = None

    def finish(self, now: int) -> None:
        """The model has finished: complete the response."""
        if self.finish_reason in _CUT_OFF:
            self._end(status="incomplete", incomplete_details=_CUT_OFF[self.finish_reason])
        else:
            self._end(status="completed", completed_at=now)

    def fail(self, error: ResponseError) -> None:
        """Fail the response: close what is open; the stream will end with an `error` event and `response.failed`."""
        self._abandon()
        self._end(status="failed", error=error)

    def cancel(self) -> None:
        """Cancel the response. The API has no event for this: the terminal one is `response.incomplete`."""
        self._abandon()
        self._end(status="cancelled")

    def _receive_other(self, delta: d.Delta) -> None:
        match delta:
            case d.Text() | d.Reasoning() | d.Refusal() | d.NativeItem():
                self._receive_words(delta)
            case d.CallOpened():
                self._open_call(delta)
            case d.CallArguments():
                self._write_arguments(delta)
            case d.TokenUsage():
                self.usage.add(delta)
            case d.TurnFinished():
                self.finish_reason = delta.reason

    def _receive_words(self, delta: d.Text | d.Reasoning | d.Refusal | d.NativeItem) -> None:
        if self._deferred:
            self._deferred.add(delta)
        elif self._mid_call:
            self._waiting.append(delta)
        else:
            self._write_words(delta)

    def _write_words(self, delta: d.Text | d.Reasoning | d.Refusal | d.NativeItem) -> None:
        match delta:
            case d.Text():
                self._write_text(delta)
            case d.NativeItem():
                self._show_native(delta)
            case d.Reasoning() if delta.text:
                self._write_reasoning(delta.text)
            case d.Refusal() if delta.text:
                self._open_message().refuse(delta.text)
            case _:
                pass

    def _write_text(self, delta: d.Text) -> None:
        if not isinstance(self._writer, MessageWriter):
            # White space alone does not open a message: models write it between thinking and a call.
            self._lead.append(delta)
            if not delta.text.strip():
                return
            lead, self._lead = self._lead, []
            scores = tuple(entry for piece in lead for entry in piece.logprobs)
            delta = d.Text("".join(piece.text for piece in lead), scores)
        if delta.logprobs:
            self._open_message().write_scored(delta.text, delta.logprobs)
        elif delta.text:
            self._open_message().write(delta.text)

    def _open_message(self) -> MessageWriter:
        if not isinstance(self._writer, MessageWriter):
            self.close_item("completed")
            self._writer = MessageWriter(self._out, self._next_id("message"), len(self.output), self._options.annotate)
        return self._writer

    def _write_reasoning(self, text: str) -> None:
        self._lead.clear()
        writer = self._writer
        if not isinstance(writer, ReasoningWriter):
            self.close_item("completed")
            raw, seal = self._options.raw_reasoning, self._options.seal
            item_id, position = self._next_id("reasoning"), len(self.output)
            self._writer = writer = ReasoningWriter(self._out, item_id, position, raw=raw, seal=seal)
        writer.write(text)

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
            self._calls[delta.index] = call = PendingCall(delta.call_id, delta.name, ignored=ignored)
            self._waiting.extend(() if ignored else (call,))
            self._write_waiting()

    @property
    def _mid_call(self) -> bool:
        return isinstance(self._writer, ClientCallWriter) and not self._writer.whole

    def _write_waiting(self) -> None:
        """Write waiting deltas, up to the next incomplete call."""
        while self._waiting and not self._mid_call:
            self._write_next()

    def _write_next(self) -> None:
        one = self._waiting.popleft()
        if isinstance(one, PendingCall):
            self._write_call(one)
        else:
            self._write_words(one)

    def _close_rest(self, *, truncated: bool) -> None:
        """Write and close everything that waits. Raises InvalidArguments, unless `truncated`."""
        while self._waiting:
            if isinstance(self._writer, ClientCallWriter):
                self._close_open(truncated=truncated)
            self._write_next()
        self._close_open(truncated=truncated)

    def _close_open(self, *, truncated: bool) -> None:
        """Close the open item; in a turn that was cut off only a valid call counts as complete."""
        writer = self._writer
        right = isinstance(writer, ClientCallWriter) and writer.whole and writer.is_right()
        self.close_item("incomplete" if truncated and not right else "completed")

    def _defer_call(self, delta: d.CallOpened) -> None:
        """Queue a hosted call; the first one's item is shown at once if its arguments are streamed."""
        self.hosted_calls += 1
        # Never the upstream's own id: some upstreams repeat ids in every turn, and a response has many turns.
        call = PendingHosted(delta.index, self._new_id("call", _HOSTED_CALLS + self.hosted_calls), delta.name)
        item = self._options.hosted[call.name](call.call)
        if SPECS[type(item)].arguments is not None and not (self._deferred or self._waiting or self._mid_call):
            call.writer = self._open_hosted(item)
        elif isinstance(self._writer, MessageWriter | ReasoningWriter):
            self.close_item("completed")  # output from now on comes after the call
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
            self.usage.add_tool(kind(delta.item).removesuffix("_call"))
        elif isinstance(self._writer, HostedWriter) and tells_arguments(delta.item):
            self._writer.run(delta.item)

    def _write_arguments(self, delta: d.CallArguments) -> None:
        call = self._calls.get(delta.index)
        if call is None:
            self._deferred.write(delta)
        elif delta.fragment and not call.ignored:
            call.write(delta.fragment)
            call.late = call.writer is not None and call.writer is not self._writer
            if self._waiting:
                self._write_waiting()

    def _write_call(self, call: PendingCall) -> None:
        self.close_item("completed")
        self._lead.clear()
        target = self._options.targets.get(call.name) or CallTarget(call.name)
        index = len(self.output)
        call_id = self._call_ids.claim(call.call_id) or self._new_id("call", index)
        self._writer = writer = call_writer(self._out, target, self._next_id(target.item_type), call_id, index)
        call.begin(writer)

    def close_item(self, status: ItemStatus) -> None:
        """Close the open item, if there is one. Raises InvalidArguments."""
        writer = self._writer
        if writer is None:
            return
        self.output.append(writer.close(status))
        self._writer = None  # not earlier: an item that cannot be completed stays open until `fail` closes it
        self.cuts.extend(writer.cuts())

    def _abandon(self) -> None:
        self._close_rest(truncated=True)
        self._deferred.clear()

    def _next_id(self, item_type: str) -> str:
        return self._new_id(item_prefix(item_type), len(self.output))

    def emit_end(self, response: Response, body: bytes) -> None:
        """Emit the terminal event. A separate step, since the response is stored before its end is announced."""
        self._out.emit_end(response, body)

    def _end(self, **outcome: Any) -> None:
        usage = usage_of(self.usage.tokens, self.usage.tools, estimated=self.usage.estimated)
        tools = tool_usage_of(self.output) if self.usage.tools else msgspec.UNSET
        ended = {"output": tuple(self.output), "usage": usage, "tool_usage": tools, **outcome}
        self.response = msgspec.structs.replace(self.seed, **ended)
        self.body = encode(self.response)
