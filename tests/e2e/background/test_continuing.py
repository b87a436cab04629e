"""A foreground response whose client leaves: it goes on if that was asked for, and a resumable one survives its
process.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator

import pytest

from tests.e2e.background.pairs import Replicas
from tests.e2e.streams import MODEL, Frames, Json, final, id_in, replay, split
from tests.support.gateway import Gateway, running_gateway
from tests.support.judge import judge
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

ASKED: Json = {"model": MODEL, "input": "Hi"}
STREAMED: Json = {**ASKED, "stream": True}
CONTINUE = {"x-gateway-on-disconnect": "continue"}
RESUMABLE = {"x-gateway-resumable": "true"}
WHOLE = "One two three"


def _reply(gate: Gate) -> Reply:
    return Reply(pieces=[Thought("Hm."), Text("One "), Text("two "), gate, Text("three")])


def _text(response: Json) -> str:
    return str(response["output"][-1]["content"][0]["text"])


@pytest.fixture(scope="module")
def continuing(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    """A gateway whose responses go on by default."""
    with running_gateway(
        tmp_path_factory.mktemp("continuing"), upstream_server.url, on_disconnect="continue"
    ) as running:
        yield running


async def test_a_stream_goes_on_and_can_be_followed(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(_reply(gate))
    async with gateway.http() as http:
        async with http.stream("POST", "/v1/responses", json=STREAMED, headers=CONTINUE) as answer:
            seen = await Frames(answer).until("response.output_text.delta")
        async with http.stream("GET", f"/v1/responses/{id_in(seen)}", params={"stream": "true"}) as following:
            frames = Frames(following)
            begun = await frames.until("response.output_text.delta")
            assert (await http.get(f"/v1/responses/{id_in(seen)}")).json()["status"] == "in_progress"
            gate.open()
            followed = begun + await frames.rest()
        stored = (await http.get(f"/v1/responses/{id_in(seen)}")).json()
        assert await replay(http, id_in(seen)) == followed
    assert begun == seen
    assert final(followed) == stored
    assert (stored["status"], stored["background"], _text(stored)) == ("completed", False, WHOLE)


async def test_a_plain_one_goes_on(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[gate, Text("Kept.")]))
    await _leave(gateway, gate, {}, CONTINUE)
    start = gateway.log_file.stat().st_size
    gate.open()
    made = await _made(gateway, start)
    async with gateway.http() as http:
        stored = (await http.get(f"/v1/responses/{made}")).json()
    assert (stored["status"], _text(stored)) == ("completed", "Kept.")


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
async def test_a_request_overrides_the_setting(continuing: Gateway, upstream: ScriptedUpstream, fields: Json) -> None:
    cancelled, kept = Gate(), Gate()
    upstream.script(*(Reply(pieces=[gate, Text("Hello")]) for gate in (cancelled, kept)))
    await _leave(continuing, cancelled, fields, {"x-gateway-on-disconnect": "cancel"})
    await upstream.hang_up()
    await _leave(continuing, kept, fields, {})
    start = continuing.log_file.stat().st_size
    kept.open()
    made = await _made(continuing, start)
    async with continuing.http() as http:
        assert (await http.get(f"/v1/responses/{made}")).json()["status"] == "completed"


async def _leave(gateway: Gateway, gate: Gate, fields: Json, headers: dict[str, str]) -> None:
    """Ask, and hang up when the upstream's reply is at the gate."""
    async with gateway.http() as http, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(
            http.post("/v1/responses", json={**ASKED, **fields}, headers={**headers, "x-request-id": "left"})
        )
        await gate.reached(20)
        asking.cancel()


async def _made(gateway: Gateway, start: int) -> str:
    """The id of the response that the client never learned."""
    pattern = r"\[left\] POST /v1/responses 200 .*response=(\S+)"
    async with asyncio.timeout(20):
        (made,) = re.findall(pattern, await gateway.logged(pattern, start))
    return str(made)


@pytest.mark.parametrize(
    ("fields", "headers", "named"),
    [
        ({}, {"x-gateway-on-disconnect": "stay"}, "x-gateway-on-disconnect"),
        ({}, {"x-gateway-on-disconnect": ""}, "x-gateway-on-disconnect"),
        ({"background": True}, {"x-gateway-on-disconnect": "stay"}, "x-gateway-on-disconnect"),
        ({"background": True}, {"x-gateway-on-disconnect": "cancel"}, "x-gateway-on-disconnect"),
        ({"stream": True}, {"x-gateway-on-disconnect": "cancel", **RESUMABLE}, "x-gateway-on-disconnect"),
        ({"store": False}, CONTINUE, "x-gateway-on-disconnect"),
        ({"store": False, "stream": True}, CONTINUE, "x-gateway-on-disconnect"),
        ({}, RESUMABLE, "x-gateway-resumable"),
        ({"store": False, "stream": True}, RESUMABLE, "x-gateway-resumable"),
        ({"stream": True}, {"x-gateway-resumable": "1"}, "x-gateway-resumable"),
        ({"background": True, "stream": True}, {"x-gateway-resumable": "yes"}, "x-gateway-resumable"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(
    gateway: Gateway, fields: Json, headers: dict[str, str], named: str
) -> None:
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json={**ASKED, **fields}, headers=headers)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", named)
    assert named in error["message"]


async def test_a_resumable_stream_is_resumed_anywhere(pair: Replicas, upstream: ScriptedUpstream) -> None:
    here, there = pair
    gate = Gate()
    upstream.script(_reply(gate))
    async with here.http() as first, there.http() as second:
        async with first.stream("POST", "/v1/responses", json=STREAMED, headers=RESUMABLE) as answer:
            frames = Frames(answer)
            seen = b"".join([await frames.take() for _ in range(3)])
        response_id = id_in(seen)
        refused = [await http.post(f"/v1/responses/{response_id}/cancel") for http in (first, second)]
        async with asyncio.TaskGroup() as group:
            resumed = [group.create_task(replay(http, response_id, starting_after=2)) for http in (first, second)]
            await gate.reached()
            states = [(await http.get(f"/v1/responses/{response_id}")).json() for http in (first, second)]
            gate.open()
        replayed = [await replay(http, response_id) for http in (first, second)]
        stored = (await second.get(f"/v1/responses/{response_id}")).json()

    assert {seen + task.result() for task in resumed} == set(replayed)
    assert len(set(replayed)) == 1
    assert [(state["status"], state["background"]) for state in states] == [("in_progress", False)] * 2
    assert [answer.status_code for answer in refused] == [400, 400]
    assert final(replayed[0]) == stored
    assert (stored["status"], stored["background"], _text(stored)) == ("completed", False, WHOLE)
    assert "response.queued" not in {event["type"] for event in judge(replayed[0]).events}


async def test_a_resumable_stream_outlives_its_process(replicas: Replicas, upstream: ScriptedUpstream) -> None:
    here, there = replicas
    gate = Gate()
    upstream.script(_reply(gate))
    async with here.http() as first, there.http() as second:
        async with first.stream("POST", "/v1/responses", json=STREAMED, headers=RESUMABLE) as answer:
            frames = Frames(answer)
            seen = await frames.until("response.output_text.delta")
            seen += await frames.until("response.output_text.delta")
            here.process.kill()
        async with asyncio.timeout(15):
            rest = await replay(second, id_in(seen), starting_after=len(split(seen)) - 1)
        replayed = await replay(second, id_in(seen))
    assert replayed == seen + rest
    assert (final(replayed)["status"], _text(final(replayed))) == ("failed", "One two ")
