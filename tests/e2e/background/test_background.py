"""A background response: accepted at once, generated whether or not somebody reads it."""

from __future__ import annotations

import asyncio

import httpx
import openai
import pytest

from tests.e2e.streams import MODEL, Frames, Json, final, id_in, replay, split
from tests.support.gateway import Gateway
from tests.support.judge import judge
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

BACKGROUND: Json = {"model": MODEL, "input": "Hi", "background": True}
STREAMED: Json = {**BACKGROUND, "stream": True}


async def until(http: httpx.AsyncClient, response_id: str, *states: str) -> Json:
    """The response once it has one of the states."""
    async with asyncio.timeout(20):
        while (found := (await http.get(f"/v1/responses/{response_id}")).json())["status"] not in states:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    return found


async def test_it_is_queued_then_complete(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Hello"), gate, Text(" there")]))
    async with gateway.client() as client:
        response = await client.responses.create(model=MODEL, input="Hi", background=True)
        assert (response.status, response.background, response.output) == ("queued", True, [])

        await gate.reached()
        assert (await client.responses.retrieve(response.id)).status == "in_progress"
        gate.open()
        async with gateway.http() as http:
            body = await until(http, response.id, "completed")
        assert body["output"][0]["content"][0]["text"] == "Hello there"
        assert body["usage"]["total_tokens"] == 13
        assert body["background"] is True


async def test_its_stream_begins_in_the_queue_and_is_replayed_as_it_was(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Hel"), Text("lo")]))
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json=STREAMED)
        stream = answer.content
        again = await replay(http, id_in(stream))
        rest = await replay(http, id_in(stream), starting_after=4)

    events = judge(stream).events
    assert [event["type"] for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert [event["response"]["status"] for event in events[:3]] == ["queued", "queued", "in_progress"]
    assert events[-1]["response"]["status"] == "completed"
    assert again == stream
    assert rest == b"".join(split(stream)[5:])


async def test_nobody_needs_to_listen(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[gate, Text("Hello")]))
    async with gateway.http() as http:
        async with http.stream("POST", "/v1/responses", json=STREAMED) as answer:
            response_id = id_in(await Frames(answer).take())
        gate.open()
        assert (await until(http, response_id, "completed"))["output"][0]["content"][0]["text"] == "Hello"


async def test_it_can_be_followed_from_any_event_while_it_is_generated(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("One "), Text("two "), gate, Text("three")]))
    async with gateway.http() as http, http.stream("POST", "/v1/responses", json=STREAMED) as answer:
        frames = Frames(answer)
        begun = await frames.until("response.output_text.delta")
        begun += await frames.until("response.output_text.delta")
        count = len(split(begun))
        async with asyncio.TaskGroup() as group:
            followers = [
                group.create_task(replay(http, id_in(begun), starting_after=after)) for after in range(-1, count + 2)
            ]
            await gate.reached()
            gate.open()
        whole = split(begun + await frames.rest())
    for after, follower in zip(range(-1, count + 2), followers, strict=True):
        assert split(follower.result()) == whole[after + 1 :]


