"""Streams of Chat Completions made by hand, and what a decoder makes of them in sum."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from app.protocol.deltas import CallArguments, CallOpened, Delta, Reasoning, Refusal, Text, TurnFinished
from app.protocol.messages import FunctionTool
from app.protocol.wire.tokens import TokenUsage
from app.providers.chat.decode import ChatDecoder

Json = dict[str, Any]
USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


class Sum(msgspec.Struct):
    """An answer, however it was cut into deltas."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[tuple[str, str, str]] = []
    """Id, name and arguments of each."""
    usage: TokenUsage | None = None
    finish: str = ""


def event(body: object) -> bytes:
    """A frame of the stream; unpaired surrogates go as escapes."""
    return b"data: %b\n\n" % json.dumps(body).encode()


def chunk(delta: object, finish: object = None, **more: Any) -> bytes:
    """A chunk with one choice."""
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]})


def whole(message: object, finish: object = "stop", **more: Any) -> bytes:
    """The body of an answer that is not streamed."""
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}).encode()


def call(name: object = None, arguments: object = None, **more: Any) -> Json:
    """An entry of `tool_calls`, or a piece of one; what is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"type": "function", "function": function, **more}


def offered(*names: str) -> Sequence[FunctionTool]:
    """Functions of these names."""
    return [FunctionTool(name, None, msgspec.Raw(b"{}")) for name in names]


def decode(*pieces: bytes, tools: Sequence[FunctionTool] = ()) -> list[Delta]:
    """All deltas of a stream that ends after these pieces; what broke it is raised."""
    decoder = ChatDecoder(tools)
    deltas: list[Delta] = []
    for piece in pieces:
        deltas += decoder.feed(piece)
        if decoder.failure:
            raise decoder.failure
    return deltas + decoder.end()


def cut(stream: bytes, at: Iterable[int]) -> list[bytes]:
    """The stream in pieces."""
    cuts = sorted(place % (len(stream) + 1) for place in at)
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def summed(deltas: Iterable[Delta]) -> Sum:
    """What the deltas come to."""
    total = Sum()
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        match delta:
            case Text(text):
                total.text += text
            case Reasoning(text):
                total.reasoning += text
            case Refusal(text):
                total.refusal += text
            case CallOpened(index, call_id, name):
                assert index not in calls
                calls[index] = [call_id, name, ""]
            case CallArguments(index, fragment):
                assert fragment
                calls[index][2] += fragment
            case TokenUsage():
                total.usage = delta
            case TurnFinished(reason):
                total.finish = reason
            case _:
                raise AssertionError(delta)
    total.calls = [(call_id, name, arguments) for call_id, name, arguments in calls.values()]
    return total
