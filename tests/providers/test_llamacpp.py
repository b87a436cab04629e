"""What llama.cpp's server is sent, and what a real one answered."""

from __future__ import annotations

from app.protocol.deltas import Text, TurnFinished
from app.protocol.messages import Assistant, FunctionTool
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import ForcedCall, ModelCall, Sampling, Thinking
from app.providers.llamacpp import PROVIDER
from tests.providers.chat_upstream import HELLO, ask, encoded, parameters, provider, sample
from tests.support.script import Raw, Reply
from tests.support.upstream import ScriptedUpstream


async def test_parameters(upstream: ScriptedUpstream) -> None:
    sampling = Sampling(top_k=5, min_p=0.1, repetition_penalty=1.1, max_output_tokens=9)
    call = ModelCall(
        model="Qwen3-8B.gguf", messages=HELLO, sampling=sampling, thinking=Thinking(effort="none"), user="u"
    )

    assert await parameters(PROVIDER, upstream, call) == {
        "top_k": 5,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "max_tokens": 9,
        "chat_template_kwargs": {"enable_thinking": False},
    }


async def test_a_required_call(upstream: ScriptedUpstream) -> None:
    said = await parameters(
        PROVIDER, upstream, ModelCall(model="m", messages=HELLO, tools=[FunctionTool("f")], forced_call=ForcedCall())
    )

    assert said["tool_choice"] == "required"


def test_it_can_only_require() -> None:
    assert provider(PROVIDER, "http://127.0.0.1:9/v1").capabilities("m").forced_calls == {"required"}


def test_thinking_in_the_history() -> None:
    assert encoded(PROVIDER, Assistant("Hi.", "Hm.")) == [
        {"role": "assistant", "content": "Hi.", "reasoning_content": "Hm."}
    ]


async def test_a_recorded_answer(upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Raw(sample("llamacpp-text.sse"))]))

    *texts, usage, finish = await ask(PROVIDER, upstream, ModelCall(model="m", messages=HELLO))

    assert texts == [Text("</"), Text("th"), Text("ink"), Text(">")]
    assert [usage, finish] == [TokenUsage(32, 5, 37, cached_tokens=31), TurnFinished("stop")]
