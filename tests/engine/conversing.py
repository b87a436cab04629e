"""Items as clients write them, and the messages they become."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from app.engine.conversation.context import Context
from app.engine.conversation.function_names import upstream_name
from app.engine.conversation.transcript import Transcript
from app.protocol.messages import Call, Message
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.requests import parse_item

Json = dict[str, Any]

USER: Json = {"role": "user", "content": "hi"}
IMAGE = "data:image/png;base64,AAAA"


def call(call_id: str = "c1", **more: Any) -> Json:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": '{"a": 1}', **more}


def output(call_id: str = "c1", result: Any = "42", **more: Any) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": result, **more}


def said(text: str, **more: Any) -> Json:
    return {"role": "assistant", "content": text, **more}


def opened(call_id: str = "c1", name: str = "f", arguments: str = '{"a": 1}') -> Call:
    return Call(call_id, name, arguments)


def unseal(blob: str) -> str | None:
    return blob.removeprefix("ours:") if blob.startswith("ours:") else None


def transcribe(*items: Json, context: Context | None = None) -> Transcript:
    """The transcript of a request with these input items."""
    transcript = Transcript(context or Context(), upstream_name, unseal)
    transcript.add(
        (f"input[{i}]", parse_item(msgspec.Raw(json.dumps(item).encode()), f"input[{i}]"))
        for i, item in enumerate(items)
    )
    transcript.close()
    return transcript


def after(transcript: Transcript, *output: Json, cut: bool = False) -> Context:
    """The context of the next request, when the response to this one brought these items."""
    transcript.add([("", parse_item(msgspec.Raw(json.dumps(item).encode()), "")) for item in output])
    transcript.end_turn(cut=cut)
    return Context(tail=tuple(transcript.messages), known=transcript.known, cut=transcript.cut)


def messages(*items: Json, context: Context | None = None) -> list[Message]:
    return transcribe(*items, context=context).messages


def refusal(*items: Json, context: Context | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        transcribe(*items, context=context)
    return raised.value
