"""Plain answers."""

from __future__ import annotations

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseInputParam
from pydantic import BaseModel

from app.protocol.wire import ids
from tests.e2e.streams import MODEL, sent
from tests.support.gateway import Gateway
from tests.support.judge import judge_response
from tests.support.script import Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


async def test_a_string_is_answered(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    response = await client.responses.create(model=MODEL, input="Hi")

    assert response.output_text == "Hello there."
    assert (response.object, response.status, response.model) == ("response", "completed", MODEL)
    assert response.id == ids.normalize_response_id(response.id)
    assert response.id[14] == "7"
    assert response.completed_at is not None
    assert response.completed_at >= response.created_at
    assert sent(upstream) == [{"role": "user", "content": "Hi"}]


async def test_the_object_has_every_field(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.http() as http:
        body = (await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"})).json()

    judge_response(body)
    assert len(upstream.requests) == 1


async def test_what_was_read_is_what_was_answered(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Sunny \u2028 \U0001f31e")]))
    async with gateway.http() as http:
        made = await http.post("/v1/responses", json={"model": MODEL, "input": "Hi", "metadata": {"trip": "罗马"}})
        read = await http.get(f"/v1/responses/{made.json()['id']}")

    assert read.content == made.content
    assert [item["type"] for item in made.json()["output"]] == ["reasoning", "message"]


async def test_items_of_all_roles_become_one_system_message_and_the_rest_in_order(
    client: openai.AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    items: ResponseInputParam = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be kind."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Three"}]},
    ]

    await client.responses.create(model=MODEL, instructions="Be exact.", input=items)

    assert sent(upstream) == [
        {"role": "system", "content": "Be exact.\n\nBe brief.\n\nBe kind."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three"},
    ]


async def test_instructions_are_echoed_and_not_inherited(
    client: openai.AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    first = await client.responses.create(model=MODEL, instructions="Rhyme.", input="One")
    second = await client.responses.create(model=MODEL, input="Two", previous_response_id=first.id)

    assert (first.instructions, second.instructions) == ("Rhyme.", None)
    assert upstream.requests[0].body["messages"][0] == {"role": "system", "content": "Rhyme."}
    assert [message["role"] for message in sent(upstream)] == ["user", "assistant", "user"]


async def test_an_image_reaches_the_upstream_and_the_next_turn(
    client: openai.AsyncOpenAI, upstream: ScriptedUpstream
) -> None:
    image: ResponseInputParam = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": PIXEL, "detail": "high"},
            ],
        }
    ]
    first = await client.responses.create(model="qwen3.7-plus", input=image)
    await client.responses.create(model="qwen3.7-plus", input="Sure?", previous_response_id=first.id)

    shown = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "high"}}
    assert sent(upstream)[0]["content"] == [{"type": "text", "text": "What is it?"}, shown]


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_exact(client: openai.AsyncOpenAI, upstream: ScriptedUpstream, stream: bool) -> None:
    usage = {
        "prompt_tokens": 1234,
        "completion_tokens": 56,
        "total_tokens": 1290,
        "prompt_tokens_details": {"cached_tokens": 1024},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Yes")], usage=usage))

    if stream:
        async with client.responses.stream(model=MODEL, input="Hi") as events:
            response: Response = await events.get_final_response()
    else:
        response = await client.responses.create(model=MODEL, input="Hi")

    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (1234, 56, 1290)
    assert response.usage.input_tokens_details.cached_tokens == 1024
    assert response.usage.output_tokens_details.reasoning_tokens == 40


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_never_invented(gateway: Gateway, upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.script(Reply(pieces=[Text("Yes")], usage=None))
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json={"model": MODEL, "input": "Hi", "stream": stream})

    assert '"usage":null' in answer.text.splitlines()[-2 if stream else -1]
    assert '"status":"completed"' in answer.text


async def test_settings_are_echoed_and_sent(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    response = await client.responses.create(
        model=MODEL,
        input="Hi",
        temperature=0.25,
        top_p=0.5,
        max_output_tokens=99,
        metadata={"a": "b"},
        prompt_cache_key="c",
        safety_identifier="d",
        truncation="auto",
        extra_body={"top_k": 7, "seed": 3, "enable_thinking": False, "presence_penalty": 0.5},
    )

    assert (response.temperature, response.top_p, response.max_output_tokens) == (0.25, 0.5, 99)
    assert (response.metadata, response.prompt_cache_key, response.safety_identifier) == ({"a": "b"}, "c", "d")
    assert response.truncation == "auto"
    body = upstream.requests[0].body
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["top_k"], body["seed"]) == (
        0.25,
        0.5,
        99,
        7,
        3,
    )
    assert body["presence_penalty"] == 0.5
    assert body["chat_template_kwargs"]["enable_thinking"] is False


async def test_parse(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    class City(BaseModel):
        name: str
        people: int

    upstream.script(Reply.say('{"name":"Rome",', '"people":2800000}'))

    response = await client.responses.parse(model=MODEL, input="The largest city of Italy?", text_format=City)

    assert response.output_parsed == City(name="Rome", people=2_800_000)
    assert upstream.requests[0].body["response_format"]["json_schema"]["schema"]["required"] == ["name", "people"]


def test_the_synchronous_client(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    with gateway.sync_client() as client:
        made = client.responses.create(model=MODEL, input="Hi")
        with client.responses.stream(model=MODEL, input="More", previous_response_id=made.id) as stream:
            deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
            final = stream.get_final_response()

        assert client.responses.retrieve(final.id).output_text == "".join(deltas) == "Hello there."
        client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(made.id)
    assert len(upstream.requests) == 2


async def test_an_answer_that_was_cut_is_incomplete(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Text("Once upon")], finish_reason="length"))

    response = await client.responses.create(model=MODEL, input="Hi", max_output_tokens=16)

    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert (await client.responses.retrieve(response.id)).status == "incomplete"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_first_byte_is_an_http_status_and_nothing_is_stored(
    gateway: Gateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    upstream.script(
        Reply.error(400, {"error": {"message": "the prompt is too long", "code": "context_length_exceeded"}})
    )
    async with gateway.http() as http:
        before = await _stored(http)
        answer = await http.post("/v1/responses", json={"model": MODEL, "input": "Hi", "stream": stream})

        assert answer.status_code == 400
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert await _stored(http) == before


async def _stored(http: httpx.AsyncClient) -> list[str]:
    """The counters of ended responses."""
    text = (await http.get("/metrics")).text
    return [line for line in text.splitlines() if line.startswith("gateway_responses_total")]
