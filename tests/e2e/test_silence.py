"""Upstreams that say nothing for a while: the stream begins without them, and nobody's line is silent for too long."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack

import httpx
import openai
import pytest

from tests.e2e.streams import MODEL, Frames, Json, final, id_in, replay, split
from tests.support.gateway import Gateway, running_gateway
from tests.support.judge import judge
from tests.support.script import Cut, Gate, Reply, Text
from tests.support.services import Valkey
from tests.support.upstream import ScriptedUpstream

STREAMED: Json = {"model": MODEL, "input": "Hi", "stream": True}
PING = b": ping\n\n"
NOT_ALLOWED: Json = {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}}
INTERVAL = 0.4


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def gateway(
    request: pytest.FixtureRequest, upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Gateway]:
    """A gateway that is soon uneasy about silence."""
    upstream_server.reset()
    settings = {"heartbeat_seconds": str(INTERVAL)}
    if request.param == "postgresql":
        valkey: Valkey = request.getfixturevalue("valkey")
        settings |= {"database_url": request.getfixturevalue("shared_database"), "redis_url": valkey.url}
    with running_gateway(tmp_path_factory.mktemp("silence"), upstream_server.url, **settings) as running:
        yield running


@pytest.fixture
async def http(gateway: Gateway) -> AsyncGenerator[httpx.AsyncClient]:
    async with gateway.http() as connected:
        yield connected


def failing(gate: Gate, status: int, error: Json) -> Reply:
    """A refusal that is long in coming."""
    return Reply(status=status, body=json.dumps(error).encode(), pieces=[gate], headers={"retry-after": "0.01"})


async def begun_in_silence(http: httpx.AsyncClient, gate: Gate, request: Json) -> bytes:
    """A stream whose upstream goes on through the gate only when the stream has begun."""
    async with http.stream("POST", "/v1/responses", json=request) as answer:
        assert answer.status_code == 200
        frames = Frames(answer)
        begun = await frames.until("response.in_progress")
        gate.open()
        return begun + await frames.rest()


def without_comments(stream: bytes) -> bytes:
    return b"".join(frame for frame in split(stream) if not frame.startswith(b":"))


async def test_a_stream_begins_without_its_upstream(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[gate, Text("At last.")]))
    async with http.stream("POST", "/v1/responses", json=STREAMED) as answer:
        frames = Frames(answer)
        begun = await frames.until("response.in_progress")
        beats = [await frames.take(), await frames.take()]
        gate.open()
        stream = begun + b"".join(beats) + await frames.rest()

    assert answer.status_code == 200
    assert beats == [PING] * 2
    judged = judge(stream)
    assert (judged.text, judged.types[:2], len(upstream.requests)) == (
        "At last.",
        ["response.created", "response.in_progress"],
        1,
    )
    assert await replay(http, judged.response.id) == without_comments(stream)


async def test_its_first_event_is_what_it_would_have_been(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    request = {
        **STREAMED,
        "instructions": "Be short.",
        "reasoning": {"effort": "low"},
        "metadata": {"a": "b"},
        "store": False,
    }
    upstream.script(Reply(pieces=[gate, Text("Yes.")]), Reply.say("Yes."))
    late = await begun_in_silence(http, gate, request)
    quick = (await http.post("/v1/responses", json=request)).content

    first, second = (json.loads(split(stream)[0].partition(b"data: ")[2])["response"] for stream in (late, quick))
    assert first | {"id": "", "created_at": 0} == second | {"id": "", "created_at": 0}
    assert final(late)["output"][0]["content"] == final(quick)["output"][0]["content"]


async def test_it_is_tried_again_behind_the_beginning(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(failing(gate, 503, {"error": {"message": "Busy."}}), Reply.say("Now."))
    stream = await begun_in_silence(http, gate, STREAMED)

    judged = judge(stream)
    assert (judged.text, judged.response.status, len(upstream.requests)) == ("Now.", "completed", 2)
    assert await replay(http, judged.response.id) == without_comments(stream)


async def test_a_conversation_is_shortened_behind_the_beginning(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    too_long: Json = {
        "error": {"message": "This model's maximum context length is 10 tokens.", "code": "context_length_exceeded"}
    }
    items = [
        {"role": role, "content": text} for role, text in (("user", "One."), ("assistant", "Two."), ("user", "Three."))
    ]
    upstream.script(failing(gate, 400, too_long), Reply.say("Four."))
    judged = judge(await begun_in_silence(http, gate, {**STREAMED, "input": items, "truncation": "auto"}))

    assert judged.text == "Four."
    assert [message["content"] for message in upstream.requests[1].body["messages"]] == ["Three."]


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (401, NOT_ALLOWED, "server_error"),
        (429, {"error": {"message": "Slow down."}}, "rate_limit_exceeded"),
        (400, {}, "invalid_prompt"),
    ],
)
async def test_a_failure_behind_the_beginning_is_the_responses(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, status: int, error: Json, code: str
) -> None:
    gate = Gate()
    upstream.script(failing(gate, status, error), *[failing(gate, status, error)] * (2 if status == 429 else 0))
    stream = await begun_in_silence(http, gate, STREAMED)

    judged = judge(stream)
    response = judged.events[-1]["response"]
    assert judged.types[-2:] == ["error", "response.failed"]
    assert (response["status"], response["error"]["code"], response["output"]) == ("failed", code, [])
    assert (await http.get(f"/v1/responses/{response['id']}")).json() == response
    assert await replay(http, response["id"]) == without_comments(stream)
    assert (await http.get(f"/v1/responses/{response['id']}/input_items")).json()["data"][0]["role"] == "user"


async def test_a_failure_in_time_is_an_http_error(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.error(401, NOT_ALLOWED))

    refused = await http.post("/v1/responses", json=STREAMED)

    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_authentication")


async def test_a_plain_request_waits(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    stream_gate, plain_gate = Gate(), Gate()
    upstream.script(failing(plain_gate, 401, NOT_ALLOWED), Reply(pieces=[stream_gate, Text("Yes.")]))
    async with asyncio.TaskGroup() as tasks:
        plain = tasks.create_task(http.post("/v1/responses", json={**STREAMED, "stream": False}))
        await plain_gate.reached()
        async with http.stream("POST", "/v1/responses", json=STREAMED) as answer:  # the timer has been at work
            frames = Frames(answer)
            await frames.until("response.in_progress")
            stream_gate.open()
            await frames.rest()
        plain_gate.open()

    assert plain.result().status_code == 502


async def test_others_read_it_from_the_first_moment(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[gate, Text("At last.")]))
    async with http.stream("POST", "/v1/responses", json=STREAMED) as answer:
        frames = Frames(answer)
        begun = await frames.until("response.in_progress")
        response_id = id_in(begun)
        snapshot = (await http.get(f"/v1/responses/{response_id}")).json()
        async with http.stream("GET", f"/v1/responses/{response_id}?stream=true") as following:
            followed = Frames(following)
            seen = await followed.until("response.in_progress")
            while not (beat := await followed.take()).startswith(b":"):
                seen += beat
            gate.open()
            seen += await followed.rest()
        stream = begun + await frames.rest()

    assert (snapshot["id"], snapshot["status"], snapshot["output"]) == (response_id, "in_progress", [])
    assert without_comments(seen) == without_comments(stream)


async def test_a_client_that_leaves_before_the_upstream_speaks(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[gate, Text("too late")]))
    async with http.stream("POST", "/v1/responses", json=STREAMED) as answer:
        response_id = id_in(await Frames(answer).until("response.in_progress"))
        await gate.reached()

    await upstream.hang_up()
    told = final(await replay(http, response_id))
    stored = (await http.get(f"/v1/responses/{response_id}")).json()
    assert stored == told
    assert (stored["status"], stored["output"]) == ("cancelled", [])


async def test_a_connection_that_breaks_before_the_answer_is_tried_again(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[gate, Cut()]), Reply.say("Hello."))
    async with gateway.client() as client:
        stream = await client.responses.create(model=MODEL, input="Hi", stream=True)
        kinds: list[str] = []
        async for event in stream:
            kinds.append(event.type)
            if event.type == "response.in_progress":
                gate.open()

    assert (kinds[0], kinds[-1], kinds.count("response.created")) == ("response.created", "response.completed", 1)


async def test_the_official_client_raises_a_failure_behind_the_beginning(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script(failing(gate, 401, NOT_ALLOWED))
    async with gateway.client() as client:
        stream = await client.responses.create(model=MODEL, input="Hi", stream=True)
        assert [(await anext(stream)).type for _ in range(2)] == ["response.created", "response.in_progress"]
        gate.open()
        with pytest.raises(openai.APIError, match="credentials"):
            await anext(stream)


@pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)
async def test_readers_that_stall_silence_nobody(
    gateway: Gateway, http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    """Forty clients read nothing of megabytes; a reader beside them, whose upstream is silent, hears a comment each
    interval.
    """
    gates = [Gate() for _ in range(41)]
    flood = "x" * (1 << 20)
    upstream.script(
        Reply.say("Hi."),
        *[Reply(pieces=[*[Text(flood)] * 4, gate]) for gate in gates[:-1]],
        Reply(pieces=[Text("Hi "), gates[-1], Text("there.")]),
    )
    # the first answer is held, for its thinking
    await http.post("/v1/responses", json={**STREAMED, "enable_thinking": False})
    with ExitStack() as stack:
        for gate in gates[:-1]:
            stack.enter_context(stalled_reader(gateway))
            await gate.reached()
        async with http.stream("POST", "/v1/responses", json={**STREAMED, "enable_thinking": False}) as answer:
            frames = Frames(answer)
            await frames.until("response.output_text.delta")
            start = asyncio.get_running_loop().time()
            beats = [await frames.take() for _ in range(8)]
            passed = asyncio.get_running_loop().time() - start
            gates[-1].open()
            await frames.rest()
    for _ in gates[:-1]:
        await upstream.hang_up()

    assert beats == [PING] * 8
    assert passed < 8 * INTERVAL + 2.0  # in turn, the stalled ones alone would take 4 s an interval


def stalled_reader(gateway: Gateway) -> socket.socket:
    """A client that asks for a stream and never reads."""
    host, _, port = gateway.base_url.removeprefix("http://").partition(":")
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect((host, int(port)))
    body = json.dumps({**STREAMED, "enable_thinking": False}).encode()
    head = (
        f"POST /v1/responses HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {gateway.key}\r\nContent-Length: "
        f"{len(body)}\r\n\r\n"
    )
    reader.sendall(head.encode() + body)
    return reader
