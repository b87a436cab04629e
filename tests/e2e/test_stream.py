"""Streams: as they are made, replayed when stored, and followed by others while they run."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import openai
import pytest
from openai.types.responses import FunctionToolParam, ResponseFunctionToolCall
from pydantic import BaseModel

from tests.e2e.streams import MODEL, Frames, Json, final, id_in, replay, split
from tests.support.gateway import Gateway
from tests.support.judge import judge
from tests.support.script import Call, Cut, Gate, Raw, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

RICH = Reply(
    pieces=[
        *(Thought("Let me "), Thought("look.")),
        *(Text("Rome: "), Text("\u2028 \U0001f31e\n\ndata: no field"), Text("")),
        *(
            Call("weather", ['{"city"', ':"Rome"}'], id="call_a"),
            Call("weather", ['{"city":"Oslo"}'], id="call_b", index=1),
        ),
    ],
    usage={
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 5},
    },
)
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
REQUEST: dict[str, Any] = {"model": MODEL, "input": "Hi", "stream": True, "tools": [WEATHER]}


async def test_every_event_is_valid_and_in_its_place(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(RICH)
    async with gateway.http() as http:
        answer = await http.post("/v1/responses", json=REQUEST)

    response = final(answer.content)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response["status"] == "completed"
    assert [item["type"] for item in response["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 5
    assert b"[DONE]" not in answer.content


async def test_a_stream_and_a_plain_answer_say_the_same(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(RICH, RICH)
    async with gateway.http() as http:
        streamed = final((await http.post("/v1/responses", json=REQUEST)).content)
        plain = (await http.post("/v1/responses", json={**REQUEST, "stream": False})).json()

    assert streamed.keys() == plain.keys()
    assert _without_ids(streamed) == _without_ids(plain)


async def test_the_replay_of_a_stored_stream_is_the_stream(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(RICH)
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json=REQUEST)).content
        response, count = final(made), len(split(made))

        assert await replay(http, response["id"]) == made
        for after in (0, 7, count - 2):
            assert await replay(http, response["id"], starting_after=after) == b"".join(split(made)[after + 1 :])
        assert await replay(http, response["id"], starting_after=count - 1) == b""
        assert (await http.get(f"/v1/responses/{response['id']}")).json() == response


async def test_the_replay_of_a_plain_answer_is_a_stream(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(RICH)
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json={**REQUEST, "stream": False})).json()
        assert final(await replay(http, made["id"])) == made


async def test_the_helper_streams_and_replays(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script(RICH)
    async with client.responses.stream(model=MODEL, input="Hi", tools=[WEATHER]) as live:
        events = [event async for event in live]
        final = await live.get_final_response()
    assert [item.arguments for item in final.output if isinstance(item, ResponseFunctionToolCall)] == [
        '{"city":"Rome"}',
        '{"city":"Oslo"}',
    ]

    for after in (None, 3, len(events) - 2):
        asked = openai.omit if after is None else after
        async with client.responses.stream(response_id=final.id, starting_after=asked) as replay:
            again = [event async for event in replay]
            assert (await replay.get_final_response()).id == final.id
        assert again == [event for event in events if event.sequence_number > (after or -1)]


async def test_retrieve_streams_from_a_number(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    made = await client.responses.create(model=MODEL, input="Hi")
    stream = await client.responses.retrieve(made.id, stream=True, starting_after=2)

    numbers = [event.sequence_number async for event in stream]

    assert numbers == list(range(3, numbers[-1] + 1))
    assert len(upstream.requests) == 1


async def test_the_helper_parses(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    class City(BaseModel):
        name: str

    upstream.script(Reply.say('{"name":', '"Rome"}'))
    async with client.responses.stream(model=MODEL, input="A city?", text_format=City) as stream:
        final = await stream.get_final_response()

    assert final.output_parsed == City(name="Rome")


async def test_others_follow_a_live_stream(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    first, second = Gate(), Gate()
    upstream.script(Reply(pieces=[Text("One "), first, Text("two "), second, Text("three")]))
    async with gateway.http() as http, http.stream("POST", "/v1/responses", json=REQUEST) as made:
        owner = Frames(made)
        created = await owner.take()
        response_id = id_in(created)
        await first.reached()

        async with asyncio.TaskGroup() as readers:
            whole = readers.create_task(replay(http, response_id))
            rest = readers.create_task(replay(http, response_id, starting_after=2))
            snapshot = (await http.get(f"/v1/responses/{response_id}")).json()
            first.open()
            await second.reached()
            second.open()
            late = [readers.create_task(replay(http, response_id)) for _ in range(12)]  # before, at and after the end
            stream = created + await owner.rest()

    judge(stream)
    assert (snapshot["id"], snapshot["status"]) == (response_id, "in_progress")
    assert whole.result() == stream
    assert {task.result() for task in late} == {stream}
    assert rest.result() == b"".join(split(stream)[3:])


async def test_a_response_in_progress_cannot_be_deleted(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("One "), gate, Text("two")]))
    async with gateway.http() as http:
        async with http.stream("POST", "/v1/responses", json=REQUEST) as made:
            frames = Frames(made)
            response_id = id_in(await frames.take())
            refused = await http.delete(f"/v1/responses/{response_id}")
            gate.open()
            await frames.rest()
        deleted = await http.delete(f"/v1/responses/{response_id}")

    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "response_in_progress")
    assert refused.headers["x-should-retry"] == "false"
    assert deleted.json() == {"id": response_id, "object": "response", "deleted": True}


async def test_a_deleted_stream_is_gone_at_once_in_every_form(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(RICH)
    async with gateway.http() as http:
        made = final((await http.post("/v1/responses", json=REQUEST)).content)["id"]
        await http.delete(f"/v1/responses/{made}")

        assert (await http.get(f"/v1/responses/{made}")).status_code == 404
        assert (await http.get(f"/v1/responses/{made}", params={"stream": "true"})).status_code == 404
        assert (await http.get(f"/v1/responses/{made}/input_items")).status_code == 404


OUT_OF_MEMORY = Raw(b'data: {"error":{"message":"out of memory","code":500}}\n\n')


@pytest.mark.parametrize("fault", [Cut(), OUT_OF_MEMORY], ids=["cut", "error"])
async def test_a_late_error_ends_the_stream_and_is_stored(
    gateway: Gateway, upstream: ScriptedUpstream, fault: Cut | Raw
) -> None:
    upstream.script(Reply(pieces=[Text("Half an ans"), fault]))
    async with gateway.http() as http:
        made = (await http.post("/v1/responses", json=REQUEST)).content
        response = final(made)

        assert judge(made).types[-2:] == ["error", "response.failed"]
        assert response["status"] == "failed"
        assert response["output"][0]["content"][0]["text"] == "Half an ans"
        assert (await http.get(f"/v1/responses/{response['id']}")).json() == response
        assert await replay(http, response["id"]) == made


@pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)
async def test_the_raw_client_sees_a_failure_as_events(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Text("Half"), Cut()]))
    stream = await client.responses.create(model=MODEL, input="Hi", stream=True)

    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass


def _without_ids(value: Any) -> Any:
    match value:
        case dict():
            fields = cast("Json", value)
            return {
                name: _without_ids(field)
                for name, field in fields.items()
                if name not in {"id", "created_at", "completed_at"}
            }
        case list():
            entries = cast("list[Any]", value)
            return [_without_ids(entry) for entry in entries]
        case _:
            return value
