"""What is written to the vendor's Responses face."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from app.protocol.messages import (
    Assistant,
    Call,
    FilePart,
    FunctionTool,
    ImagePart,
    Message,
    TextPart,
    ToolResult,
    User,
)
from app.providers.base import ForcedCall, JsonObject, ModelCall, Sampling, Thinking
from app.providers.responses.encode import encode_call, encode_messages

Json = dict[str, Any]

WEATHER = FunctionTool(
    "get_weather", "The weather", msgspec.Raw(b'{"type":"object","properties":{"city":{"type":"string"}}}'), strict=True
)
WEATHER_WIRE: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TIME = FunctionTool("time")
TIME_WIRE: Json = {"type": "function", "name": "time", "parameters": {"type": "object", "properties": {}}}


def written(**fields: Any) -> Json:
    return json.loads(encode_call(ModelCall(model="qwen3.7-plus", messages=[User("Hi")], **fields)))


def items(*messages: Message, reasoning: bool = False) -> list[Json]:
    return json.loads(b"[" + encode_messages(messages, reasoning=reasoning) + b"]")


def said_call(call_id: str) -> Json:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"}


def said_result(call_id: str) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": f"result of {call_id}"}


def test_the_least_request() -> None:
    assert written() == {
        "model": "qwen3.7-plus",
        "input": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "store": False,
    }


def test_the_most_request_sends_only_what_this_face_reads() -> None:
    sampling = Sampling(
        0.5, 0.9, 100, presence_penalty=1, frequency_penalty=1, repetition_penalty=1, top_k=1, seed=1, top_logprobs=1
    )

    body = written(
        system="Be brief.",
        tools=[WEATHER, TIME],
        parallel_tool_calls=False,
        format=JsonObject(),
        sampling=sampling,
        thinking=Thinking(enabled=True, effort="high", budget=100),
        stream=False,
        user="u",
        prompt_cache_key="k",
    )

    assert body == {
        "model": "qwen3.7-plus",
        "instructions": "Be brief.",
        "input": [{"role": "user", "content": "Hi"}],
        "tools": [WEATHER_WIRE, TIME_WIRE],
        "enable_thinking": True,
        "reasoning": {"effort": "high"},
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 100,
        "stream": True,
        "store": False,
    }


@pytest.mark.parametrize(
    ("thinking", "sent"),
    [
        (Thinking(), {}),
        (Thinking(enabled=True), {"enable_thinking": True}),
        (Thinking(enabled=False), {"enable_thinking": False, "reasoning": {"effort": "none"}}),
        (Thinking(effort="low"), {"reasoning": {"effort": "low"}}),
    ],
)
def test_thinking_is_switched_both_ways(thinking: Thinking, sent: Json) -> None:
    body = written(thinking=thinking)

    assert {name: body[name] for name in ("enable_thinking", "reasoning") if name in body} == sent


@pytest.mark.parametrize(
    ("forced", "offered"), [(ForcedCall("time"), [TIME_WIRE]), (ForcedCall("get_weather"), [WEATHER_WIRE])]
)
def test_a_function_is_forced_by_offering_no_other(forced: ForcedCall, offered: Sequence[Json]) -> None:
    body = written(tools=[WEATHER, TIME], forced_call=forced)

    assert (body["tools"], body["tool_choice"]) == (offered, "required")


def test_parts_of_a_user_message() -> None:
    parts = (
        TextPart("Look"),
        ImagePart("data:image/png;base64,AA==", "high"),
        FilePart(file_url="https://example.com/a.pdf"),
    )

    assert items(User(parts)) == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
                {"type": "input_file", "file_url": "https://example.com/a.pdf"},
            ],
        }
    ]


def test_reasoning_goes_before_what_it_led_to_and_only_when_wanted() -> None:
    turn = Assistant("Let me see.", reasoning="The weather, then.", calls=(Call("a", "f", "{}"),))
    spoken = [{"role": "assistant", "content": "Let me see."}, said_call("a")]

    first, *rest = items(turn, reasoning=True)
    assert items(turn) == rest == spoken
    assert (first["type"], first["summary"]) == ("reasoning", [{"type": "summary_text", "text": "The weather, then."}])
    assert first["id"]
    assert items(turn, reasoning=True)[0] == first, "the same bytes each time, for the prompt cache"


def test_every_result_directly_follows_its_call() -> None:
    turn = Assistant("", calls=(Call("a", "f", "{}"), Call("b", "f", "{}")))

    encoded = items(turn, ToolResult("b", "result of b"), ToolResult("a", "result of a"), User("Go on"))

    assert encoded == [
        said_call("a"),
        said_result("a"),
        said_call("b"),
        said_result("b"),
        {"role": "user", "content": "Go on"},
    ]


def test_results_find_their_calls_in_the_prefix() -> None:
    prefix = encode_messages(
        [User("Hi"), Assistant("", calls=(Call("a", "f", "{}"), Call("b", "f", "{}")))], reasoning=False
    )
    results = (ToolResult("a", "result of a"), ToolResult("b", "result of b"))

    body = json.loads(encode_call(ModelCall(model="m", prefix=prefix, messages=[*results, User("Go on")])))

    assert body["input"] == [
        {"role": "user", "content": "Hi"},
        said_call("a"),
        said_result("a"),
        said_call("b"),
        said_result("b"),
        {"role": "user", "content": "Go on"},
    ]


def test_the_prefix_goes_before_the_messages_as_it_is() -> None:
    prefix = b'{"role":"user","content":"Earlier"},{"role":"assistant","content":"Yes?"}'

    body = encode_call(ModelCall(model="m", prefix=prefix, messages=[User("Hi")]))

    assert prefix + b',{"role":"user","content":"Hi"}' in body
