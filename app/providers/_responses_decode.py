"""The Responses dialect, homeward: pieces of an event stream to deltas. Sans-io.

Lenient where the vendor's streams differ among themselves: arguments of a call come as deltas, or whole, or both; thinking has two
event names; `output_index` is not reliable, item ids are; an error is `response.failed` inside HTTP 200, or a bare error object.
Hosted tools are read from their items alone (`_responses_native.py`): some have events of their own, some have none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from app.protocol.deltas import CallArguments, CallOpened, Delta, FinishReason, Reasoning, Refusal, Text, TokenUsage, TurnFinished
from app.providers._responses_native import HOSTED_TYPES, HostedItems, homeward
from app.providers._sse import DONE, SSEDecoder
from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.errors import error_in_stream

_log = logging.getLogger(__name__)

_EMPTY = msgspec.Raw(b"{}")
_LONGEST_TYPE = 64


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
    """A message, a reasoning item or a function call."""

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


class _Output(msgspec.Struct):
    """The items of the object inside a terminal event, unread."""

    output: Any = None


class _OpenCall:
    """A function call on its way."""

    __slots__ = ("announced", "arguments", "closed", "held", "index", "opened")

    def __init__(self, index: int) -> None:
        self.index = index
        self.opened = False
        self.closed = False
        self.held = False
        """It began beside a hosted item, and waits until that is told to its end."""
        self.arguments = ""
        """What has been passed on, or waits until the call is opened."""
        self.announced = ""
        """What came whole with the opening. It waits: deltas may repeat it, and the end usually does."""


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_typed = msgspec.json.Decoder(_Typed).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_item = msgspec.json.Decoder(_Item).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_output = msgspec.json.Decoder(_Output).decode
_decode_hosted = msgspec.json.Decoder(dict[str, Any]).decode

_ERRORS = frozenset({"response.failed", "error", ""})
"""Types of the events that are errors; a bare error object has none."""


def _reports(payload: bytes) -> bool:
    """Whether a payload without a type has the fields of an error, nested or flat."""
    return not _decode_object(payload).keys().isdisjoint(("error", "code", "message"))


class ResponsesDecoder:
    """One answer. After each `feed`, `failure` says whether the stream broke; the deltas that came before are good.

    Unknown events and items are passed over. A hosted item and a function call never overlap in what is told: the later one waits.
    """

    __slots__ = ("_calls", "_current", "_held", "_hosted", "_shown", "_sse", "_thinking", "done", "failure")

    def __init__(self) -> None:
        self.failure: UpstreamError | None = None
        self.done = False
        """The terminal event has come; nothing but the end of the HTTP body can follow."""
        self._sse = SSEDecoder()
        self._calls: dict[str, _OpenCall] = {}
        self._hosted = HostedItems()
        self._held: list[Delta] = []
        """Of function calls that wait for hosted items."""
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
        call = self._call(event.item_id or self._current)
        return self._pass(call, self._argued(call, event.delta))

    def _succeeded(self, event: _Event) -> Sequence[Delta]:
        self._hosted.succeed(event.item_id)
        return ()

    def _show(self, *words: Delta) -> Sequence[Delta]:
        """The model speaks, so whatever ran has ended."""
        self._shown = True
        return (*self._hosted.settle(), *self._released(), *words) if self._hosted else words

    def _added(self, event: _Event) -> Sequence[Delta]:
        self._shown = False
        kind = _decode_typed(event.item).type
        if kind in HOSTED_TYPES:
            self._hosted.begin(_decode_hosted(event.item))
            return self._tell()
        if kind != "function_call":
            return ()
        item = _decode_item(event.item)
        return self._pass(self._named(item), self._opened(item))

    def _done(self, event: _Event) -> Sequence[Delta]:
        """The item is complete: what of it has not come as deltas comes now."""
        raw = event.item
        match _decode_typed(raw).type:
            case "function_call":
                item = _decode_item(raw)
                call = self._named(item)
                told = self._pass(call, (*self._opened(item), *self._argued_whole(call, item.arguments or call.announced)))
                call.closed = True
                return (*told, *self._tell())
            case kind if kind in HOSTED_TYPES:
                self._hosted.end(_decode_hosted(raw))
                return self._tell()
            case "message" if not self._shown:
                parts = _decode_item(raw).content or ()
                return self._show(
                    *[Refusal(part.refusal) if part.refusal else Text(part.text) for part in parts if part.refusal or part.text]
                )
            case "reasoning" if not self._shown:
                item = _decode_item(raw)
                return self._show(*[Reasoning(part.text) for part in item.summary or item.content or () if part.text])
            case "message" | "reasoning":
                return ()
            case other:
                _log.info("passed over an output item of an unknown type: %r", other[:_LONGEST_TYPE])
                return ()

    def _tell(self) -> Sequence[Delta]:
        """What can be told of hosted items, and then of the calls that waited for them."""
        if any(call.opened and not (call.closed or call.held) for call in self._calls.values()):
            return ()
        told = self._hosted.tell()
        return told if self._hosted else (*told, *self._released())

    def _released(self) -> Sequence[Delta]:
        held, self._held = self._held, []
        for call in self._calls.values():
            call.held = False
        return held

    def _pass(self, call: _OpenCall, deltas: Sequence[Delta]) -> Sequence[Delta]:
        if call.held:
            self._held += deltas
            return ()
        return deltas

    def _call(self, item_id: str) -> _OpenCall:
        call = self._calls.get(item_id)
        if call is None:
            call = self._calls[item_id] = _OpenCall(len(self._calls))
        return call

    def _named(self, item: _Item) -> _OpenCall:
        self._current = item.id or item.call_id
        return self._call(self._current)

    def _opened(self, item: _Item) -> Sequence[Delta]:
        """Open the call, once."""
        call = self._named(item)
        if call.opened:
            return ()
        if not item.name:
            raise UpstreamProtocolError("The upstream opened a function call without a name.")
        call.opened = True
        call.held = bool(self._hosted)
        call.announced = item.arguments or ""
        opened = CallOpened(call.index, item.call_id, homeward(item.name))
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
            last += self._pass(call, self._argued_whole(call, call.announced))
        if self._hosted:
            self._hosted.complete(_decode_output(event.response).output)
            last += (*self._hosted.settle(), *self._released())
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
        "response.web_search_call.completed": _succeeded,
        "response.code_interpreter_call.completed": _succeeded,
        "response.file_search_call.completed": _succeeded,
        "response.mcp_call.completed": _succeeded,
        "response.completed": _ended,
        "response.incomplete": _ended,
    }
