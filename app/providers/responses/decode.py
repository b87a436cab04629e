"""The Responses dialect, responses: pieces of an event stream to deltas. Sans-io.

Lenient where the vendor's streams differ among themselves: arguments of a call arrive as deltas, or whole, or both;
thinking has two event names; `output_index` is not reliable, item ids are; an error is `response.failed` inside HTTP
200, or a bare error object. Hosted tools are read from their items only (`_responses_native.py`): some have their own
events, some have none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from app.protocol.deltas import CallArguments, CallOpened, Delta, FinishReason, Reasoning, Refusal, Text, TurnFinished
from app.providers._lenient import Json, as_list, read_object
from app.providers._sse import DONE, SSEDecoder, lines_of
from app.providers._wire import report_of
from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.errors import error_in_stream
from app.providers.responses.lenient import LenientReader, event_of, plain_item, type_of
from app.providers.responses.native import HOSTED_TYPES, HostedItems, homeward
from app.providers.responses.wire import Event, Item, Response, decode_event, decode_item, decode_response, decode_typed

_log = logging.getLogger(__name__)

_LONGEST_TYPE = 64


class _OpenCall:
    """A function call in progress."""

    __slots__ = ("announced", "arguments", "call_id", "closed", "held", "index", "name", "opened")

    def __init__(self, index: int) -> None:
        self.index = index
        self.call_id = ""
        self.name = ""
        self.opened = False
        self.closed = False
        self.held = False
        """It began beside a hosted item, and waits until that is complete."""
        self.arguments = ""
        """The arguments passed on so far, or waiting until the call is opened."""
        self.announced = ""
        """Arguments sent whole with the opening. They wait: deltas may repeat them, and the end usually does."""

    def is_of(self, item: Item, *, begins: bool) -> bool:
        """Whether the item, which begins or ends, is this call: ids repeat, even within one answer."""
        if not self.opened:
            return True
        if self.name != item.name or (self.call_id and item.call_id and self.call_id != item.call_id):
            return False
        return not self.closed or not (begins or (item.arguments and item.arguments != self.arguments))


_decode_any = msgspec.json.Decoder().decode
_decode_hosted = msgspec.json.Decoder(dict[str, Any]).decode

_ERRORS = frozenset({"response.failed", "response.error", "error"})
"""Types of error events."""


def _is_error(event: Json) -> bool:
    """Whether it is one of those, or a bare error, which has no type or the error's type."""
    kind = type_of(event)
    if kind in _ERRORS or kind.startswith("response."):
        return kind in _ERRORS
    report = report_of(event)
    if not kind or kind.lower().endswith("error"):
        return bool(event.get("code")) or report.reports()
    return bool(report.error or (event.get("code") and report.message))


