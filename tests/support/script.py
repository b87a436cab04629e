"""The script of an upstream: the pieces of a reply, in the format of Chat Completions.

A reply is a list of pieces, written to the socket one by one. A fault is a piece, too: it happens at its position in
the list.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal

import msgspec

from tests.support.processes import PATIENCE

Json = dict[str, Any]


def _some_usage() -> Json:
    return {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


class Text(msgspec.Struct, frozen=True):
    """A piece of the answer; `logprobs` are the entries of `choices[0].logprobs.content`."""

    text: str
    logprobs: Sequence[Json] = ()


class Thought(msgspec.Struct, frozen=True):
    """A piece of thinking, in the field of the imitated server."""

    text: str
    field: Literal["reasoning_content", "reasoning"] = "reasoning_content"


class Call(msgspec.Struct, frozen=True):
    """A whole function call; each fragment of its arguments is a separate chunk."""

    name: str
    fragments: Sequence[str] = ("{}",)
    id: str = "call_1"
    index: int = 0


class Raw(msgspec.Struct, frozen=True):
    """Raw bytes: a malformed chunk, an error inside a 200 stream, frames of the Responses API."""

    data: bytes


class Cut(msgspec.Struct, frozen=True):
    """The connection breaks here."""


class Gate:
    """The reply waits here until the test opens the gate; if never opened, the upstream has stalled.

    Safe across threads.
    """

    def __init__(self) -> None:
        self._reached: Future[None] = Future()
        self._opened: Future[None] = Future()

    def open(self) -> None:
        """Let the reply continue."""
        self._opened.set_result(None)

    async def reached(self, timeout: float = PATIENCE) -> None:  # noqa: ASYNC109 - a test sets its own time limit
        """Wait until the reply is at the gate: everything before it has been written."""
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._reached)), timeout)

    async def hold(self) -> None:
        """Wait at the gate (the upstream's side)."""
        if not self._reached.done():
            self._reached.set_result(None)
        await asyncio.shield(asyncio.wrap_future(self._opened))


Piece = Text | Thought | Call | Raw | Cut | Gate


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One answer: streamed if the request asks for it, otherwise whole."""

    pieces: Sequence[Piece] = ()
    finish_reason: str | None = "auto"
    """`auto`: tool_calls after a call, otherwise stop. None: the turn never finishes."""
    usage: Mapping[str, Any] | None = msgspec.field(default_factory=_some_usage)
    """Sent in a stream only if `stream_options.include_usage` asks for it, as real servers do."""
    done: bool = True
    """End a stream with `[DONE]`."""
    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    """The raw answer, instead of one built from the pieces."""

    @classmethod
    def say(cls, *texts: str) -> Reply:
        """An answer in these pieces."""
        return cls(pieces=[Text(text) for text in texts])

    @classmethod
    def error(cls, status: int, body: Json, headers: Mapping[str, str] | None = None) -> Reply:
        """An HTTP error."""
        return cls(status=status, body=_dump(body).encode(), headers=headers or {})

    @classmethod
    def json(cls, body: Json) -> Reply:
        """This object, whole, with status 200."""
        return cls(body=_dump(body).encode())


def sse(*events: Json) -> Raw:
    """Events of the Responses API as frames."""
    return Raw("".join(f"event: {event['type']}\ndata: {_dump(event)}\n\n" for event in events).encode())


def stream_writes(reply: Reply, request: Json) -> list[bytes | Gate | Cut]:
    """The bytes on the wire, write by write."""
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": request.get("model", ""),
    }
    writes: list[bytes | Gate | Cut] = []
    for piece in reply.pieces:
        match piece:
            case Raw(data):
                writes.append(data)
            case Gate() | Cut():
                writes.append(piece)
            case _:
                writes += [_chunk(head, choice) for choice in _choices(piece)]
    if any(isinstance(piece, Text | Thought | Call) for piece in reply.pieces):
        writes = [
            _chunk(head, {"delta": {"role": "assistant", "content": ""}, "finish_reason": None}),
            *writes,
            *_ending(reply, request, head),
        ]
    return writes


def whole_body(reply: Reply, request: Json) -> bytes:
    """The same answer as one JSON object."""
    message: Json = {"role": "assistant", "content": "".join(p.text for p in reply.pieces if isinstance(p, Text))}
    for thought in (piece for piece in reply.pieces if isinstance(piece, Thought)):
        message[thought.field] = message.get(thought.field, "") + thought.text
    calls = [piece for piece in reply.pieces if isinstance(piece, Call)]
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(call.fragments)}}
            for call in calls
        ]
    logprobs = [entry for piece in reply.pieces if isinstance(piece, Text) for entry in piece.logprobs]
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": _finish_reason(reply),
        "logprobs": {"content": logprobs} if logprobs else None,
    }
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": request.get("model", ""),
    }
    return _dump({**head, "choices": [choice], "usage": reply.usage}).encode()


def _choices(piece: Text | Thought | Call) -> list[Json]:
    match piece:
        case Text(text, logprobs):
            return [
                {
                    "delta": {"content": text},
                    "logprobs": {"content": list(logprobs)} if logprobs else None,
                    "finish_reason": None,
                }
            ]
        case Thought(text, field):
            return [{"delta": {"content": None, field: text}, "finish_reason": None}]
        case Call(name, fragments, call_id, index):
            opening = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
            # DashScope repeats the keys with empty values; only the first chunk names the call.
            rest = [
                {"index": index, "id": "", "function": {"name": None, "arguments": fragment}} for fragment in fragments
            ]
            return [
                {"delta": {"content": None, "tool_calls": [entry]}, "finish_reason": None} for entry in (opening, *rest)
            ]


def _ending(reply: Reply, request: Json, head: Json) -> list[bytes]:
    ending: list[bytes] = []
    reason = _finish_reason(reply)
    if reason is not None:
        ending.append(_chunk(head, {"delta": {"content": ""}, "finish_reason": reason}))
    options: Json = request.get("stream_options") or {}
    if reply.usage is not None and options.get("include_usage"):
        ending.append(f"data: {_dump({**head, 'choices': [], 'usage': reply.usage})}\n\n".encode())
    if reply.done:
        ending.append(b"data: [DONE]\n\n")
    return ending


def _finish_reason(reply: Reply) -> str | None:
    if reply.finish_reason != "auto":
        return reply.finish_reason
    return "tool_calls" if any(isinstance(piece, Call) for piece in reply.pieces) else "stop"


def _chunk(head: Json, choice: Json) -> bytes:
    return f"data: {_dump({**head, 'choices': [{'index': 0, **choice}], 'usage': None})}\n\n".encode()


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
