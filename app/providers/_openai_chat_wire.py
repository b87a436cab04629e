"""What is read of a chunk of Chat Completions, or of a whole answer: the shapes as the protocol has them.

The decoder of these shapes is the path of every ordinary token. What it refuses is read field by field in `_openai_chat_lenient.py`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]


class Function(msgspec.Struct, gc=False):
    """A function's name and arguments, or a piece of either."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None
    """JSON text by the protocol; an object from servers that forget to encode it."""


class Call(Function, gc=False):
    """An entry of `tool_calls`; some servers leave out the object `function` and put its fields here."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Message(msgspec.Struct, gc=False):
    """A delta, or the whole message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    """Where a call stood before there was `tool_calls`."""


class Alternative(msgspec.Struct, gc=False):
    """One token that might have been."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class Token(Alternative, gc=False):
    """The token that was, and others."""

    top_logprobs: list[Alternative] | None = None


class Logprobs(msgspec.Struct, gc=False):
    """Of the text beside it."""

    content: list[Token] | None = None


class Choice(msgspec.Struct, gc=False):
    """One of the answers; only the one with index 0, or without any, was asked for."""

    index: int | None = None
    delta: Message | None = None
    message: Message | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Details(msgspec.Struct, gc=False):
    """Of prompt and completion."""

    cached_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class Usage(msgspec.Struct, gc=False):
    """What the answer has cost so far."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None
    reasoning_tokens: Count | None = None
    """Where SGLang puts them."""


class Chunk(msgspec.Struct, gc=False):
    """A chunk, or the whole answer, or an error in the place of either."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None
    message: Any = None
    error_message: Any = None
    """Only in flat errors, as the one before."""
    detail: Any = None
    """Only in those of FastAPI."""


decode_chunk = msgspec.json.Decoder(Chunk).decode
