"""What Ollama is sent."""

from __future__ import annotations

import msgspec
import pytest

from app.protocol.deltas import CallArguments, CallOpened, TurnFinished
from app.protocol.messages import Assistant
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import Effort, JsonSchema, ModelCall, Sampling, Thinking
from app.providers.ollama import PROVIDER
from tests.providers.chat_upstream import HELLO, ask, encoded, parameters, provider
from tests.support.script import Call, Reply
from tests.support.upstream import ScriptedUpstream


@pytest.mark.parametrize(
    ("effort", "said"),
    [
        ("none", "none"),
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "high"),
        ("max", "high"),
    ],
)
async def test_levels_every_version_knows(upstream: ScriptedUpstream, effort: Effort, said: str) -> None:
    call = ModelCall(model="qwen3:8b", messages=HELLO, thinking=Thinking(effort=effort))

    assert await parameters(PROVIDER, upstream, call) == {"reasoning_effort": said}


@pytest.mark.parametrize(
    ("model", "thinking", "said"),
    [
        ("qwen3:8b", Thinking(), {}),
        ("qwen3:8b", Thinking(enabled=True), {"reasoning_effort": "medium"}),
        ("qwen3:8b", Thinking(enabled=False), {"reasoning_effort": "none"}),
        ("qwen2.5:7b", Thinking(enabled=True), {}),
    ],
)
async def test_thinking_on_and_off(
    upstream: ScriptedUpstream, model: str, thinking: Thinking, said: dict[str, str]
) -> None:
    assert await parameters(PROVIDER, upstream, ModelCall(model=model, messages=HELLO, thinking=thinking)) == said


async def test_other_parameters(upstream: ScriptedUpstream) -> None:
    """What it would ignore is not sent."""
    sampling = Sampling(temperature=1.5, top_k=5, repetition_penalty=1.1)
    call = ModelCall(model="m", messages=HELLO, sampling=sampling, format=JsonSchema("s", msgspec.Raw(b"{}")), user="u")

    assert await parameters(PROVIDER, upstream, call) == {
        "temperature": 1.5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}},
    }


async def test_a_call_in_one_chunk(upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Call("f", ['{"a":1}'], id="call_x")], finish_reason="stop"))

    assert await ask(PROVIDER, upstream, ModelCall(model="m", messages=HELLO)) == [
        CallOpened(0, "call_x", "f"),
        CallArguments(0, '{"a":1}'),
        TokenUsage(9, 4, 13),
        TurnFinished("tool_calls"),
    ]


def test_it_cannot_force_a_call() -> None:
    assert provider(PROVIDER, "http://127.0.0.1:11434/v1").capabilities("qwen3:8b").forced_calls == frozenset()


def test_thinking_in_the_history() -> None:
    assert encoded(PROVIDER, Assistant("Hi.", "Hm.")) == [{"role": "assistant", "content": "Hi.", "reasoning": "Hm."}]
