"""Settings that change what a client sees."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import httpx
import openai
import pytest

from app.protocol.wire import ids
from tests.e2e.streams import MODEL, Frames, Json, final, id_in, replay
from tests.support.gateway import Gateway, running_gateway
from tests.support.judge import judge
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

STREAMED: Json = {"model": MODEL, "input": "Hi", "stream": True}
PROMPT: Json = {**STREAMED, "enable_thinking": False}
"""Nothing is held back until it is known to be no thinking, once an answer has shown that the model keeps to that."""
BODY_LIMIT = 2048


@pytest.fixture(scope="module")
def gateway(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    """One with every such setting changed."""
    upstream_server.reset()
    with running_gateway(
        tmp_path_factory.mktemp("settings"),
        upstream_server.url,
        heartbeat_seconds="0.1",
        done_marker="true",
        response_id_prefix="resp_",
        reasoning_events="text",
        estimate_usage="true",
        limits__body_bytes=str(BODY_LIMIT),
        limits__concurrent_responses="1",
        limits__input_items="3",
        limits__tools="1",
    ) as running:
        headers = {"Authorization": f"Bearer {running.key}"}
        httpx.post(f"{running.base_url}/v1/responses", json=PROMPT, headers=headers, timeout=30).raise_for_status()
        yield running


@pytest.fixture
async def http(gateway: Gateway) -> AsyncGenerator[httpx.AsyncClient]:
    async with gateway.http() as connected:
        yield connected


async def test_a_silent_stream_is_kept_alive(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    stall = Gate()
    upstream.script(Reply(pieces=[Text("Wait "), stall, Text("for it.")]))
    async with http.stream("POST", "/v1/responses", json=PROMPT) as answer:
        frames = Frames(answer)
        begun = await frames.until("response.output_text.delta")
        beats = [await frames.take(), await frames.take()]
        stall.open()
        stream = begun + b"".join(beats) + await frames.rest()

    assert beats == [b": ping\n\n"] * 2
    judged = judge(stream)
    assert (judged.text, judged.comments >= 2) == ("Wait for it.", True)


async def test_a_silent_stream_is_kept_alive_for_its_followers(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    stall = Gate()
    upstream.script(Reply(pieces=[Text("Wait "), stall, Text("for it.")]))
    async with http.stream("POST", "/v1/responses", json=PROMPT) as answer:
        frames = Frames(answer)
        response_id = id_in(await frames.take())
        await stall.reached()
        async with http.stream("GET", f"/v1/responses/{response_id}?stream=true") as following:
            followed = Frames(following)
            await followed.until("response.output_text.delta")
            assert (await followed.take()).startswith(b":")
            stall.open()
            await followed.rest()
        await frames.rest()


async def test_the_marker_ends_the_stream(
    http: httpx.AsyncClient, gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    answer = await http.post("/v1/responses", json=STREAMED)

    assert judge(answer.content).marked
    assert answer.content.endswith(b"}}\n\ndata: [DONE]\n\n")
    async with gateway.client() as client, client.responses.stream(model=MODEL, input="Hi") as stream:
        assert (await stream.get_final_response()).output_text == "Hello there."
    assert len(upstream.requests) == 2


async def test_the_replay_has_the_marker_too(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    answer = await http.post("/v1/responses", json=STREAMED)

    assert await replay(http, id_in(answer.content)) == answer.content
    assert len(upstream.requests) == 1


async def test_ids_are_prefixed_and_found_without_it(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    made = (await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"})).json()["id"]
    prefix, _, plain = made.partition("_")
    child = await http.post("/v1/responses", json={"model": MODEL, "input": "?", "previous_response_id": plain})

    assert (prefix, plain) == ("resp", ids.normalize_response_id(made))
    assert [(await http.get(f"/v1/responses/{form}")).json()["id"] for form in (made, plain)] == [made, made]
    assert child.json()["previous_response_id"] in (made, plain)
    assert (await http.delete(f"/v1/responses/{plain}")).json()["id"] == made
    assert len(upstream.requests) == 2


async def test_thinking_is_streamed_as_text(
    http: httpx.AsyncClient, gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    reply = Reply(pieces=[Thought("Let me "), Thought("see."), Text("Yes.")])
    upstream.script(reply, reply)
    made = (await http.post("/v1/responses", json=STREAMED)).content
    async with gateway.client() as client, client.responses.stream(model=MODEL, input="Hi") as stream:
        kinds = {event.type async for event in stream}

    assert [event["delta"] for event in judge(made).events if event["type"] == "response.reasoning_text.delta"] == [
        "Let me ",
        "see.",
    ]
    assert final(made)["output"][0]["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    assert final(made)["output"][0]["summary"] == []
    assert "response.reasoning_text.done" in kinds


async def test_missing_usage_is_estimated_and_says_so(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Text("Yes.")], usage=None))
    usage = (await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"})).json()["usage"]

    assert usage["x_estimated"] is True
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


async def test_a_body_over_the_limit_is_refused(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        yield b'{"model":"qwen3-8b","input":"'
        for _ in range(100):
            yield b"x" * 1000

    declared = await http.post("/v1/responses", json={"model": MODEL, "input": "x" * BODY_LIMIT})
    chunked = await http.post("/v1/responses", content=pieces())
    just_right = await http.post("/v1/responses", json={"model": MODEL, "input": "x" * (BODY_LIMIT - 100)})

    for refused in (declared, chunked):
        assert refused.status_code == 413
        assert refused.json()["error"]["code"] == "request_too_large"
        assert str(BODY_LIMIT) in refused.json()["error"]["message"]
    assert just_right.status_code == 200
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("input", [{"role": "user", "content": "x"}] * 4),
        ("tools", [{"type": "function", "name": name} for name in ("f", "g")]),
    ],
)
async def test_too_many_are_refused(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, param: str, value: list[Json]
) -> None:
    refused = await http.post("/v1/responses", json={"model": MODEL, "input": "Hi", param: value})

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert not upstream.requests


async def test_beyond_the_limit_of_concurrent_responses(
    http: httpx.AsyncClient, gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    stall = Gate()
    upstream.script(Reply(pieces=[Text("One"), stall]))
    async with gateway.client() as client:
        async with http.stream("POST", "/v1/responses", json=STREAMED) as answer:
            frames = Frames(answer)
            await frames.take()
            await stall.reached()
            for stream in (False, True):
                with pytest.raises(openai.InternalServerError) as refused:
                    await client.responses.create(model=MODEL, input="Hi", stream=stream)
                assert (refused.value.status_code, refused.value.code) == (503, "server_is_overloaded")
                assert refused.value.response.headers["retry-after"] == "1"
            stall.open()
            await frames.rest()

        assert (await client.responses.create(model=MODEL, input="Hi")).status == "completed"
    assert len(upstream.requests) == 2
