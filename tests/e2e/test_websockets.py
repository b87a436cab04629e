"""`/v1/responses` over WebSocket: what clients send and get, lanes, and what only a connection knows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from openai.lib.responses_websocket import AsyncResponsesWebSocketSession, ResponsesWebSocketLimits
from openai.resources.responses.responses import AsyncResponsesConnection
from openai.types.responses import Response

from tests.e2e.streams import MODEL, Json, sent, split
from tests.support.gateway import Gateway
from tests.support.script import Call, Gate, Reply, Text
from tests.support.upstream import ScriptedUpstream
from tests.support.websockets import Socket, socket

UNKNOWN = "0190b7c2-3f4e-7abc-8def-0123456789ab"
on_sqlite = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)


async def test_the_official_client(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("One"), Reply.say("Two"))
    async with gateway.client() as client, client.responses.connect() as connection:
        await connection.response.create(model=MODEL, input="First")
        types, first = await _response(connection)
        await connection.response.create(model=MODEL, input="Second", previous_response_id=first.id)
        _, second = await _response(connection)

        assert (await client.responses.retrieve(first.id)).output_text == "One"

    assert (types[:2], types[-1]) == (["response.created", "response.in_progress"], "response.completed")
    assert (second.output_text, second.previous_response_id) == ("Two", first.id)
    assert [message["content"] for message in sent(upstream)] == ["First", "One", "Second"]


async def _response(connection: AsyncResponsesConnection) -> tuple[list[str], Response]:
    """The types of a response's events, and the response."""
    types: list[str] = []
    async for event in connection:
        types.append(event.type)
        if event.type == "response.completed":
            return types, event.response
    raise AssertionError("the connection was closed")


def test_the_official_client_without_asyncio(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("Hello"))
    with gateway.sync_client() as client, client.responses.connect() as connection:
        connection.response.create(model=MODEL, input="Hi", store=False)
        deltas: list[str] = []
        for event in connection:
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
            if event.type == "response.completed":
                break

    assert deltas == ["Hello"]


async def test_the_official_client_with_lanes(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("One"), Reply.say("Two"))
    limits = ResponsesWebSocketLimits(
        max_lanes=3, max_events_per_lane=100, max_events=300, max_bytes_per_lane=100_000, max_bytes=300_000
    )
    async with (
        gateway.client() as client,
        client.responses.connect() as connection,
        AsyncResponsesWebSocketSession(connection, limits=limits) as session,
    ):
        left, right = session.lane("left"), session.lane("right")
        await left.send({"type": "response.create", "model": MODEL, "input": "a"})
        answers = [(await left.get_final_response()).output_text]
        await right.send({"type": "response.create", "model": MODEL, "input": "b"})
        answers.append((await right.get_final_response()).output_text)

    assert answers == ["One", "Two"]


async def test_events_are_those_of_a_stream(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    reply = Reply(pieces=[Text("Look: "), Call("look", ['{"a":', "1}"])])
    upstream.script(reply, reply)
    request: Json = {"input": "Zeile\u2028", "tools": [{"type": "function", "name": "look", "parameters": {}}]}
    async with gateway.http() as http, socket(gateway, MODEL) as ws:
        stream = (await http.post("/v1/responses", json={"model": MODEL, "stream": True, **request})).content
        await ws.create(**request)
        events = await ws.events()

    over_http = [json.loads(frame.split(b"\ndata: ")[1]) for frame in split(stream)]
    assert [(event["type"], list(event)) for event in events] == [(event["type"], list(event)) for event in over_http]
    assert events[-1]["response"].keys() == over_http[-1]["response"].keys()


@on_sqlite
async def test_mistakes_are_answered_and_survived(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("Still here"))
    async with socket(gateway, MODEL) as ws:
        for text, code, param in MISTAKES:
            await ws.connection.send(text)
            event = await ws.take()
            assert (event["type"], event["status"]) == ("error", 400), text
            assert (event["error"]["code"], event["error"]["param"]) == (code, param), text
            assert event["error"]["type"] == "invalid_request_error"
        assert (await ws.answer(input="Hi"))["output"][0]["content"][0]["text"] == "Still here"


def _mistake(**fields: object) -> str:
    return json.dumps({"type": "response.create", "model": MODEL, "input": "Hi", **fields})


MISTAKES: list[tuple[str | bytes, str, str | None]] = [
    ("nonsense", "json_parse_error", None),
    ("", "json_parse_error", None),
    ("[]", "json_parse_error", None),
    ("[" * 100_000, "json_parse_error", None),
    (b'{"type":"response.create"}', "json_parse_error", None),
    ("{}", "missing_required_parameter", "type"),
    ('{"type":"response.cancel"}', "invalid_value", "type"),
    ('{"type":"response.create"}', "missing_required_parameter", "model"),
    (_mistake(temperature=9), "invalid_value", "temperature"),
    (_mistake(nonsense=1), "unknown_parameter", "nonsense"),
    (_mistake(background=True), "unsupported_parameter", "background"),
    (_mistake(generate="no"), "invalid_type", "generate"),
    (_mistake(input="\0"), "invalid_value", "input"),
    (_mistake(stream_id=""), "invalid_stream_id", "stream_id"),
    (_mistake(stream_id="a b"), "invalid_stream_id", "stream_id"),
    (_mistake(stream_id="a" * 257), "invalid_stream_id", "stream_id"),
    (_mistake(stream_id=7), "invalid_stream_id", "stream_id"),
    (_mistake(previous_response_id=UNKNOWN), "previous_response_not_found", "previous_response_id"),
]


async def test_an_upstreams_failure(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.error(400, {"error": {"message": "No."}}))
    async with socket(gateway, MODEL) as ws:
        refused = await ws.error(input="Hi", stream_id="a")
        assert (refused["status"], refused["stream_id"]) == (400, "a")


async def test_a_failed_response_has_one_end(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Text("Half")], finish_reason=None, done=False), Reply.say("Next"))
    async with socket(gateway, MODEL) as ws:
        await ws.create(input="Hi")
        events = await ws.events()
        assert events[-1]["type"] == "response.failed"
        assert "error" not in [event["type"] for event in events]
        assert (await ws.answer(input="Hi"))["status"] == "completed"


