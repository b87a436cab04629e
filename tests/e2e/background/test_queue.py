"""More background responses than places: they wait, in the order of their lanes, and nothing of it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e.background.test_background import BACKGROUND, STREAMED, until
from tests.e2e.streams import MODEL, Frames, final, id_in, replay
from tests.support.gateway import Gateway, running_gateway
from tests.support.judge import judge
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

LATER = {**BACKGROUND, "background_options": {"completion_window": "2h"}}


def _held(gate: Gate) -> Reply:
    return Reply(pieces=[Thought("Hm."), Text("One "), gate, Text("two")])


@pytest.fixture(scope="module")
def small(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    """One place, and one in the queue."""
    limits = {"limits__background_responses": "1", "limits__background_queue": "1"}
    with running_gateway(tmp_path_factory.mktemp("small"), upstream_server.url, **limits) as running:
        yield running


async def test_the_second_waits_and_the_third_is_refused(small: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(_held(gate), Reply(pieces=[Thought("Hm."), Text("Next")]))
    async with small.http() as http:
        running = (await http.post("/v1/responses", json=BACKGROUND)).json()["id"]
        await gate.reached(20)
        async with http.stream("POST", "/v1/responses", json=STREAMED) as answer:
            frames = Frames(answer)
            seen = await frames.until("response.queued")
            waiting = (await http.get(f"/v1/responses/{id_in(seen)}")).json()
            refused = [await http.post("/v1/responses", json=body) for body in (BACKGROUND, STREAMED, LATER)]
            gate.open()
            stream = seen + await frames.rest()
        assert (await until(http, running, "completed"))["status"] == "completed"
        assert await replay(http, id_in(seen)) == stream
    assert waiting["status"] == "queued"
    assert final(stream)["status"] == "completed"
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_is_overloaded")
        assert int(answer.headers["retry-after"]) > 0


async def test_a_waiting_one_is_cancelled(small: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(_held(gate))
    async with small.http() as http:
        running = (await http.post("/v1/responses", json=BACKGROUND)).json()["id"]
        await gate.reached(20)
        async with http.stream("POST", "/v1/responses", json=STREAMED) as answer:
            frames = Frames(answer)
            seen = await frames.until("response.queued")
            cancelled = (await http.post(f"/v1/responses/{id_in(seen)}/cancel")).json()
            stream = seen + await frames.rest()
        assert await replay(http, id_in(seen)) == stream
        gate.open()
        await until(http, running, "completed")
    assert cancelled == final(stream)
    assert (cancelled["status"], cancelled["output"]) == ("cancelled", [])
    kinds = [event["type"].removeprefix("response.") for event in judge(stream).events]
    assert kinds == ["created", "queued", "in_progress", "incomplete"]


async def test_who_waits_is_not_overtaken(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """A place that becomes free is not for the next request that happens to come."""
    gate = Gate()
    upstream.script(_held(gate))
    with running_gateway(tmp_path, upstream.url, limits__background_responses="1") as gateway:
        async with gateway.http() as http, asyncio.timeout(30):
            posted = [(await http.post("/v1/responses", json=BACKGROUND)).json()["id"]]
            await gate.reached(20)
            posted += [
                (await http.post("/v1/responses", json={**BACKGROUND, "input": word})).json()["id"] for word in "bcd"
            ]
            gate.open()
            await until(http, posted[0], "completed")
            posted += [
                (await http.post("/v1/responses", json={**BACKGROUND, "input": word})).json()["id"] for word in "ef"
            ]
            ended = [await until(http, one, "completed") for one in posted]
    assert [one["status"] for one in ended] == ["completed"] * 6
    asked = [request.body["messages"][-1]["content"] for request in upstream.requests]
    assert asked[1:] == [*"bcdef"]


async def test_the_official_client_waits_for_its_turn(small: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(_held(gate), Reply(pieces=[Thought("Hm."), Text("Next")]))
    async with small.client() as client:
        running = await client.responses.create(model=MODEL, input="Hi", background=True)
        await gate.reached(20)
        async with client.responses.stream(model=MODEL, input="Hi", background=True) as stream:
            begun = [await anext(stream), await anext(stream)]
            assert begun[0].type == "response.created"
            waiting = await client.responses.retrieve(begun[0].response.id)
            gate.open()
            following = await client.responses.retrieve(waiting.id, stream=True, starting_after=1)
            rest = [event.sequence_number async for event in following]
            final = await stream.get_final_response()
        assert (await client.responses.retrieve(running.id)).background is True
    assert [event.type for event in begun] == ["response.created", "response.queued"]
    assert (waiting.status, waiting.background, waiting.output, waiting.usage) == ("queued", True, [], None)
    assert rest == list(range(2, 2 + len(rest)))
    assert (final.status, final.output_text) == ("completed", "Next")


@pytest.mark.parametrize("dies", [False, True])
async def test_a_restart_loses_nothing(upstream: ScriptedUpstream, tmp_path: Path, *, dies: bool) -> None:
    """Places for two, half of them for those that may wait: one of these runs, and another one has to wait for it."""
    gates = [Gate(), Gate()]
    upstream.script(*(Reply(pieces=[gate, Text("too late")]) for gate in gates))
    with running_gateway(tmp_path, upstream.url, limits__background_responses="2") as gateway:
        async with gateway.http() as http:
            made = [
                (await http.post("/v1/responses", json=body)).json()["id"]
                for body in (LATER, LATER, BACKGROUND, BACKGROUND)
            ]
            for gate in gates:
                await gate.reached(20)
            states = [(await http.get(f"/v1/responses/{one}")).json()["status"] for one in made]
        if dies:
            gateway.process.kill()
            gateway.process.wait(20)
    with running_gateway(tmp_path, upstream.url, limits__background_responses="2") as gateway:
        async with gateway.http() as http, asyncio.timeout(15):
            ended = [await until(http, one, "completed") for one in made]
    assert states == ["in_progress", "queued", "in_progress", "queued"]
    assert [one["output"][0]["content"][0]["text"] for one in ended] == ["Hello there."] * 4
    assert len(upstream.requests) == 2 + 4
