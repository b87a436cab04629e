"""The output of an upstream, whatever its wire format: a closed union of small records."""

from __future__ import annotations

from typing import Literal

import msgspec

from app.protocol.wire.hosted import HostedItem
from app.protocol.wire.tokens import TokenLogprob, TokenUsage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Text(msgspec.Struct, frozen=True, gc=False):
    """A piece of the visible answer."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A piece of a refusal."""

    text: str


class Reasoning(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's thinking."""

    text: str


class CallOpened(msgspec.Struct, frozen=True, gc=False):
    """The model begins a function call. `index` is the upstream's number of the call inside the turn."""

    index: int
    call_id: str
    """Empty if the upstream sent none; the assembler then creates one."""
    name: str


class CallArguments(msgspec.Struct, frozen=True, gc=False):
    """A piece of a call's arguments (JSON text)."""

    index: int
    fragment: str


class TurnFinished(msgspec.Struct, frozen=True, gc=False):
    """The model ended its turn. A stream that ends without this record failed."""

    reason: FinishReason


class NativeItem(msgspec.Struct, frozen=True, gc=False):
    """A built-in tool that the upstream runs itself: the initial item, or (`done`) the final one, with the upstream's
    id.
    """

    item: HostedItem
    done: bool


Delta = Text | Refusal | Reasoning | CallOpened | CallArguments | TokenUsage | TurnFinished | NativeItem
