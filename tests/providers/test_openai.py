"""What a server nobody knows more about is sent: OpenAI's parameters, and no others."""

from __future__ import annotations

import pytest

from app.protocol.messages import Assistant, FilePart, ImagePart, User
from app.providers.base import ModelCall, Sampling, Thinking, UpstreamError
from app.providers.openai import PROVIDER
from tests.providers.chat_upstream import HELLO, encoded, parameters, provider
from tests.support.upstream import ScriptedUpstream


@pytest.mark.parametrize(
    ("thinking", "said"),
    [
        (Thinking(), {}),
        (Thinking(enabled=True), {"reasoning_effort": "medium"}),
        (Thinking(enabled=True, budget=1000), {"reasoning_effort": "minimal"}),
        (Thinking(budget=20_000), {"reasoning_effort": "high"}),
        (Thinking(budget=10**6), {"reasoning_effort": "max"}),
        (Thinking(enabled=False), {"reasoning_effort": "none"}),
        (Thinking(effort="xhigh", budget=9), {"reasoning_effort": "xhigh"}),
    ],
)
async def test_thinking(upstream: ScriptedUpstream, thinking: Thinking, said: dict[str, str]) -> None:
    assert await parameters(PROVIDER, upstream, ModelCall(model="m", messages=HELLO, thinking=thinking)) == said


async def test_a_family_that_names_its_efforts(upstream: ScriptedUpstream) -> None:
    call = ModelCall(model="qwen3.8-max", messages=HELLO, thinking=Thinking(effort="minimal"))

    assert await parameters(PROVIDER, upstream, call) == {"reasoning_effort": "low"}


async def test_other_parameters(upstream: ScriptedUpstream) -> None:
    sampling = Sampling(top_k=5, min_p=0.1, repetition_penalty=1.1, max_output_tokens=9, top_logprobs=0)
    call = ModelCall(model="m", messages=HELLO, sampling=sampling, user="u", prompt_cache_key="k")

    assert await parameters(PROVIDER, upstream, call) == {
        "max_completion_tokens": 9,
        "logprobs": True,
        "top_logprobs": 0,
        "user": "u",
        "prompt_cache_key": "k",
    }


def test_thinking_has_no_place_in_the_history() -> None:
    assert encoded(PROVIDER, Assistant("Hi.", "Hm.")) == [{"role": "assistant", "content": "Hi."}]


def test_images_and_files() -> None:
    parts = (
        ImagePart("https://example.com/a.png", "low"),
        FilePart("a.pdf", file_data="data:application/pdf;base64,AA=="),
    )

    assert encoded(PROVIDER, User(parts))[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
    ]


def test_a_file_by_url_is_refused() -> None:
    with pytest.raises(UpstreamError, match="files by URL") as caught:
        encoded(PROVIDER, User((FilePart(file_url="https://example.com/a.pdf"),)))

    assert (caught.value.status, caught.value.code) == (400, "unsupported_file")


def test_an_unknown_model_is_taken_for_able() -> None:
    can = provider(PROVIDER, "http://127.0.0.1:9/v1").capabilities("somebody-elses")

    assert (can.thinks, can.can_think, can.can_stop_thinking, can.context_window) == (None, None, True, None)
    assert can.images
    assert can.files
