"""What vLLM is sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.protocol.deltas import Reasoning, Text, TurnFinished
from app.protocol.messages import Assistant, FunctionTool
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import ForcedCall, JsonSchema, ModelCall, Sampling, Thinking
from app.providers.vllm import PROVIDER
from tests.providers.chat_upstream import HELLO, ask, encoded, parameters, provider
from tests.support import script
from tests.support.script import Reply
from tests.support.upstream import ScriptedUpstream


@pytest.mark.parametrize(
    ("model", "thinking", "switches"),
    [
        ("Qwen/Qwen3-8B", Thinking(), None),
        ("Qwen/Qwen3-8B", Thinking(enabled=False), {"enable_thinking": False}),
        ("Qwen/Qwen3-8B", Thinking(effort="high"), {"enable_thinking": True}),
        ("Qwen/Qwen3.6-27B", Thinking(), {"preserve_thinking": True}),
        ("Qwen/Qwen3.6-27B", Thinking(enabled=True), {"enable_thinking": True, "preserve_thinking": True}),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", Thinking(enabled=True), None),
    ],
)
async def test_thinking_is_said_to_the_template(
    upstream: ScriptedUpstream, model: str, thinking: Thinking, switches: dict[str, Any] | None
) -> None:
    said = await parameters(PROVIDER, upstream, ModelCall(model=model, messages=HELLO, thinking=thinking))

    assert said == ({} if switches is None else {"chat_template_kwargs": switches})


async def test_everything_else(upstream: ScriptedUpstream) -> None:
    call = ModelCall(
        model="m",
        messages=HELLO,
        tools=[FunctionTool("f", strict=True)],
        forced_call=ForcedCall("f"),
        format=JsonSchema("s", msgspec.Raw(b"{}"), "A thing."),
        sampling=Sampling(top_k=5, min_p=0.1, repetition_penalty=1.1, frequency_penalty=0.5, max_output_tokens=9),
        user="u",
        prompt_cache_key="k",
    )

    assert await parameters(PROVIDER, upstream, call) == {
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.5,
        "max_tokens": 9,
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": True,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "s", "description": "A thing.", "schema": {}},
        },
        "user": "u",
    }


def test_thinking_in_the_history() -> None:
    assert encoded(PROVIDER, Assistant("Hi.", "Hm.")) == [{"role": "assistant", "content": "Hi.", "reasoning": "Hm."}]


@pytest.mark.parametrize("stream", [True, False])
async def test_its_answer(upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.script(Reply(pieces=[script.Thought("Hm.", "reasoning"), script.Text("Hi.")]))

    deltas = await ask(PROVIDER, upstream, ModelCall(model="m", messages=HELLO, stream=stream))

    assert upstream.requests[-1].body["stream"] is stream
    assert deltas == [Reasoning("Hm."), Text("Hi."), TokenUsage(9, 4, 13), TurnFinished("stop")]


def test_what_it_can_do() -> None:
    can = provider(PROVIDER, "http://127.0.0.1:9/v1").capabilities("Qwen/Qwen3-8B")

    assert can.forced_calls == {"named", "required"}
    assert can.forced_calls_while_thinking
    assert can.formats == {"json_object", "json_schema"}
    assert not can.reasoning_field
    assert (can.thinks, can.can_think, can.can_stop_thinking, can.images) == (True, True, True, False)