async def test_a_cancelled_one_keeps_what_there_is(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an "), Text("answer"), gate]))
    async with gateway.http() as http:
        async with http.stream("POST", "/v1/responses", json=STREAMED) as answer:
            frames = Frames(answer)
            begun = await frames.until("response.output_text.delta")
            begun += await frames.until("response.output_text.delta")
            cancelled = await http.post(f"/v1/responses/{id_in(begun)}/cancel")
            async with asyncio.timeout(1):
                await upstream.hang_up()
            stream = begun + await frames.rest()
        again = await http.post(f"/v1/responses/{id_in(begun)}/cancel")
        stored = await http.get(f"/v1/responses/{id_in(begun)}")
        replayed = await replay(http, id_in(begun))

    assert cancelled.status_code == 200, cancelled.text
    body = cancelled.json()
    assert body["status"] == "cancelled"
    assert body["output"][1]["content"][0]["text"] == "Half an answer"
    assert body == again.json() == stored.json() == final(stream)
    assert replayed == stream


async def test_one_that_is_not_streamed_keeps_what_there_is_too(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Let me think."), Text("Half an answer"), gate]))
    async with gateway.client() as client:
        response = await client.responses.create(model=MODEL, input="Hi", background=True)
        await gate.reached()
        cancelled = await client.responses.cancel(response.id)
        assert cancelled.status == "cancelled"
        assert [item.type for item in cancelled.output] == ["reasoning", "message"]
        async with asyncio.timeout(1):
            await upstream.hang_up()


async def test_only_background_responses_can_be_cancelled(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Hello"), gate]))
    async with gateway.client() as client:
        running = await client.responses.create(model=MODEL, input="Hi", background=True)
        await gate.reached()
        await client.responses.cancel(running.id)
        upstream.script(Reply.say("Hello"))
        synchronous = await client.responses.create(model=MODEL, input="Hi")
        with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
            await client.responses.cancel(synchronous.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.cancel("resp_01a22e8c7ed67267a992323039c52ad2")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"store": False}, "store"),
        ({"background_options": {"continuation_id": "x"}}, "background_options.continuation_id"),
        ({"background_options": {"completion_window": "1h"}}, "background_options.completion_window"),
        ({"background_options": {"completion_window": "2h"}, "background": False}, "background_options"),
        ({"previous_response_id": "resp_01a22e8c7ed67267a992323039c52ad2"}, "previous_response_id"),
        ({"temperature": 9}, "temperature"),
    ],
)
async def test_what_cannot_be_done_is_refused_at_once(gateway: Gateway, fields: Json, param: str) -> None:
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json={**BACKGROUND, **fields})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


async def test_a_failure_of_the_upstream_is_the_responses(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(*[Reply.error(400, {"error": {"message": "No such thing.", "code": "bad_thing"}})] * 2)
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json=BACKGROUND)).json()
        failed = await until(http, made["id"], "failed")
        streamed = await http.post("/v1/responses", json=STREAMED)
    assert "No such thing." in failed["error"]["message"]
    assert final(streamed.content)["status"] == "failed"


async def test_events_are_only_there_if_they_were_asked_for(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("Hello"))
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json=BACKGROUND)).json()
        await until(http, made["id"], "completed")
        refused = await http.get(f"/v1/responses/{made['id']}", params={"stream": "true"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "stream")


async def test_one_that_is_not_finished_is_neither_continued_nor_deleted(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[gate, Text("Hello")]))
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json=BACKGROUND)).json()
        await gate.reached()
        continued = await http.post(
            "/v1/responses", json={"model": MODEL, "input": "?", "previous_response_id": made["id"]}
        )
        deleted = await http.delete(f"/v1/responses/{made['id']}")
        items = (await http.get(f"/v1/responses/{made['id']}/input_items")).json()["data"]
        gate.open()
        await until(http, made["id"], "completed")
        upstream.script(Reply.say("Yes"))
        child = await http.post("/v1/responses", json={**BACKGROUND, "input": "?", "previous_response_id": made["id"]})
        body = await until(http, child.json()["id"], "completed")

    assert (continued.status_code, continued.json()["error"]["code"]) == (400, "response_in_progress")
    assert (deleted.status_code, deleted.json()["error"]["code"]) == (409, "response_in_progress")
    assert [item["content"][0]["text"] for item in items] == ["Hi"]
    assert [message["content"] for message in upstream.requests[-1].body["messages"]] == ["Hi", "Hello", "?"]
    assert body["previous_response_id"] == made["id"]


async def test_its_end_has_a_line_in_the_log(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("Hello"))
    start = len(gateway.log_file.read_bytes())
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json=BACKGROUND)).json()
        await until(http, made["id"], "completed")
    log = await gateway.logged(f"RUN background .*response={made['id']}", start)
    (line,) = [line for line in log.splitlines() if "RUN background" in line and made["id"] in line]
    assert f"model={MODEL} stream=false" in line
    assert "outcome=completed input_tokens=9 cached_tokens=0 output_tokens=4" in line
    (request,) = [line for line in log.splitlines() if "POST /v1/responses" in line and made["id"] in line]
    assert request.split()[3] == line.split()[3]  # the request's id
