"""The Chat Completions dialect, responses: pieces of an event stream, or one whole answer, to deltas. Sans-io.

Lenient where servers differ: thinking under two names, calls whole or in pieces, usage once, in every chunk, or never,
fields of unusual types. Strict where an error would pass for an answer: an unreadable chunk, a stream without a finish
reason, an empty answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from app.protocol.deltas import Delta, FinishReason, Reasoning, Refusal, Text, TurnFinished
from app.protocol.messages import FunctionTool
from app.protocol.wire.tokens import Logprob, TokenLogprob, TokenUsage
from app.providers._sse import DONE, SSEDecoder, lines_of
from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.chat.calls import CallReader
from app.providers.chat.lenient import LenientReader
from app.providers.chat.wire import Choice, Chunk, Details, Logprobs, Message, Usage, decode_chunk
from app.providers.errors import error_in_stream

_FINISHES: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "safety": "content_filter",
}
"""Every other reason means "stop": `eos_token`, `end_turn`, …"""
_UNFINISHED = "null"
"""DashScope's own protocol sends null as text."""
_BROKEN_OFF = frozenset({"abort", "error", "network_error", "insufficient_system_resource"})
"""The server aborted the request, as vLLM and SGLang do when they shut down.

The last two are GLM's and DeepSeek's names.
"""
_SUCCESSES = frozenset({"stop", "tool_calls"})
_NO_DETAILS, _NO_MESSAGE = Details(), Message()


