"""The Chat Completions dialect, homeward: pieces of an event stream, or one whole answer, to deltas. Sans-io.

Lenient where servers differ: thinking under two names, calls whole or in pieces, with and without index and id, usage once, on every
chunk, or never. Strict where a mistake would pass for an answer: a chunk that cannot be read, a stream without a finish reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from app.protocol.deltas import (
    CallArguments,
    CallOpened,
    Delta,
    FinishReason,
    Logprob,
    Reasoning,
    Refusal,
    Text,
    TokenLogprob,
    TokenUsage,
    TurnFinished,
)
from app.providers._sse import DONE, SSEDecoder
from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.errors import error_in_stream

_FINISHES: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
}
"""Every other reason is a way of saying "stop": `eos_token`, `end_turn`, …"""
_UNFINISHED = "null"
"""DashScope's own protocol says it as text."""
_BROKEN_OFF = frozenset({"abort", "error"})
"""The server gave up on the request, as vLLM and SGLang do when they shut down."""


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    """A delta, or the whole message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Alternative(msgspec.Struct, gc=False):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class _Token(_Alternative, gc=False):
    top_logprobs: list[_Alternative] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Details(msgspec.Struct, gc=False):
    """Of prompt and completion."""

    cached_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    reasoning_tokens: int | None = None
    """Where SGLang puts them."""


class _Chunk(msgspec.Struct, gc=False):
    """A chunk, or the whole answer, or an error in the place of either."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    message: Any = None
    """Only in flat errors."""


class _OpenCall:
    """A function call on its way. Its arguments wait for its name."""

    __slots__ = ("arguments", "id", "number", "opened")

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = ""
        self.opened = False
        self.arguments = ""

    def differs_from(self, piece: _Call) -> bool:
        """Whether `piece`, though it came where this call's pieces come, opens another call.

        Some servers number every call 0, some number none: then a name with another id, or without an index, begins a new one.
        """
        if not self.opened or piece.function is None or not piece.function.name:
            return False
        return piece.id != self.id if piece.id and self.id else piece.index is None


_NO_DETAILS = _Details()
_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class ChatDecoder:
    """One answer. After each `feed`, `failure` says whether the stream broke; the deltas that came before are good."""

    __slots__ = ("_at_index", "_calls", "_finish", "_sse", "_usage", "done", "failure")

    def __init__(self) -> None:
        self.failure: UpstreamError | None = None
        self.done = False
        """The end marker has come; nothing but the end of the HTTP body can follow."""
        self._sse = SSEDecoder()
        self._usage: _Usage | None = None
        self._finish: str | None = None
        self._calls: list[_OpenCall] = []
        self._at_index: dict[int | None, _OpenCall] = {}
        """The call last opened under each of the upstream's indexes; under None, the last one at all."""

    @property
    def answered(self) -> bool:
        """The finish reason has come: the answer is complete, only its usage may be missing."""
        return self._finish is not None

    def feed(self, piece: bytes) -> list[Delta]:
        """The deltas of one read of an event stream."""
        out: list[Delta] = []
        try:
            self._receive(self._sse.feed(piece), out)
        except UpstreamError as error:
            self.failure = error
        return out

    def end(self) -> list[Delta]:
        """The last deltas of an event stream: usage, where reported, and the end. Raises UpstreamError if the answer is not whole."""
        out: list[Delta] = []
        self._receive(self._sse.end(), out)
        self._close(out)
        return out

    def whole(self, body: bytes) -> list[Delta]:
        """All deltas of an answer that was not streamed. Raises UpstreamError."""
        out: list[Delta] = []
        self._receive((body,), out)
        self._close(out)
        return out

    def _receive(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        for payload in payloads:
            if payload == DONE:
                self.done = True
                return
            try:
                chunk = _decode_chunk(payload)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise UpstreamProtocolError(f"The upstream sent a chunk that cannot be read: {error}") from error
            if chunk.error or (chunk.message and not chunk.choices):
                raise error_in_stream(payload, self._sse.status)
            if chunk.usage is not None:
                self._usage = chunk.usage
            if chunk.choices:
                self._choose(chunk.choices[0], out)

    def _choose(self, choice: _Choice, out: list[Delta]) -> None:
        message = choice.delta or choice.message
        if message is not None:
            thought = message.reasoning_content or message.reasoning
            if thought:
                out.append(Reasoning(thought))
            if message.content:
                out.append(Text(message.content) if choice.logprobs is None else Text(message.content, _tokens(choice.logprobs)))
            if message.refusal:
                out.append(Refusal(message.refusal))
            if message.tool_calls:
                for piece in message.tool_calls:
                    self._called(piece, out)
        if choice.finish_reason and self._finish is None and choice.finish_reason != _UNFINISHED:
            self._finish = choice.finish_reason

    def _called(self, piece: _Call, out: list[Delta]) -> None:
        call = self._at_index.get(piece.index)
        if call is None or call.differs_from(piece):
            call = _OpenCall(len(self._calls))
            self._calls.append(call)
        self._at_index[piece.index] = self._at_index[None] = call
        call.id = call.id or piece.id or ""
        name, fragment = (piece.function.name, piece.function.arguments) if piece.function else (None, None)
        if fragment:
            call.arguments += fragment
        if name and not call.opened:
            call.opened = True
            out.append(CallOpened(call.number, call.id, name))
        if call.opened and call.arguments:
            out.append(CallArguments(call.number, call.arguments))
            call.arguments = ""

    def _close(self, out: list[Delta]) -> None:
        if self._finish is None:
            raise UpstreamProtocolError("The upstream's answer ended without a finish reason.")
        if self._finish in _BROKEN_OFF:
            raise UpstreamError("The upstream broke off its answer.", status=502, code="upstream_error", retryable=True)
        if not all(call.opened for call in self._calls):
            raise UpstreamProtocolError("The upstream sent a function call without a name.")
        if self._usage is not None and self._usage.prompt_tokens is not None:
            out.append(_counted(self._usage))
        reason = _FINISHES.get(self._finish, "stop")
        # Several servers end a turn of calls with "stop".
        out.append(TurnFinished("tool_calls" if self._calls and reason == "stop" else reason))


def _counted(usage: _Usage) -> TokenUsage:
    prompt = usage.prompt_tokens or 0
    completion = usage.completion_tokens or 0
    read = usage.prompt_tokens_details or _NO_DETAILS
    written = usage.completion_tokens_details or _NO_DETAILS
    return TokenUsage(
        input_tokens=prompt,
        output_tokens=completion,
        total_tokens=usage.total_tokens or prompt + completion,
        cached_tokens=read.cached_tokens or 0,
        cache_write_tokens=read.cache_creation_input_tokens or 0,
        reasoning_tokens=written.reasoning_tokens or usage.reasoning_tokens or 0,
    )


def _tokens(logprobs: _Logprobs) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            token.token,
            token.logprob,
            token.bytes or (),
            tuple(Logprob(other.token, other.logprob, other.bytes or ()) for other in token.top_logprobs or ()),
        )
        for token in logprobs.content or ()
    )
