"""The fields read from a Chat Completions chunk, or from a whole answer: types according to the protocol.

The decoder of these types handles every ordinary token. What it rejects is read field by field in
`_openai_chat_lenient.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.providers._wire import Count, Report


class Function(msgspec.Struct, gc=False):
    """A function's name and arguments, or a piece of either."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    """JSON text by the protocol; an object from servers that forget to encode it."""


class Custom(Function, gc=False):
    """A call of a tool whose input is not JSON."""

    arguments: str | dict[str, Any] | None = msgspec.field(default=None, name="input")


class Call(Function, gc=False):
    """An entry of `tool_calls`; some servers omit the object `function` and put its fields here."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None
    custom: Custom | None = None


class Message(msgspec.Struct, gc=False):
    """A delta, or the whole message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    """The field for a call before there was `tool_calls`."""


class Alternative(msgspec.Struct, gc=False):
    """An alternative token."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class Token(Alternative, gc=False):
    """The chosen token, and alternatives."""

    top_logprobs: list[Alternative] | None = None


class Logprobs(msgspec.Struct, gc=False):
    """Of the text in the same choice."""

    content: list[Token] | None = None


class Details(msgspec.Struct, gc=False):
    """Of prompt and completion."""

    cached_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class Usage(msgspec.Struct, gc=False):
    """The usage of the answer so far."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    reasoning_tokens: Count | None = None
    """SGLang's field."""
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    """Names of the Responses API, like the one before."""
    input_tokens_details: Details | None = None
    output_tokens_details: Details | None = None

    def prompt(self) -> int:
        """The length of the prompt; 0 if it was not counted, since a prompt is never empty."""
        return self.prompt_tokens or self.input_tokens or max((self.total_tokens or 0) - self.completion(), 0)

    def completion(self) -> int:
        """The length of the answer."""
        return self.completion_tokens or self.output_tokens or 0


class Choice(msgspec.Struct, gc=False):
    """One of the answers; only the one with index 0, or without an index, was requested."""

    index: int | None = None
    delta: Message | None = None
    message: Message | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    error: Any = None
    usage: Usage | None = None
    """Moonshot's field."""
    text: str | None = None
    """Of the legacy Completions API."""


class Chunk(Report, gc=False):
    """A chunk, or the whole answer, or an error in place of either."""

    choices: list[Choice] | None = None
    usage: Usage | None = None


decode_chunk = msgspec.json.Decoder(Chunk).decode
