"""What a new process finds: everything that an earlier one has answered."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx
import msgspec

from tests.e2e.streams import MODEL, Frames, Json, final, id_in, replay, sent
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Call, Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

ADD: Json = {"type": "function", "name": "add", "parameters": {"type": "object"}}


class Made(msgspec.Struct, frozen=True):
    """What the first process answered."""

    plain: bytes
    streamed: bytes
    child: Json
    deleted: str
    key: str


async def test_a_killed_process_loses_nothing_it_has_answered(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running_gateway(tmp_path, upstream.url) as first:
        made = await _make(first, upstream)
        first.process.kill()
        first.process.wait(10)

    with running_gateway(tmp_path, upstream.url) as second:
        async with second.http() as http:
            await _everything_is_there(http, made)
            await _the_conversation_goes_on(http, upstream, made)


async def _make(gateway: Gateway, upstream: ScriptedUpstream) -> Made:
    call = Reply(pieces=[Thought("I have to add."), Call("add", ['{"a":1}'], id="call_a")])
    upstream.script(Reply.say("One"), call, Reply.say("Gone"))
    async with gateway.http() as http:
        plain = await http.post(
            "/v1/responses", json={"model": MODEL, "input": [{"role": "user", "content": "Hi", "id": "msg_mine"}]}
        )
        request = {
            "model": MODEL,
            "input": "1+2?",
            "previous_response_id": plain.json()["id"],
            "tools": [ADD],
            "stream": True,
        }
        streamed = await http.post("/v1/responses", json={**request, "include": ["reasoning.encrypted_content"]})
        gone = (await http.post("/v1/responses", json={"model": MODEL, "input": "Forget it."})).json()["id"]
        child = (
            await http.post("/v1/responses", json={"model": MODEL, "input": "And?", "previous_response_id": gone})
        ).json()
        await http.delete(f"/v1/responses/{gone}")
    return Made(plain.content, streamed.content, child, gone, gateway.key)


async def _everything_is_there(http: httpx.AsyncClient, made: Made) -> None:
    plain, streamed = msgspec.json.decode(made.plain), final(made.streamed)
    assert (await http.get(f"/v1/responses/{plain['id']}")).content == made.plain
    assert (await http.get(f"/v1/responses/{streamed['id']}")).json() == streamed
    assert await replay(http, streamed["id"]) == made.streamed
    items = (await http.get(f"/v1/responses/{streamed['id']}/input_items", params={"order": "asc"})).json()["data"]
    assert [item["content"][0]["text"] for item in items] == ["Hi", "One", "1+2?"]

    assert (await http.get(f"/v1/responses/{made.deleted}")).status_code == 404
    refused = await http.post(
        "/v1/responses", json={"model": MODEL, "input": "?", "previous_response_id": made.child["id"]}
    )
    assert (refused.status_code, made.deleted in refused.text) == (400, True)


async def _the_conversation_goes_on(http: httpx.AsyncClient, upstream: ScriptedUpstream, made: Made) -> None:
    streamed = final(made.streamed)
    result = {"type": "function_call_output", "call_id": "call_a", "output": "3"}
    chained = await http.post(
        "/v1/responses", json={"model": MODEL, "input": [result], "previous_response_id": streamed["id"]}
    )
    by_chain = sent(upstream)
    items = [
        {"type": "item_reference", "id": "msg_mine"},
        {"role": "assistant", "content": "One"},
        {"role": "user", "content": "1+2?"},
    ]
    await http.post("/v1/responses", json={"model": MODEL, "input": [*items, *streamed["output"], result]})

    assert chained.status_code == 200
    assert [message["role"] for message in by_chain] == ["user", "assistant", "user", "assistant", "tool"]
    # The thinking came back out of what the first process had sealed.
    assert by_chain[3]["reasoning"] == "I have to add."
    assert sent(upstream) == by_chain


async def test_a_process_that_is_asked_to_stop_finishes_its_streams(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Half "), gate, Text("done.")]))
    with running_gateway(tmp_path, upstream.url) as gateway:
        async with (
            gateway.http() as http,
            http.stream("POST", "/v1/responses", json={"model": MODEL, "input": "Hi", "stream": True}) as answer,
        ):
            frames = Frames(answer)
            begun = await frames.take()
            await gate.reached()
            gateway.process.send_signal(signal.SIGTERM)
            gate.open()
            response = final(begun + await frames.rest())
        assert await asyncio.to_thread(gateway.process.wait, 10) in (0, -signal.SIGTERM)

    assert response["output"][0]["content"][0]["text"] == "Half done."
    with running_gateway(tmp_path, upstream.url) as gateway:
        async with gateway.http() as http:
            assert (await http.get(f"/v1/responses/{id_in(begun)}")).json() == response
