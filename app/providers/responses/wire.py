"""The fields read from the events of the Responses API: types according to the protocol.

What their decoders reject is read field by field in `_responses_lenient.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.protocol.wire.tokens import TokenUsage
from app.providers._wire import Count

EMPTY = msgspec.Raw(b"{}")
NOTHING = msgspec.Raw(b"null")


class Typed(msgspec.Struct, gc=False):
    """Anything with a type."""

    type: str = ""


class Event(msgspec.Struct, gc=False):
    """The fields that are read from all events."""

    type: str = ""
    item_id: str | None = None
    delta: str = ""
    arguments: str = ""
    item: msgspec.Raw = EMPTY
    response: msgspec.Raw = EMPTY


class Content(msgspec.Struct, gc=False):
    """A part of a message or of a reasoning item."""

    text: str = ""
    refusal: str = ""


class Item(msgspec.Struct):
    """A message, a reasoning item or a function call."""

    id: str | None = None
    call_id: str = ""
    name: str = ""
    arguments: str | None = None
    content: tuple[Content, ...] | None = None
    summary: tuple[Content, ...] | None = None


class Details(msgspec.Struct, gc=False):
    """The details of both input and output tokens."""

    cached_tokens: Count = 0
    cache_creation_input_tokens: Count = 0
    reasoning_tokens: Count = 0


_NO_DETAILS = Details()


class Billed(msgspec.Struct):
    """Details of the usage and of each entry of its `x_details`.

    Some entries use the Chat Completions name for the input's.
    """

    input_tokens_details: Details | None = None
    prompt_tokens_details: Details | None = None
    output_tokens_details: Details | None = None

    def details(self) -> Details:
        """Of input and output combined."""
        spent = self.input_tokens_details or self.prompt_tokens_details or _NO_DETAILS
        made = self.output_tokens_details or _NO_DETAILS
        return Details(spent.cached_tokens, spent.cache_creation_input_tokens, made.reasoning_tokens)


class Usage(Billed):
    input_tokens: Count = 0
    output_tokens: Count = 0
    total_tokens: Count = 0
    x_details: tuple[Billed, ...] | None = None

    def counted(self) -> TokenUsage | None:
        """The gateway's type: from the usage itself, otherwise the sum of its entries.

        None without counters: no input is empty.
        """
        read = self.input_tokens or max(self.total_tokens - self.output_tokens, 0)
        if not read:
            return None
        own = self.details()
        parts = [entry.details() for entry in self.x_details or ()]
        return TokenUsage(
            input_tokens=read,
            output_tokens=self.output_tokens,
            total_tokens=self.total_tokens or read + self.output_tokens,
            cached_tokens=own.cached_tokens or sum(part.cached_tokens for part in parts),
            cache_write_tokens=own.cache_creation_input_tokens
            or sum(part.cache_creation_input_tokens for part in parts),
            reasoning_tokens=own.reasoning_tokens or sum(part.reasoning_tokens for part in parts),
        )


class Incomplete(msgspec.Struct, gc=False):
    reason: str = ""


class Response(msgspec.Struct):
    """The fields read from the object inside a terminal event."""

    usage: Usage | None = None
    incomplete_details: Incomplete | None = None
    error: Any = None
    output: msgspec.Raw = NOTHING
    """The items, undecoded: usually they have already arrived."""


decode_event = msgspec.json.Decoder(Event).decode
decode_typed = msgspec.json.Decoder(Typed).decode
decode_item = msgspec.json.Decoder(Item).decode
decode_response = msgspec.json.Decoder(Response).decode
