"""What SGLang is sent."""

from __future__ import annotations

from app.protocol.messages import Assistant
from app.providers.base import ModelCall, Sampling, Thinking
from app.providers.sglang import PROVIDER
from tests.providers.chat_upstream import HELLO, encoded, parameters
from tests.support.upstream import ScriptedUpstream


async def test_parameters(upstream: ScriptedUpstream) -> None:
    sampling = Sampling(top_k=5, min_p=0.1, repetition_penalty=1.1)
    call = ModelCall(
        model="Qwen/Qwen3-8B", messages=HELLO, sampling=sampling, thinking=Thinking(enabled=False), user="u"
    )

    assert await parameters(PROVIDER, upstream, call) == {
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "chat_template_kwargs": {"enable_thinking": False},
        "user": "u",
    }


def test_thinking_in_the_history() -> None:
    assert encoded(PROVIDER, Assistant("Hi.", "Hm.")) == [
        {"role": "assistant", "content": "Hi.", "reasoning_content": "Hm."}
    ]
