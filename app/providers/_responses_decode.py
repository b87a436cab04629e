"""The Responses dialect, homeward: pieces of an event stream to deltas. Sans-io.

Lenient where the vendor's streams differ among themselves: arguments of a call come as deltas, or whole, or both; thinking has two
event names; `output_index` is not reliable, item ids are; an error is `response.failed` inside HTTP 200, or a bare error object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from app.protocol.deltas import CallArguments, CallOpened, Delta, FinishReason, Reasoning, Refusal, Text, TokenUsage, TurnFinished
from app.providers._sse import DONE, SSEDecoder
from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.errors import error_in_stream

_EMPTY = msgspec.Raw(b"{}")


class _Typed(msgspec.Struct, gc=False):
    """Whatever says what it is."""

    type: str = ""


class _Event(msgspec.Struct, gc=False):
    """The fields of all events that are read."""

    type: str = ""
    item_id: str | None = None
    delta: str = ""
    item: msgspec.Raw = _EMPTY
    response: msgspec.Raw = _EMPTY


class _Content(msgspec.Struct, gc=False):
    """A part of a message or of a reasoning item."""

    text: str = ""
    refusal: str = ""


class _Item(msgspec.Struct):
    """A message, a reasoning item or a function call; items of hosted tools are never read."""

    id: str | None = None
    call_id: str = ""
    name: str = ""
    arguments: str | None = None
    content: tuple[_Content, ...] | None = None
    summary: tuple[_Content, ...] | None = None


class _Details(msgspec.Struct, gc=False):
    """Both kinds of token details in one."""

    cached_tokens: int = 0
    cache_creation_input_tokens: int = 0
    reasoning_tokens: int = 0


_NO_DETAILS = _Details()


class _Billed(msgspec.Struct):
    """Details as the usage and each entry of its `x_details` carry them; some entries use the Chat name for the input's."""

    input_tokens_details: _Details | None = None
    prompt_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None

    def details(self) -> _Details:
        """Of input and output together."""
        spent = self.input_tokens_details or self.prompt_tokens_details or _NO_DETAILS
        made = self.output_tokens_details or _NO_DETAILS
        return _Details(spent.cached_tokens, spent.cache_creation_input_tokens, made.reasoning_tokens)


class _Usage(_Billed):
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    x_details: tuple[_Billed, ...] | None = None

    def counted(self) -> TokenUsage:
        """Ours: what the usage itself says, else the sum over its entries."""
        own = self.details()
        parts = [entry.details() for entry in self.x_details or ()]
        return TokenUsage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            total_tokens=self.total_tokens or self.input_tokens + self.output_tokens,
            cached_tokens=own.cached_tokens or sum(part.cached_tokens for part in parts),
            cache_write_tokens=own.cache_creation_input_tokens or sum(part.cache_creation_input_tokens for part in parts),
            reasoning_tokens=own.reasoning_tokens or sum(part.reasoning_tokens for part in parts),
        )


class _Incomplete(msgspec.Struct, gc=False):
    reason: str = ""


class _Response(msgspec.Struct):
    """What is read of the object inside a terminal event."""

    usage: _Usage | None = None
    incomplete_details: _Incomplete | None = None


class _OpenCall:
    """A function call on its way."""

    __slots__ = ("announced", "arguments", "index", "opened")

    def __init__(self, index: int) -> None:
        self.index = index
        self.opened = False
        self.arguments = ""
        """What has been passed on, or waits until the call is opened."""
        self.announced = ""
        """What came whole with the opening. It waits: deltas may repeat it, and the end usually does."""


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_typed = msgspec.json.Decoder(_Typed).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_item = msgspec.json.Decoder(_Item).decode
_decode_response = msgspec.json.Decoder(_Response).decode

_ERRORS = frozenset({"response.failed", "error", ""})
"""Types of the events that are errors; a bare error object has none."""


def _reports(payload: bytes) -> bool:
    """Whether a payload without a type has the fields of an error, nested or flat."""
    return not _decode_object(payload).keys().isdisjoint(("error", "code", "message"))


