"""A simulated Qwen inside the gateway: no network, no weights, the complete port. For a first look, documentation and
tests.

It thinks by default, streams, calls functions, follows schemas and remembers the conversation; it always says what it
is.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence

import msgspec

from app.protocol.deltas import CallArguments, CallOpened, Delta, Reasoning, Text, TurnFinished
from app.protocol.messages import Assistant, Message
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import Capabilities, ModelCall, UpstreamModel
from app.providers.demo.model import Reply, reply
from app.providers.facts import FactsLookup
from app.providers.spec import ProviderSpec
from app.settings import Upstream

MODEL = "demo"

_BYTES_PER_TOKEN = 4
_PAUSE = 0.01
"""Seconds between pieces, roughly the speed of a real model."""
_PIECE = re.compile(r"\s*\S{1,8}|\s+")
_decode_messages = msgspec.json.Decoder(list[Message]).decode


class DemoProvider:
    """The demo upstream. Four bytes of UTF-8 are one simulated token by definition, so its usage is exact.

    `pause` is the time between two pieces, in seconds.
    """

    dialect = "demo"

    def __init__(self, name: str = MODEL, *, pause: float = _PAUSE) -> None:
        self.name = name
        self._pause = pause

    def capabilities(self, model: str) -> Capabilities:
        """Everything that the port offers, whatever the model's name."""
        del model
        return Capabilities(formats_while_thinking=True, files=True, thinks=True, can_think=True)

    def encode_messages(self, messages: Sequence[Message], *, reasoning: bool) -> bytes:
        """The neutral messages unchanged, since there is no other wire format."""
        return msgspec.json.encode([message if reasoning else _without_reasoning(message) for message in messages])[
            1:-1
        ]

    async def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta]]:
        """Answer, piece by piece. Raises UpstreamError 400 for a schema it cannot follow."""
        context = self._context(call)
        answer = reply(call, _decode_messages(b"[%b]" % context))
        for delta in _limited(answer, call.sampling.max_output_tokens, _read(call, context)):
            await asyncio.sleep(self._pause)
            yield (delta,)

    async def count_tokens(self, call: ModelCall) -> int | None:
        """As its usage says."""
        return _read(call, self._context(call))

    async def models(self) -> Sequence[UpstreamModel]:
        """One."""
        return (UpstreamModel(MODEL, owned_by="responses-gateway"),)

    async def aclose(self) -> None:
        """Nothing to close."""

    def _context(self, call: ModelCall) -> bytes:
        """The conversation, comma-separated."""
        return b",".join(part for part in (call.prefix, self.encode_messages(call.messages, reasoning=True)) if part)


def _without_reasoning(message: Message) -> Message:
    return msgspec.structs.replace(message, reasoning="") if isinstance(message, Assistant) else message


def _tokens(size: int) -> int:
    """The simulated tokens in so many bytes."""
    return math.ceil(size / _BYTES_PER_TOKEN)


def _read(call: ModelCall, context: bytes) -> int:
    """Input tokens: the system message, the context and the functions."""
    return _tokens(
        len((call.system or "").encode()) + len(context) + (len(msgspec.json.encode(call.tools)) if call.tools else 0)
    )


def _limited(answer: Reply, limit: int | None, read: int) -> Iterator[Delta]:
    """The answer's deltas, truncated after `limit` tokens, then usage and finish."""
    room = math.inf if limit is None else limit * _BYTES_PER_TOKEN
    written = thought = 0
    cut = False
    for delta, words in _deltas(answer):
        size = len(words.encode())
        if cut := written + size > room:
            rest = words.encode()[: int(room) - written].decode(errors="ignore")
            delta, size = _shortened(delta, rest), len(rest.encode())  # noqa: PLW2901 - the last one
        written += size
        thought += size if isinstance(delta, Reasoning) else 0
        yield delta
        if cut:
            break
    yield TokenUsage(read, _tokens(written), read + _tokens(written), reasoning_tokens=_tokens(thought))
    ended = "tool_calls" if answer.calls else "stop"
    yield TurnFinished("length" if cut else ended)


def _deltas(answer: Reply) -> Iterable[tuple[Delta, str]]:
    """Each delta with the text that counts as its tokens."""
    for piece in _PIECE.findall(answer.reasoning):
        yield Reasoning(piece), piece
    for piece in _PIECE.findall(answer.text):
        yield Text(piece), piece
    for index, made in enumerate(answer.calls):
        yield CallOpened(index, made.call_id, made.name), ""
        for piece in _PIECE.findall(made.arguments):
            yield CallArguments(index, piece), piece


def _shortened(delta: Delta, rest: str) -> Delta:
    match delta:
        case Text() | Reasoning():
            return msgspec.structs.replace(delta, text=rest)
        case CallArguments():
            return msgspec.structs.replace(delta, fragment=rest)
        case _:
            return delta


def _build(upstream: Upstream, facts: FactsLookup) -> DemoProvider:
    del facts
    return DemoProvider(upstream.name)


PROVIDER = ProviderSpec(dialect="demo", build=_build)