async def test_lanes(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    first, second = Gate(), Gate()
    upstream.script(
        Reply(pieces=[Text("a1"), first]), Reply(pieces=[Text("b1"), second]), Reply.say("a2"), Reply.say("default")
    )
    async with socket(gateway, MODEL) as ws:
        await ws.create(input="1", stream_id="a")
        await first.reached()
        await ws.create(input="2", stream_id="a")
        await ws.create(input="1", stream_id="b")
        await second.reached()
        assert [request.body["messages"][-1]["content"] for request in upstream.requests] == ["1", "1"]
        second.open()
        assert _text(await ws.until("response.completed", "b")) == "b1"
        first.open()
        assert _text(await ws.until("response.completed", "a")) == "a1"
        assert _text(await ws.until("response.completed", "a")) == "a2"
        assert (await ws.answer(input="3"))["output"][0]["content"][0]["text"] == "default"


def _text(event: Json) -> str:
    text: str = event["response"]["output"][0]["content"][0]["text"]
    return text


async def test_sixteen_are_active(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gates = [Gate() for _ in range(17)]
    upstream.script(*(Reply(pieces=[Text("Hi"), gate]) for gate in gates))
    async with socket(gateway, MODEL) as ws:
        for number in range(17):
            await ws.create(input="Hi", stream_id=f"lane-{number}")
        await asyncio.gather(*(gate.reached() for gate in gates[:16]))
        assert len(upstream.requests) == 16
        gates[0].open()
        await gates[16].reached()
        for gate in gates[1:]:
            gate.open()
        ended = 0
        while ended < 17:
            ended += (await ws.take())["type"] == "response.completed"


async def test_thirty_two_names(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with socket(gateway, MODEL) as ws:
        for number in range(32):
            await ws.answer(input="Hi", stream_id=f"{number}", generate=False)
        error = await ws.error(input="Hi", stream_id="one more")
        assert error["error"]["code"] == "invalid_stream_id"
        error = await ws.error(input="Hi", stream_id="one.more")
        assert (error["error"]["code"], error["stream_id"]) == ("websocket_stream_limit_reached", "one.more")
        await ws.answer(input="Hi", stream_id="7", generate=False)
        await ws.answer(input="Hi", generate=False)
    assert not upstream.requests


async def test_what_is_not_stored_belongs_to_the_connection(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("One"), Reply.say("Two"), Reply.say("Three"))
    async with gateway.http() as http, socket(gateway, MODEL) as ws, socket(gateway, MODEL) as other:
        first = await ws.answer(input="a", store=False)
        second = await ws.answer(input="b", store=False, previous_response_id=first["id"])
        third = await ws.answer(input="c", store=False, previous_response_id=second["id"], stream_id="fork")
        assert third["previous_response_id"] == second["id"]
        assert [message["content"] for message in sent(upstream)] == ["a", "One", "b", "Two", "c"]

        elsewhere = await other.error(input="d", store=False, previous_response_id=third["id"])
        assert elsewhere["error"]["code"] == "previous_response_not_found"
        for item in (third["output"][0]["id"], second["output"][0]["id"]):
            reference = await other.error(input=[{"type": "item_reference", "id": item}], store=False)
            assert reference["error"]["param"] == "input"
        posted = await http.post(
            "/v1/responses", json={"model": MODEL, "input": "d", "previous_response_id": third["id"]}
        )
        assert (posted.status_code, posted.json()["error"]["code"]) == (400, "previous_response_not_found")
        assert (await http.get(f"/v1/responses/{third['id']}")).status_code == 404
        stored = await ws.error(input="d", previous_response_id=third["id"])
        assert stored["error"]["param"] == "store"


async def test_a_stored_parent_is_continued_without_storing(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.say("One"), Reply.say("Two"), Reply.say("Three"))
    async with gateway.http() as http, socket(gateway, MODEL) as ws:
        parent = (await http.post("/v1/responses", json={"model": MODEL, "input": "a"})).json()
        child = await ws.answer(input="b", store=False, previous_response_id=parent["id"])
        await ws.answer(input="c", store=False, previous_response_id=child["id"])
        assert [message["content"] for message in sent(upstream)] == ["a", "One", "b", "Two", "c"]
        await http.delete(f"/v1/responses/{parent['id']}")
        gone = await ws.error(input="d", store=False, previous_response_id=child["id"])
        assert gone["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("store", [True, False])
async def test_a_warm_up(gateway: Gateway, upstream: ScriptedUpstream, *, store: bool) -> None:
    async with socket(gateway, MODEL) as ws:
        await ws.create(input="a", instructions="Be brief.", generate=False, store=store)
        events = await ws.events()
        assert [event["type"].split(".")[-1] for event in events] == ["created", "in_progress", "completed"]
        assert (events[-1]["response"]["output"], upstream.requests) == ([], [])
        empty = await ws.answer(
            input=[], generate=False, store=store, previous_response_id=events[-1]["response"]["id"]
        )
        await ws.answer(input="b", store=store, previous_response_id=empty["id"])
        unknown = await ws.error(input="a", generate=False, previous_response_id=UNKNOWN)
        assert unknown["error"]["code"] == "previous_response_not_found"

    assert [message["content"] for message in sent(upstream)] == ["a", "b"]


async def test_a_warm_up_in_a_conversation(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """It adds its input, and leaves the conversation unlocked."""
    async with gateway.client() as client, socket(gateway, MODEL) as ws:
        conversation = await client.conversations.create()
        warm = await ws.answer(input="a", generate=False, conversation=conversation.id)
        assert (warm["status"], upstream.requests) == ("completed", [])
        assert (await ws.answer(input="b", conversation=conversation.id))["status"] == "completed"
        unknown = await ws.error(input="a", generate=False, conversation="conv_unknown")

    assert unknown["error"]["code"] == "conversation_not_found"
    assert [message["content"] for message in sent(upstream)] == ["a", "b"]


async def _orphan(ws: Socket, parent: str, lane: str | None = None) -> str:
    """Continue with the result of a call that nobody made; returns the error's code."""
    result = [{"type": "function_call_output", "call_id": "call_none", "output": "?"}]
    event = await ws.error(input=result, store=False, previous_response_id=parent, stream_id=lane)
    code: str = event["error"]["code"]
    return code


async def test_a_failed_continuation_evicts_its_parent(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with socket(gateway, MODEL) as ws:
        parent = (await ws.answer(input="a", store=False))["id"]
        assert await _orphan(ws, parent, "fork") != "previous_response_not_found"
        await ws.answer(input="b", store=False, previous_response_id=parent)
        assert await _orphan(ws, parent) != "previous_response_not_found"
        again = await ws.error(input="b", store=False, previous_response_id=parent)
        assert (again["status"], again["error"]["code"]) == (400, "previous_response_not_found")
    assert len(upstream.requests) == 2


@on_sqlite
async def test_steering_is_refused_by_name(gateway: Gateway) -> None:
    async with socket(gateway, MODEL) as ws:
        await ws.send({"type": "response.steer", "previous_response_id": UNKNOWN, "input": "Stop."})
        event = await ws.take()
    assert (event["type"], event["error"]["code"]) == ("response.steer.failed", "steering_not_supported")
    assert event["steer"] == {"previous_response_id": UNKNOWN, "input": "Stop."}


async def test_another_project(gateway: Gateway, upstream: ScriptedUpstream, command: Callable[..., str]) -> None:
    key = (await asyncio.to_thread(command, "keys", "create", "--project", "apart")).strip()
    async with socket(gateway, MODEL) as ws, socket(gateway, MODEL, key) as stranger:
        for store in (True, False):
            made = await ws.answer(input="Secret.", store=store)
            foreign = await stranger.error(input="?", previous_response_id=made["id"])
            unknown = await stranger.error(input="?", previous_response_id=UNKNOWN)
            assert json.dumps(foreign).replace(made["id"], UNKNOWN) == json.dumps(unknown)
            item = [{"type": "item_reference", "id": made["output"][0]["id"]}]
            assert (await stranger.error(input=item))["error"]["param"] == "input"
    assert len(upstream.requests) == 2