class ResponsesDecoder:
    """One answer. After each `feed`, `failure` says whether the stream broke; the deltas before that are valid.

    Unknown events and items are skipped. In the output, a hosted item and a function call never overlap: the later one
    waits.
    """

    __slots__ = (
        "_by_item",
        "_calls",
        "_current",
        "_held",
        "_hosted",
        "_lenient",
        "_shown",
        "_sse",
        "_thinking",
        "_told",
        "done",
        "failure",
    )

    def __init__(self) -> None:
        self.failure: UpstreamError | None = None
        self.done = False
        """The terminal event has arrived; only the end of the HTTP body can follow."""
        self._sse = SSEDecoder()
        self._lenient: LenientReader | None = None
        self._calls: list[_OpenCall] = []
        self._by_item: dict[str, _OpenCall] = {}
        """The latest call with an item id."""
        self._hosted = HostedItems()
        self._held: list[Delta] = []
        """Deltas of function calls that wait for hosted items."""
        self._current = ""
        """The item id of the call opened last, for events without one."""
        self._told = False
        """Anything has been passed on at all."""
        self._shown = False
        """Part of the open item has been passed on as deltas."""
        self._thinking = ""
        """The event type of the thinking in this stream; if both are sent, the second repeats the first."""

    def feed(self, piece: bytes) -> list[Delta]:
        """The deltas of one read of the stream."""
        out: list[Delta] = []
        try:
            self._receive(self._sse.feed(piece), out)
        except UpstreamError as error:
            self.failure = error
        return out

    def end(self) -> list[Delta]:
        """The last deltas, if the last event was not closed. Raises UpstreamError if the answer is incomplete."""
        out: list[Delta] = []
        self._receive(self._sse.end(), out)
        self._check_end()
        return out

    def whole(self, body: bytes) -> list[Delta]:
        """All deltas of an answer that was not declared as a stream; it may be one all the same.

        Raises UpstreamError.
        """
        out: list[Delta] = []
        self._receive(self._sse.whole(body), out)
        self._check_end()
        return out

    def _check_end(self) -> None:
        if not self.done:
            raise UpstreamProtocolError("The upstream's answer ended without a terminal event.")

    def _receive(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        for payload in payloads:
            if self.done or payload == DONE:
                return
            try:
                if self._lenient:
                    self._read_odd(payload, out)
                else:
                    event = decode_event(payload)
                    self._read(event, payload, out)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._read_odd(payload, out)

    def _read(self, event: Event, payload: bytes, out: list[Delta]) -> None:
        reader = self._readers.get(event.type)
        if reader is None:
            if not event.type.startswith("response.") or event.type in _ERRORS:
                self._read_odd(payload, out)
            return
        deltas = reader(self, event)
        if deltas:
            self._told = True
            out += deltas

    def _read_odd(self, payload: bytes, out: list[Delta]) -> None:
        """An event rejected by a typed decoder.

        Only an event that is used, not one that merely shares field names, can fail the answer.
        """
        if self._lenient is None:
            self._lenient = LenientReader()
        try:
            value = event_of(read_object(payload))
        except UpstreamProtocolError:
            lines = lines_of(payload)
            if lines == [payload]:
                raise
            self._receive(lines, out)
            return
        if _is_error(value):
            raise error_in_stream(payload, self._sse.status)
        if type_of(value) not in self._readers:
            return
        try:
            for event in self._lenient.read(value):
                self._read(event, payload, out)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UpstreamProtocolError(f"The upstream sent a malformed event: {error}") from error

    def _said(self, event: Event) -> Sequence[Delta]:
        return self._show(Text(event.delta)) if event.delta else ()

    def _declined(self, event: Event) -> Sequence[Delta]:
        return self._show(Refusal(event.delta)) if event.delta else ()

    def _thought(self, event: Event) -> Sequence[Delta]:
        self._thinking = self._thinking or event.type
        return self._show(Reasoning(event.delta)) if event.delta and event.type == self._thinking else ()

    def _called(self, event: Event) -> Sequence[Delta]:
        call = self._call(event.item_id or self._current)
        return self._pass(call, self._argued(call, event.delta))

    def _succeeded(self, event: Event) -> Sequence[Delta]:
        self._hosted.succeed(event.item_id)
        return ()

    def _show(self, *words: Delta) -> Sequence[Delta]:
        """The model writes, so all tools have ended."""
        self._shown = True
        return (*self._hosted.settle(), *self._released(), *words) if self._hosted else words

    def _added(self, event: Event) -> Sequence[Delta]:
        self._shown = False
        kind = decode_typed(event.item).type
        if kind in HOSTED_TYPES:
            self._hosted.begin(_decode_hosted(event.item))
            return self._tell()
        if kind != "function_call":
            return ()
        item = decode_item(event.item)
        call = self._named(item, begins=True)
        return self._pass(call, self._opened(call, item))

    def _done(self, event: Event) -> Sequence[Delta]:
        """The item is complete: what was not sent as deltas is passed on now."""
        raw = event.item
        match decode_typed(raw).type:
            case "function_call":
                return self._call_done(decode_item(raw))
            case kind if kind in HOSTED_TYPES:
                self._hosted.end(_decode_hosted(raw))
                return self._tell()
            case "message" if not self._shown:
                parts = decode_item(raw).content or ()
                return self._show(
                    *[
                        Refusal(part.refusal) if part.refusal else Text(part.text)
                        for part in parts
                        if part.refusal or part.text
                    ]
                )
            case "reasoning" if not self._shown:
                item = decode_item(raw)
                return self._show(*[Reasoning(part.text) for part in item.summary or item.content or () if part.text])
            case "message" | "reasoning":
                return ()
            case other:
                _log.info("skipped an output item of unknown type: %r", other[:_LONGEST_TYPE])
                return ()

    def _tell(self) -> Sequence[Delta]:
        """The pending output of hosted items, and then of the calls that waited for them."""
        if any(call.opened and not (call.closed or call.held) for call in self._calls):
            return ()
        told = self._hosted.tell()
        return told if self._hosted else (*told, *self._released())

    def _released(self) -> Sequence[Delta]:
        held, self._held = self._held, []
        for call in self._calls:
            call.held = False
        return held

    def _pass(self, call: _OpenCall, deltas: Sequence[Delta]) -> Sequence[Delta]:
        if call.held:
            self._held += deltas
            return ()
        return deltas

    def _call(self, item_id: str) -> _OpenCall:
        """The call that deltas for this item belong to."""
        call = self._by_item.get(item_id)
        return self._begun(item_id) if call is None or call.closed else call

    def _begun(self, item_id: str) -> _OpenCall:
        call = self._by_item[item_id] = _OpenCall(len(self._calls))
        self._calls.append(call)
        return call

    def _named(self, item: Item, *, begins: bool) -> _OpenCall:
        """The call of this item, possibly a new one under an id that was already used."""
        self._current = item.id or item.call_id
        call = self._by_item.get(self._current)
        if call is not None and call.is_of(item, begins=begins):
            return call
        if not begins:
            for earlier in self._calls:
                if earlier.opened and not earlier.closed and earlier.is_of(item, begins=False):
                    return earlier
        return self._begun(self._current)

    def _opened(self, call: _OpenCall, item: Item) -> Sequence[Delta]:
        """Open the call, once."""
        if call.opened:
            return ()
        if not item.name:
            raise UpstreamProtocolError("The upstream opened a function call without a name.")
        call.opened = True
        call.call_id, call.name = item.call_id, item.name
        call.held = bool(self._hosted)
        call.announced = item.arguments or ""
        opened = CallOpened(call.index, item.call_id, homeward(item.name))
        return (opened, CallArguments(call.index, call.arguments)) if call.arguments else (opened,)

    def _argued(self, call: _OpenCall, fragment: str) -> Sequence[Delta]:
        call.arguments += fragment
        return (CallArguments(call.index, fragment),) if fragment and call.opened else ()

    def _argued_whole(self, call: _OpenCall, arguments: str) -> Sequence[Delta]:
        """The rest of the arguments.

        If the whole is formatted differently from the deltas (whitespace), the deltas are kept.
        """
        return self._argued(call, arguments[len(call.arguments) :]) if arguments.startswith(call.arguments) else ()

    def _called_whole(self, event: Event) -> Sequence[Delta]:
        call = self._call(event.item_id or self._current)
        return self._pass(call, self._argued_whole(call, event.arguments))

    def _call_done(self, item: Item) -> Sequence[Delta]:
        call = self._named(item, begins=False)
        rest = self._argued_whole(call, item.arguments or call.announced)
        told = self._pass(call, (*self._opened(call, item), *rest))
        call.closed = True
        return (*told, *self._tell())

    def _ended(self, event: Event) -> Sequence[Delta]:
        response = decode_response(event.response)
        if response.error:
            raise error_in_stream(bytes(event.response), self._sse.status)
        self.done = True
        last: list[Delta] = []
        for call in self._calls:
            if not call.opened:
                raise UpstreamProtocolError("The upstream sent arguments for a function call it never opened.")
            last += self._pass(call, self._argued_whole(call, call.announced))
        if self._hosted:
            self._hosted.complete(_decode_any(response.output))
            last += (*self._hosted.settle(), *self._released())
        if not (self._told or last):
            last += self._only_now(_decode_any(response.output))
        usage = response.usage.counted() if response.usage else None
        if usage is not None:
            last.append(usage)
        elif not (self._told or last) and event.type == "response.completed":
            raise UpstreamProtocolError("The upstream's answer was empty: neither text nor a call, and no usage.")
        last.append(TurnFinished(self._reason(event, response)))
        return last

    def _only_now(self, output: Any) -> Sequence[Delta]:
        """The deltas of an answer whose items are only in the terminal event."""
        told: list[Delta] = []
        for item in as_list(output):
            self._shown = False
            told += self._done(Event(item=plain_item(item)))
        return told

    def _reason(self, event: Event, response: Response) -> FinishReason:
        if event.type == "response.completed":
            return "tool_calls" if self._calls else "stop"
        # The vendor omits `incomplete_details`; the token limit is the only reason it documents.
        filtered = response.incomplete_details is not None and response.incomplete_details.reason == "content_filter"
        return "content_filter" if filtered else "length"

    _readers: ClassVar[Mapping[str, Callable[[Any, Event], Sequence[Delta]]]] = {
        "response.output_text.delta": _said,
        "response.refusal.delta": _declined,
        "response.reasoning_text.delta": _thought,
        "response.reasoning_summary_text.delta": _thought,
        "response.output_item.added": _added,
        "response.function_call_arguments.delta": _called,
        "response.function_call_arguments.done": _called_whole,
        "response.output_item.done": _done,
        "response.web_search_call.completed": _succeeded,
        "response.code_interpreter_call.completed": _succeeded,
        "response.file_search_call.completed": _succeeded,
        "response.mcp_call.completed": _succeeded,
        "response.completed": _ended,
        "response.incomplete": _ended,
    }
