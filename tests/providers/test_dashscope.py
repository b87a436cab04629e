"""What DashScope is sent: each rule here is one its documentation or its error messages state."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.protocol.deltas import Reasoning, Text, TurnFinished
from app.protocol.messages import Assistant, Call, FilePart, FunctionTool, ImagePart, TextPart, ToolResult, User
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import ForcedCall, JsonObject, JsonSchema, ModelCall, Sampling, Thinking, UpstreamError
from app.providers.dashscope import PROVIDER
from tests.providers.chat_upstream import HELLO, ask, encoded, parameters, provider, sample, sent
from tests.support.script import Raw, Reply
from tests.support.upstream import ScriptedUpstream

SCHEMA = JsonSchema("answer", msgspec.Raw(b'{"type":"object"}'), strict=True)
TOOL = FunctionTool("f", "Does f.", strict=True)


@pytest.mark.parametrize(
    ("model", "thinking", "said"),
    [
        ("qwen-plus", Thinking(), {}),
        ("qwen-plus", Thinking(enabled=False), {"enable_thinking": False}),
        ("qwen-plus", Thinking(effort="none"), {"enable_thinking": False}),
        ("qwen-plus", Thinking(enabled=True), {"enable_thinking": True}),
        ("qwen-plus", Thinking(effort="low"), {"enable_thinking": True, "thinking_budget": 4096}),
        ("qwen-plus", Thinking(effort="max"), {"enable_thinking": True, "thinking_budget": 38_912}),
        ("qwen-plus", Thinking(enabled=True, budget=100_000), {"enable_thinking": True, "thinking_budget": 38_912}),
        ("qwen3.7-max", Thinking(), {"preserve_thinking": True}),
        ("qwen3.7-max", Thinking(enabled=False), {"enable_thinking": False}),
        (
            "qwen3.7-max",
            Thinking(effort="xhigh"),
            {"preserve_thinking": True, "enable_thinking": True, "thinking_budget": 65_536},
        ),
        (
            "qwen3.8-max",
            Thinking(effort="minimal", budget=1024),
            {"preserve_thinking": True, "enable_thinking": True, "reasoning_effort": "low"},
        ),
        ("qwen3.8-max", Thinking(effort="none"), {"enable_thinking": False}),
        ("qwen3-235b-a22b-thinking-2507", Thinking(enabled=False), {}),
        (
            "qwen3-235b-a22b-thinking-2507",
            Thinking(effort="minimal"),
            {"enable_thinking": True, "thinking_budget": 1024},
        ),
        ("qwen3-coder-plus", Thinking(effort="high"), {}),
        ("somebody-elses", Thinking(effort="high"), {"enable_thinking": True}),
    ],
)
async def test_thinking(upstream: ScriptedUpstream, model: str, thinking: Thinking, said: dict[str, Any]) -> None:
    assert await parameters(PROVIDER, upstream, ModelCall(model=model, messages=HELLO, thinking=thinking)) == said


async def test_a_plain_answer_is_streamed_too(upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Raw(sample("dashscope-thinking.sse"))]))

    deltas = await ask(PROVIDER, upstream, ModelCall(model="qwen3.7-plus", messages=HELLO, stream=False))

    assert upstream.requests[-1].body["stream"] is True
    assert deltas == [
        Reasoning("The user"),
        Reasoning(" greets."),
        Text("你好"),
        Text("!"),
        TokenUsage(1200, 9, 1209, cached_tokens=256, cache_write_tokens=512, reasoning_tokens=5),
        TurnFinished("stop"),
    ]


async def test_sampling(upstream: ScriptedUpstream) -> None:
    everything = Sampling(
        temperature=0.0,
        top_p=0.9,
        max_output_tokens=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        repetition_penalty=1.05,
        top_k=20,
        seed=1,
        top_logprobs=2,
    )

    assert await parameters(
        PROVIDER, upstream, ModelCall(model="qwen-plus", messages=HELLO, sampling=everything, user="u")
    ) == {
        "temperature": 0.0,
        "top_p": 0.9,
        "max_tokens": 7,
        "presence_penalty": 0.1,
        "repetition_penalty": 1.05,
        "top_k": 20,
        "seed": 1,
        "logprobs": True,
        "top_logprobs": 2,
    }


async def test_functions(upstream: ScriptedUpstream) -> None:
    """No `strict`, which it does not document."""
    call = ModelCall(
        model="qwen-plus", messages=HELLO, tools=[TOOL], forced_call=ForcedCall("f"), parallel_tool_calls=False
    )

    assert await parameters(PROVIDER, upstream, call) == {
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "description": "Does f.", "parameters": {"type": "object", "properties": {}}},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
    }


async def test_a_schema_where_it_is_enforced(upstream: ScriptedUpstream) -> None:
    body = await sent(
        PROVIDER,
        upstream,
        ModelCall(model="qwen3.7-plus", messages=HELLO, format=SCHEMA, thinking=Thinking(enabled=False)),
    )

    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
    }
    assert body["messages"] == [{"role": "user", "content": "Hello"}]


async def test_a_schema_where_only_json_is_enforced(upstream: ScriptedUpstream) -> None:
    body = await sent(
        PROVIDER, upstream, ModelCall(model="qwen-plus", system="Be kind.", messages=HELLO, format=SCHEMA)
    )

    assert body["response_format"] == {"type": "json_object"}
    told = 'Be kind.\n\nAnswer with one JSON object that follows this JSON schema: {"type":"object"}'
    assert body["messages"][0] == {"role": "system", "content": told}


@pytest.mark.parametrize(
    ("system", "told"),
    [
        (None, "Answer with one JSON object."),
        ("Be kind.", "Be kind.\n\nAnswer with one JSON object."),
        ("Speak Json.", "Speak Json."),
    ],
)
async def test_the_prompt_speaks_of_json(upstream: ScriptedUpstream, system: str | None, told: str) -> None:
    body = await sent(
        PROVIDER, upstream, ModelCall(model="qwen-plus", system=system, messages=HELLO, format=JsonObject())
    )

    assert body["messages"] == [{"role": "system", "content": told}, {"role": "user", "content": "Hello"}]


def test_a_tool_loop_keeps_its_thinking() -> None:
    turns = (Assistant("", "Hm.", (Call("c1", "f", '{"a":1}'),)), ToolResult("c1", "2"), Assistant("Two."))

    assert encoded(PROVIDER, *turns) == [
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "Hm.",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
        {"role": "assistant", "content": "Two."},
    ]
    assert "reasoning_content" not in encoded(PROVIDER, *turns, reasoning=False)[0]


def test_images_and_files() -> None:
    parts = (
        TextPart("What?"),
        ImagePart("data:image/png;base64,AA=="),
        FilePart("a.pdf", file_data="data:application/pdf;base64,AA=="),
        FilePart(file_url="https://example.com/b.pdf"),
    )

    assert encoded(PROVIDER, User(parts)) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
                {"type": "file", "file": {"file_url": "https://example.com/b.pdf"}},
            ],
        }
    ]


def test_what_its_models_can_do() -> None:
    dashscope = provider(PROVIDER, "https://dashscope.aliyuncs.com/compatible-mode/v1")

    best, plain = dashscope.capabilities("qwen3.8-max"), dashscope.capabilities("qwen-plus")

    assert best.forced_calls == {"named"}
    assert not best.forced_calls_while_thinking
    assert best.formats == {"json_object", "json_schema"}
    assert best.files
    assert best.reasoning_field
    assert plain.formats == {"json_object"}
    assert not plain.files


async def test_a_throttle_inside_a_200_stream(upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Raw(sample("dashscope-throttled.sse"))]))

    with pytest.raises(UpstreamError, match="Allocated quota exceeded") as caught:
        await ask(PROVIDER, upstream, ModelCall(model="qwen-plus", messages=HELLO))

    assert (caught.value.status, caught.value.retryable, caught.value.retry_after) == (429, True, 1)
