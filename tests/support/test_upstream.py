"""The scripted upstream is a Chat Completions server, as the official client sees it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.support.javascript import run_javascript
from tests.support.script import Call, Cut, Gate, Raw, Reply, Text, Thought, sse
from tests.support.upstream import ScriptedUpstream, serving

REPLY = Reply(
    pieces=[
        Thought("Hm", field="reasoning"),
        Text("Sunny,"),
        Text("\u2028I think"),
        Call("weather", ['{"city":', '"Rome"}']),
    ]
)


@pytest.fixture
async def chat(upstream: ScriptedUpstream) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=upstream.url, api_key="unused", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


async def _stream(chat: openai.AsyncOpenAI) -> list[ChatCompletionChunk]:
    stream = await chat.chat.completions.create(
        model="qwen3-8b",
        messages=[{"role": "user", "content": "Hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    return [chunk async for chunk in stream]


async def test_streams_every_piece_in_order(upstream: ScriptedUpstream, chat: openai.AsyncOpenAI) -> None:
    upstream.script(REPLY)

    chunks = await _stream(chat)

    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    assert "".join(delta.content or "" for delta in deltas) == "Sunny,\u2028I think"
    assert "".join((delta.model_extra or {}).get("reasoning") or "" for delta in deltas) == "Hm"
    assert [(call.id, call.function and call.function.arguments) for call in calls] == [
        ("call_1", ""),
        ("", '{"city":'),
        ("", '"Rome"}'),
    ]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "tool_calls"
    assert chunks[-1].usage is not None
    assert upstream.requests[0].headers["authorization"] == "Bearer unused"


async def test_says_the_same_whole(upstream: ScriptedUpstream, chat: openai.AsyncOpenAI) -> None:
    upstream.script(REPLY)

    answer = await chat.chat.completions.create(model="qwen3-8b", messages=[{"role": "user", "content": "Hi"}])

    message = answer.choices[0].message
    assert message.content == "Sunny,\u2028I think"
    assert message.tool_calls
    assert message.tool_calls[0].type == "function"
    assert message.tool_calls[0].function.arguments == '{"city":"Rome"}'


async def test_errors_and_models(upstream: ScriptedUpstream, chat: openai.AsyncOpenAI) -> None:
    upstream.script(Reply.error(429, {"error": {"message": "slow down"}}, {"retry-after": "3"}))

    with pytest.raises(openai.RateLimitError) as refused:
        await _stream(chat)

    assert refused.value.response.headers["retry-after"] == "3"
    assert [model.id async for model in chat.models.list()] == ["qwen3-8b"]


@pytest.mark.parametrize("stream", [True, False])
async def test_cut_breaks_the_connection(upstream: ScriptedUpstream, stream: bool) -> None:
    upstream.script(Reply(pieces=[Text("Hel"), Cut(), Text("lo")]))

    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post(f"{upstream.url}/chat/completions", json={"stream": stream})


async def test_gate_holds_the_reply_and_a_client_that_leaves_is_noticed(
    upstream: ScriptedUpstream, chat: openai.AsyncOpenAI
) -> None:
    passed, stalled = Gate(), Gate()
    upstream.script(Reply(pieces=[Text("a"), passed, Text("b"), stalled]))

    stream = await chat.chat.completions.create(model="m", messages=[], stream=True)
    await passed.reached()
    passed.open()
    await stalled.reached()
    await stream.close()

    assert (await upstream.hang_up()).body["model"] == "m"


async def test_raw_frames(upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[sse({"type": "response.created"}), Raw(b"data: {broken\n\n")]))

    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{upstream.url}/responses", json={"stream": True})

    assert answer.text == 'event: response.created\ndata: {"type":"response.created"}\n\ndata: {broken\n\n'


async def test_mistakes_and_left_over_replies_fail_the_test() -> None:
    with serving(ScriptedUpstream()) as upstream:
        upstream.script(Reply.say("one"), Reply.say("two"))
        upstream.default = None
        async with httpx.AsyncClient() as http:
            await http.post(f"{upstream.url}/chat/completions", json={})
            with pytest.raises(AssertionError, match="never asked for: 1"):
                upstream.assert_consumed()
            await http.post(f"{upstream.url}/chat/completions", json={})
            await http.post(f"{upstream.url}/chat/completions", json={})
        with pytest.raises(AssertionError, match="no reply was scripted"):
            upstream.assert_consumed()


def test_the_javascript_client_understands_it_too(upstream: ScriptedUpstream) -> None:
    upstream.script(REPLY)

    said = run_javascript(
        """
        const stream = await client.chat.completions.create({ model: "m", messages: [], stream: true });
        let text = "";
        for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
        console.log(JSON.stringify(text));
        """,
        base_url=upstream.url,
        key="unused",
    )

    assert said == "Sunny,\u2028I think"