class ResponsesDecoder:
    """One answer. After each `feed`, `failure` says whether the stream broke; the deltas that came before are good.

    Unknown events, and hosted tools' events and items, are passed over.
    """

    __slots__ = ("_calls", "_current", "_shown", "_sse", "_thinking", "done", "failure")

    def __init__(self) -> None:
        self.failure: UpstreamError | None = None
        self.done = False
        """The terminal event has come; nothing but the end of the HTTP body can follow."""
        self._sse = SSEDecoder()
        self._calls: dict[str, _OpenCall] = {}
        self._current = ""
        """The item id of the call opened last, for events that name none."""
        self._shown = False
        """Something of the open item has been passed on as deltas."""
        self._thinking = ""
        """The event that carries the thinking in this stream; should both be sent, the second kind repeats the first."""

    def feed(self, piece: bytes) -> list[Delta]:
        """The deltas of one read of the stream."""
        out: list[Delta] = []
        try:
            self._receive(self._sse.feed(piece), out)
        except UpstreamError as error:
            self.failure = error
        return out

    def end(self) -> list[Delta]:
        """The last deltas, where the last event was not closed. Raises UpstreamError if the answer is not whole."""
        out: list[Delta] = []
        self._receive(self._sse.end(), out)
        if not self.done:
            raise UpstreamProtocolError("The upstream's answer ended without a terminal event.")
        return out

    def _receive(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        for payload in payloads:
            if self.done or payload == DONE:
                return
            try:
                event = _decode_event(payload)
                reader = self._readers.get(event.type)
                if reader is not None:
                    out += reader(self, event)
                elif event.type in _ERRORS and (event.type or _reports(payload)):
                    raise error_in_stream(bytes(event.response) if event.type == "response.failed" else payload, self._sse.status)
            except msgspec.ValidationError as error:
                if self._is_read(payload):
                    raise UpstreamProtocolError(f"The upstream sent an event of an unknown shape: {error}") from error
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise UpstreamProtocolError(f"The upstream sent an event that cannot be read: {error}") from error

    def _is_read(self, payload: bytes) -> bool:
        """Whether this is an event to read, and not one whose fields merely share a name."""
        try:
            return _decode_typed(payload).type in self._readers
        except msgspec.ValidationError:
            return False

    def _said(self, event: _Event) -> Sequence[Delta]:
        return self._show(Text(event.delta)) if event.delta else ()

    def _declined(self, event: _Event) -> Sequence[Delta]:
        return self._show(Refusal(event.delta)) if event.delta else ()

    def _thought(self, event: _Event) -> Sequence[Delta]:
        self._thinking = self._thinking or event.type
        return self._show(Reasoning(event.delta)) if event.delta and event.type == self._thinking else ()

    def _called(self, event: _Event) -> Sequence[Delta]:
        return self._argued(self._call(event.item_id or self._current), event.delta)

    def _show(self, delta: Delta) -> Sequence[Delta]:
        self._shown = True
        return (delta,)

    def _added(self, event: _Event) -> Sequence[Delta]:
        self._shown = False
        return self._opened(_decode_item(event.item)) if _decode_typed(event.item).type == "function_call" else ()

    def _done(self, event: _Event) -> Sequence[Delta]:
        """The item is complete: what of it has not come as deltas comes now."""
        raw = event.item
        match _decode_typed(raw).type:
            case "function_call":
                item = _decode_item(raw)
                opened = self._opened(item)
                call = self._calls[self._current]
                return (*opened, *self._argued_whole(call, item.arguments or call.announced))
            case "message" if not self._shown:
                parts = _decode_item(raw).content or ()
                return [Refusal(part.refusal) if part.refusal else Text(part.text) for part in parts if part.refusal or part.text]
            case "reasoning" if not self._shown:
                item = _decode_item(raw)
                return [Reasoning(part.text) for part in item.summary or item.content or () if part.text]
            case _:
                return ()

    def _call(self, item_id: str) -> _OpenCall:
        call = self._calls.get(item_id)
        if call is None:
            call = self._calls[item_id] = _OpenCall(len(self._calls))
        return call

    def _opened(self, item: _Item) -> Sequence[Delta]:
        """Open the call, once."""
        self._current = item.id or item.call_id
        call = self._call(self._current)
        if call.opened:
            return ()
        if not item.name:
            raise UpstreamProtocolError("The upstream opened a function call without a name.")
        call.opened = True
        call.announced = item.arguments or ""
        opened = CallOpened(call.index, item.call_id, item.name)
        return (opened, CallArguments(call.index, call.arguments)) if call.arguments else (opened,)

    def _argued(self, call: _OpenCall, fragment: str) -> Sequence[Delta]:
        call.arguments += fragment
        return (CallArguments(call.index, fragment),) if fragment and call.opened else ()

    def _argued_whole(self, call: _OpenCall, arguments: str) -> Sequence[Delta]:
        """The rest of the arguments. Where the whole is spelled differently from the deltas (other blanks), the deltas stand."""
        return self._argued(call, arguments[len(call.arguments) :]) if arguments.startswith(call.arguments) else ()

    def _ended(self, event: _Event) -> Sequence[Delta]:
        self.done = True
        response = _decode_response(event.response)
        last: list[Delta] = []
        for call in self._calls.values():
            if not call.opened:
                raise UpstreamProtocolError("The upstream sent arguments for a function call it never opened.")
            last += self._argued_whole(call, call.announced)
        if response.usage:
            last.append(response.usage.counted())
        last.append(TurnFinished(self._reason(event, response)))
        return last

    def _reason(self, event: _Event, response: _Response) -> FinishReason:
        if event.type == "response.completed":
            return "tool_calls" if self._calls else "stop"
        # The vendor leaves `incomplete_details` out; the token limit is the only reason it documents.
        filtered = response.incomplete_details is not None and response.incomplete_details.reason == "content_filter"
        return "content_filter" if filtered else "length"

    _readers: ClassVar[Mapping[str, Callable[[Any, _Event], Sequence[Delta]]]] = {
        "response.output_text.delta": _said,
        "response.refusal.delta": _declined,
        "response.reasoning_text.delta": _thought,
        "response.reasoning_summary_text.delta": _thought,
        "response.output_item.added": _added,
        "response.function_call_arguments.delta": _called,
        "response.output_item.done": _done,
        "response.completed": _ended,
        "response.incomplete": _ended,
    }
