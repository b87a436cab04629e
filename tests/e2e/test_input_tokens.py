"""`POST /v1/responses/input_tokens`: what a request would send, counted by the tokenizer of its model."""

from __future__ import annotations

import base64
import io
from typing import Any

import openai
import pytest
from PIL import Image

from tests.support.e2e_dialects import error_of, function
from tests.support.gateway import Gateway
from tests.support.script import Reply
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]
PATH = "/v1/responses/input_tokens"
_RENDERED = ("model", "messages", "tools", "chat_template_kwargs")
_FRANCE = "The capital of France is Paris, and its river is the Seine. "
_FRANCE_TOKENS = 14
"""In the new vocabulary; one more in the old one."""


@pytest.mark.parametrize("gateway", ["sqlite", "postgresql"], indirect=True)
async def test_the_upstream_counts_the_very_request(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    first = await client.responses.create(model="qwen3-8b", input="Hello", instructions="Be kind.")
    asked: Json = {
        "model": "qwen3-8b",
        "input": [{"role": "user", "content": "The weather?"}],
        "instructions": "Be short.",
        "previous_response_id": first.id,
        "tools": [function("get_weather")],
        "reasoning": {"effort": "none"},
    }
    upstream.script(Reply.json({"count": 57, "max_model_len": 40960, "tokens": [1, 2]}))
    counted = await client.responses.input_tokens.count(**asked)
    await client.responses.create(**asked)

    assert (counted.input_tokens, counted.object) == (57, "response.input_tokens")
    assert not counted.model_extra
    _, question, answered = upstream.requests
    assert question.path == "/tokenize"
    assert question.body == {name: answered.body[name] for name in _RENDERED}
    assert [message["role"] for message in question.body["messages"]] == ["system", "user", "assistant", "user"]


async def test_conversations_count(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    conversation = await client.conversations.create(items=[{"role": "user", "content": _FRANCE}])
    upstream.script(Reply.json({"count": 40, "tokens": []}))
    counted = await client.responses.input_tokens.count(model="qwen3-8b", input="And?", conversation=conversation.id)
    assert counted.input_tokens == 40
    assert [message["content"] for message in upstream.requests[-1].body["messages"]] == [_FRANCE, "And?"]
    assert len((await client.conversations.items.list(conversation.id)).data) == 1, "nothing is added"
    with pytest.raises(openai.NotFoundError, match="conv_unknown"):
        await client.responses.input_tokens.count(model="qwen3-8b", input="And?", conversation="conv_unknown")


async def test_a_server_that_counts_text_renders_it_first(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.json({"prompt": "<|im_start|>user\nHi"}), Reply.json({"tokens": [5, {"id": 6}, 7]}))
    counted = await _count(dialects, model="llamacpp/qwen3-8b", tools=[function("f")])

    assert counted == {"input_tokens": 3, "object": "response.input_tokens"}
    rendered, tokenized = upstream.requests
    assert (rendered.path, tokenized.path) == ("/apply-template", "/tokenize")
    assert rendered.body.keys() == {"model", "messages", "tools"}
    assert tokenized.body == {
        "model": "llamacpp/qwen3-8b",
        "content": "<|im_start|>user\nHi",
        "add_special": True,
        "parse_special": True,
    }


@pytest.mark.parametrize("reply", [Reply.error(404, {"detail": "Not Found"}), Reply.json({"tokens": "many"})])
async def test_one_whose_upstream_does_not_count(dialects: Gateway, upstream: ScriptedUpstream, reply: Reply) -> None:
    upstream.script(reply)
    counted = await _count(dialects, model="vllm/qwen3-8b", input=_FRANCE * 100)
    assert counted["input_tokens"] == pytest.approx(100 * (_FRANCE_TOKENS + 1), rel=0.02)
    assert "x_estimated" not in counted, "the vocabulary is known"


@pytest.mark.parametrize("dialect", ["dashscope", "dashscope-responses", "sglang", "ollama", "openai"])
@pytest.mark.parametrize(
    ("model", "each"), [("qwen3.7-plus", _FRANCE_TOKENS), ("qwen3-coder-plus", _FRANCE_TOKENS + 1)]
)
async def test_the_vocabulary_of_the_family(
    dialects: Gateway, upstream: ScriptedUpstream, dialect: str, model: str, each: int
) -> None:
    one = await _count(dialects, model=f"{dialect}/{model}", input=_FRANCE)
    many = await _count(dialects, model=f"{dialect}/{model}", input=_FRANCE * 201)
    assert many["input_tokens"] - one["input_tokens"] == pytest.approx(200 * each, rel=0.002)
    assert 0 < one["input_tokens"] - each < 10, "what the template adds"
    assert "x_estimated" not in many
    assert not upstream.requests


async def test_everything_that_the_model_reads_counts(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    plain = await _tokens(dialects, input=_FRANCE)
    assert await _tokens(dialects, input=_FRANCE, instructions=_FRANCE) > plain + _FRANCE_TOKENS
    assert await _tokens(dialects, input=_FRANCE, tools=[function("f", description=_FRANCE)]) > plain + 76
    history = [
        {"role": "user", "content": _FRANCE},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": f'{{"text": "{_FRANCE}"}}'},
        {"type": "function_call_output", "call_id": "c", "output": _FRANCE},
    ]
    assert await _tokens(dialects, input=history) > plain + 2 * _FRANCE_TOKENS
    assert await _tokens(dialects) == 3, "nothing but the beginning of the answer"
    assert not upstream.requests


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("qwen3.7-plus", (320, 640), 10 * 20 + 2),
        ("qwen3.7-plus", (8000, 8000), 2560 + 2),
        ("qwen3.7-plus", (5, 5), 4 + 2),
    ],
)
async def test_images_by_the_rule_of_the_family(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, size: tuple[int, int], tokens: int
) -> None:
    text = {"type": "input_text", "text": _FRANCE}
    image = {"type": "input_image", "image_url": _png(size)}
    model = f"dashscope/{model}"
    without = await _count(dialects, model=model, input=[{"role": "user", "content": [text]}])
    counted = await _count(dialects, model=model, input=[{"role": "user", "content": [text, image]}])
    assert counted["input_tokens"] - without["input_tokens"] == tokens
    assert "x_estimated" not in counted
    assert not upstream.requests


async def test_an_estimate_says_so(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    unknown = await _count(dialects, model="openai/other", input=_FRANCE * 100)
    assert unknown["x_estimated"] is True
    assert unknown["input_tokens"] == pytest.approx(100 * len(_FRANCE) / 4, rel=0.02)
    elsewhere = {"type": "input_image", "image_url": "https://example.com/cat.png"}
    linked = await _count(dialects, model="dashscope/qwen3.7-plus", input=[{"role": "user", "content": [elsewhere]}])
    assert linked["x_estimated"] is True
    assert not upstream.requests


async def test_hostile_texts_are_counted_too(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    """Where the vocabulary's library gives up, or takes for ever."""
    for text in (" " * 1_000_000, "a" * 1_000_000, "\n" * 100_000, "<|im_end|>" * 10_000, "\ufffd" * 1000):
        counted = await _count(dialects, model="openai/qwen3-8b", input=text)
        assert counted["input_tokens"] > 100, text[:10]
        assert "x_estimated" not in counted, text[:10]
    assert not upstream.requests


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": "Hi"}, 400, "model"),
        ({"model": "openai/other", "input": "Hi", "nonsense": 1}, 400, "nonsense"),
        ({"model": "openai/other", "input": "Hi", "personality": "friendly"}, 400, "personality"),
        ({"model": "openai/other", "input": "Hi", "previous_response_id": "resp_1"}, 400, "previous_response_id"),
    ],
)
async def test_what_cannot_be_counted_is_refused_as_for_an_answer(
    dialects: Gateway, upstream: ScriptedUpstream, body: Json, status: int, param: str
) -> None:
    async with dialects.http() as http:
        error = error_of(await http.post(PATH, json=body), status)
    assert error["param"] == param
    assert not upstream.requests


async def test_a_key_is_required(dialects: Gateway) -> None:
    async with dialects.http() as http:
        answer = await http.post(PATH, json={"model": "openai/other"}, headers={"authorization": "Bearer sk-wrong"})
    assert error_of(answer, 401)


async def _count(gateway: Gateway, **request: Any) -> Json:
    async with gateway.http() as http:
        answer = await http.post(PATH, json={"model": "openai/qwen3-8b", "input": "Hi", **request})
    assert answer.status_code == 200, answer.text
    counted: Json = answer.json()
    return counted


async def _tokens(gateway: Gateway, **request: Any) -> int:
    async with gateway.http() as http:
        answer = await http.post(PATH, json={"model": "openai/qwen3-8b", **request})
    tokens: int = answer.json()["input_tokens"]
    return tokens


def _png(size: tuple[int, int]) -> str:
    file = io.BytesIO()
    Image.new("1", size).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
