"""What a run has finished, up to the end of a round of tool calls: enough for another process to go on from there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from app.engine.hosted.sessions import ToolsState
from app.protocol.messages import Message
from app.protocol.stream.assembler import Assembler
from app.protocol.stream.usage import UsageCounter
from app.protocol.wire.items import OutputItem
from app.protocol.wire.tokens import TokenUsage


class Rounds(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the model is called with next."""

    turns_left: int
    calls_left: int | None
    """Of `max_tool_calls`."""
    tokens_left: int | None
    """Of `max_output_tokens`."""
    offered: bool = True
    """Hosted functions are offered."""
    told: bool = False
    """The model has called a tool that was no longer offered, and was told so once."""
    said: tuple[Message, ...] = ()
    """Its turns of this response, with the results of its calls."""

    def after(self, ran: int, tokens_left: int | None) -> Rounds:
        """What is left after another turn that made so many calls."""
        calls_left = None if self.calls_left is None else self.calls_left - ran
        offered = self.turns_left > 1 and calls_left != 0
        # if the model calls a tool that is no longer offered, it is told once
        return Rounds(self.turns_left - 1, calls_left, tokens_left, offered, told=not self.offered)


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a run between two turns of the model, when no item is open."""

    rounds: Rounds | None = None
    """None: the model has not been called yet."""
    tools: ToolsState = ToolsState()
    output: tuple[OutputItem, ...] = ()
    cuts: tuple[tuple[int | tuple[int, int], ...], ...] = ()
    tokens: TokenUsage | None = None
    tool_counts: dict[str, dict[str, int]] = {}
    hosted_calls: int = 0
    """How many the model has made."""
    repeatable: bool = True
    """False: calls have begun since then that must not be made twice."""

    @property
    def usage(self) -> UsageCounter:
        """The usage so far."""
        counter = UsageCounter()
        counter.tokens, counter.tools = self.tokens, self.tool_counts
        return counter


Note = Callable[[Progress], Awaitable[None]]
"""Stores the progress.

One that is not `repeatable` is stored when this returns; another as far as the store answers.
"""

# JSON, as records are: items may contain JSON that is kept as it was sent.
_decoder = msgspec.json.Decoder(Progress)


def of(assembler: Assembler, rounds: Rounds, tools: ToolsState) -> Progress:
    """The progress of a run that is about to call the model again."""
    return Progress(
        rounds=rounds,
        tools=tools,
        output=tuple(assembler.output),
        cuts=tuple(tuple(cuts) for cuts in assembler.cuts),
        tokens=assembler.usage.tokens,
        tool_counts=assembler.usage.tools,
        hosted_calls=assembler.hosted_calls,
    )


def encode(progress: Progress, most: int) -> bytes:
    """The stored form; of one that is larger than `most` bytes only that the run cannot be continued."""
    data = msgspec.json.encode(progress)
    return data if len(data) <= most else msgspec.json.encode(Progress(repeatable=False))


def decode(stored: bytes | None) -> Progress | None:
    """What an earlier owner has stored.

    What another version has written in another form counts as nothing that can be continued.
    """
    if stored is None:
        return None
    try:
        return _decoder.decode(stored)
    except (msgspec.DecodeError, RecursionError):
        return Progress(repeatable=False)