class ChatDecoder:
    """One answer to a call that offered `tools`.

    After each `feed`, `failure` says whether the stream broke; the deltas before that are valid.
    """

    __slots__ = ("_calls", "_finish", "_lenient", "_quota_passes", "_said", "_sse", "_usage", "done", "failure")

    def __init__(self, tools: Sequence[FunctionTool] = (), *, quota_passes: bool = True) -> None:
        """`quota_passes`: see `error_in_stream`."""
        self.failure: UpstreamError | None = None
        self.done = False
        """The end marker has arrived; only the end of the HTTP body can follow."""
        self._sse = SSEDecoder()
        self._lenient: LenientReader | None = None
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._calls = CallReader(tools)
        self._said = False
        self._quota_passes = quota_passes

    @property
    def answered(self) -> bool:
        """The finish reason has arrived: the answer is complete, only its usage may be missing."""
        return self._finish is not None

    @property
    def counted(self) -> bool:
        """Usage has arrived, too, and is not empty."""
        return self._usage is not None

    def feed(self, piece: bytes) -> list[Delta]:
        """The deltas of one read of an event stream."""
        out: list[Delta] = []
        try:
            self._receive(self._sse.feed(piece), out)
        except UpstreamError as error:
            self.failure = error
        if out:
            self._said = True
        return out

    def end(self) -> list[Delta]:
        """The last deltas of an event stream: usage, if reported, and the end.

        Raises UpstreamError if the answer is incomplete.
        """
        out: list[Delta] = []
        self._receive(self._sse.end(), out)
        self._close(out)
        return out

    def whole(self, body: bytes) -> list[Delta]:
        """All deltas of an answer that was not declared as a stream; it may be one all the same.

        Raises UpstreamError.
        """
        out: list[Delta] = []
        self._receive(self._sse.whole(body), out)
        self._close(out)
        return out

    def _receive(self, payloads: Iterable[bytes], out: list[Delta]) -> None:
        for payload in payloads:
            if payload == DONE:
                self.done = True
                return
            try:
                chunk = self._lenient.read(payload) if self._lenient else decode_chunk(payload)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                chunk = self._read_odd(payload, out)
            if chunk is not None:
                self._take(chunk, payload, out)

    def _take(self, chunk: Chunk, payload: bytes, out: list[Delta]) -> None:
        choices = chunk.choices
        if chunk.error or (not choices and chunk.reports()):
            raise self._error(payload)
        if chunk.usage is not None:
            self._count(chunk.usage)
        for choice in choices or ():
            if not choice.index:
                self._choose(choice, out)
                if choice.error:
                    raise self._error(payload)

    def _error(self, payload: bytes) -> UpstreamError:
        return error_in_stream(payload, self._sse.status, quota_passes=self._quota_passes)

    def _count(self, usage: Usage) -> None:
        """Record usage; empty usage, which some servers send in between or at the end, replaces nothing."""
        if usage.prompt():
            self._usage = usage

    def _read_odd(self, payload: bytes, out: list[Delta]) -> Chunk | None:
        """What the typed decoder rejected.

        None if nothing more is to be done, as after the finish reason, where errors are ignored.
        """
        if payload.strip() == DONE:
            self.done = True
            return None
        if self._lenient is None:
            self._lenient = LenientReader()
        try:
            return self._lenient.read(payload)
        except UpstreamProtocolError:
            if b"\n" in payload:
                self._receive(lines_of(payload), out)
            elif not self.answered:
                raise
            return None

    def _choose(self, choice: Choice, out: list[Delta]) -> None:
        message = choice.delta or choice.message or _NO_MESSAGE
        if self._finish is None:
            thought, content = message.reasoning_content or message.reasoning, message.content or choice.text
            if thought:
                out.append(Reasoning(thought))
            if content:
                out.append(Text(content) if choice.logprobs is None else Text(content, _tokens(choice.logprobs)))
            if message.refusal:
                out.append(Refusal(message.refusal))
        if message.tool_calls or message.function_call:
            self._call(message, out, whole=choice.delta is None)
        if choice.finish_reason and self._finish is None and choice.finish_reason != _UNFINISHED:
            self._finish = choice.finish_reason
        if choice.usage is not None:
            self._count(choice.usage)

    def _call(self, message: Message, out: list[Delta], *, whole: bool) -> None:
        """Calls count after the finish reason as well: some servers send it with each of them."""
        receive = self._calls.receive_whole if whole else self._calls.receive
        for piece in message.tool_calls or ():
            receive(piece, out)
        if message.function_call is not None and not message.tool_calls:
            self._calls.receive_legacy(message.function_call, out, whole=whole)

    def _close(self, out: list[Delta]) -> None:
        if self._finish is None:
            raise UpstreamProtocolError("The upstream's answer ended without a finish reason.")
        finish = self._finish.lower()
        if finish in _BROKEN_OFF:
            raise UpstreamError("The upstream aborted its answer.", status=502, code="upstream_error", retryable=True)
        self._calls.close(out)
        empty = not (self._said or out)
        usage = None if self._usage is None else _counted(self._usage)
        reason = _FINISHES.get(finish, "stop")
        if usage is not None:
            out.append(usage)
        elif empty and reason in _SUCCESSES:
            raise UpstreamProtocolError("The upstream's answer was empty: neither text nor a call, and no usage.")
        # Several servers end a turn of calls with "stop".
        out.append(TurnFinished("tool_calls" if self._calls and reason == "stop" else reason))


def _counted(usage: Usage) -> TokenUsage:
    """The usage in the gateway's type."""
    total, completion, prompt = usage.total_tokens or 0, usage.completion(), usage.prompt()
    read = usage.prompt_tokens_details or usage.input_tokens_details or _NO_DETAILS
    written = usage.completion_tokens_details or usage.output_tokens_details or _NO_DETAILS
    return TokenUsage(
        input_tokens=prompt,
        output_tokens=completion,
        total_tokens=total or prompt + completion,
        cached_tokens=read.cached_tokens or 0,
        cache_write_tokens=read.cache_creation_input_tokens or 0,
        reasoning_tokens=written.reasoning_tokens or usage.reasoning_tokens or 0,
    )


def _tokens(logprobs: Logprobs) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            token.token,
            token.logprob,
            token.bytes or (),
            tuple(Logprob(other.token, other.logprob, other.bytes or ()) for other in token.top_logprobs or ()),
        )
        for token in logprobs.content or ()
    )
