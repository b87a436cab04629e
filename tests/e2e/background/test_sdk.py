"""The official client for Python: background responses that are left, resumed, read and cancelled on another replica.

The client validates every response and every event strictly.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseCreatedEvent,
    ResponseIncompleteEvent,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
)
from pydantic import BaseModel

from tests.e2e.background.pairs import Replicas
from tests.e2e.clients import STRICT_CITY
from tests.e2e.streams import MODEL, Json, id_in
from tests.support.script import Call, Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

WEATHER: Any = {"type": "function", "name": "get_weather", "parameters": STRICT_CITY, "strict": True}
CALL = Call("get_weather", ['{"city":', '"Paris"}'])


class Person(BaseModel):
    """What the model is asked for."""

    name: str


async def until_ended(client: openai.AsyncOpenAI, response_id: str) -> Response:
    """The response at its end, as a client polls for it."""
    async with asyncio.timeout(20):
        found = await client.responses.retrieve(response_id)
        while found.status in ("queued", "in_progress"):
            await asyncio.sleep(0.02)
            found = await client.responses.retrieve(response_id)
    return found


def shown(response: Response) -> Json:
    """The response as JSON, without what the client's helpers add."""
    return json.loads(response.to_json(), object_hook=_without_parsed)


def _without_parsed(value: Json) -> Json:
    return {name: part for name, part in value.items() if name not in ("parsed", "parsed_arguments")}


def _response_of(event: ResponseStreamEvent) -> Response:
    assert isinstance(event, ResponseCreatedEvent | ResponseCompletedEvent | ResponseIncompleteEvent)
    return event.response


def _is_text(event: object) -> bool:
    return isinstance(event, ResponseTextDeltaEvent)


async def _leave(stream: AsyncIterator[Any]) -> list[Any]:
    """The events up to the first piece of text, where the client goes away."""
    seen: list[Any] = []
    async for event in stream:
        seen.append(event)
        if _is_text(event):
            break
    return seen


async def test_a_stream_is_left_and_resumed_elsewhere(places: Replicas, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("One "), Text("two "), gate, Text("three"), CALL]))
    async with places[0].client() as maker, places[1].client() as reader:
        request: Any = {"model": MODEL, "input": "Hi", "tools": [WEATHER]}
        async with await maker.responses.create(**request, background=True, stream=True) as stream:
            seen = await _leave(stream)
        response_id = _response_of(seen[0]).id
        await gate.reached()
        gate.open()
        resumed = await reader.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number)
        seen += [event async for event in resumed]
        whole = [event async for event in await reader.responses.retrieve(response_id, stream=True)]
        stored = await maker.responses.retrieve(response_id)

    assert seen == whole
    assert [event.sequence_number for event in whole] == list(range(len(whole)))
    assert _response_of(whole[-1]) == stored
    assert (stored.status, stored.background, stored.output_text) == ("completed", True, "One two three")


async def test_the_helper_resumes_with_the_whole_response(places: Replicas, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("One "), gate, Text("two"), CALL]))
    async with places[0].client() as maker, places[1].client() as reader:
        async with maker.responses.stream(model=MODEL, input="Hi", background=True, tools=[WEATHER]) as stream:
            seen = await _leave(aiter(stream))
        response_id, last = seen[0].response.id, seen[-1].sequence_number
        await gate.reached()
        gate.open()
        async with reader.responses.stream(response_id=response_id, starting_after=last, tools=[WEATHER]) as resumed:
            numbers = [event.sequence_number async for event in resumed]
            final = await resumed.get_final_response()
        stored = await reader.responses.retrieve(response_id)

    assert numbers == list(range(last + 1, numbers[-1] + 1))
    assert shown(final) == shown(stored)
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]


async def test_structured_output_is_parsed_after_a_resumption(places: Replicas, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text('{"name":'), gate, Text('"Ada"}')]), Reply.say('{"name":"Ada"}'))
    async with places[0].client() as maker, places[1].client() as reader:
        async with maker.responses.stream(model=MODEL, input="Who?", background=True, text_format=Person) as stream:
            created = await anext(stream)
        assert created.type == "response.created"
        await gate.reached()
        gate.open()
        response_id = created.response.id
        async with reader.responses.stream(response_id=response_id, starting_after=0, text_format=Person) as resumed:
            final = await resumed.get_final_response()
        queued = await maker.responses.parse(model=MODEL, input="Who?", background=True, text_format=Person)
        polled = await until_ended(reader, queued.id)

    assert final.output_parsed == Person(name="Ada")
    assert (queued.status, queued.output_parsed, queued.output) == ("queued", None, [])
    assert Person.model_validate_json(polled.output_text) == Person(name="Ada")


@pytest.mark.parametrize("stream", [False, True])
async def test_it_can_be_read_at_every_moment(places: Replicas, upstream: ScriptedUpstream, *, stream: bool) -> None:
    gates = [Gate() for _ in range(4)]
    pieces = [gates[0], Thought("Hm."), gates[1], Text("One "), gates[2], Text("two"), CALL, gates[3]]
    upstream.script(Reply(pieces=pieces))
    async with places[0].client() as maker, places[1].client() as reader:
        request: Any = {"model": MODEL, "input": "Hi", "background": True, "tools": [WEATHER]}
        made: Any = await maker.responses.create(**request, stream=stream)
        if stream:
            response_id = _response_of(await anext(made)).id
            await made.close()
        else:
            response_id = made.id
        for gate in gates:
            await gate.reached()
            for client in (maker, reader):
                running = await client.responses.retrieve(response_id)
                assert (running.status, running.background, running.completed_at) == ("in_progress", True, None)
                assert (running.usage, running.error, running.incomplete_details) == (None, None, None)
            gate.open()
        ended = await until_ended(reader, response_id)
        assert ended == await maker.responses.retrieve(response_id)
    assert ended.status == "completed"
    assert ended.completed_at is not None


async def test_a_cancelled_one_ends_for_the_helper(places: Replicas, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an answer"), gate]))
    async with places[0].client() as maker, places[1].client() as reader:
        async with maker.responses.stream(model=MODEL, input="Hi", background=True) as stream:
            events = await _leave(aiter(stream))
            cancelled = await reader.responses.cancel(events[0].response.id)
            events += [event async for event in stream]
        async with reader.responses.stream(response_id=cancelled.id) as replayed:
            again = [event async for event in replayed]
        assert await maker.responses.cancel(cancelled.id) == cancelled == await maker.responses.retrieve(cancelled.id)
    assert events == again
    assert _response_of(events[-1]) == cancelled
    assert (cancelled.status, cancelled.output_text) == ("cancelled", "Half an answer")


async def test_raw_and_streaming_responses(places: Replicas, upstream: ScriptedUpstream) -> None:
    upstream.script(*[Reply(pieces=[Thought("Hm."), Text("Hello")])] * 2)
    async with places[0].client() as maker, places[1].client() as reader:
        raw = await maker.responses.with_raw_response.create(model=MODEL, input="Hi", background=True)
        assert (raw.parse().status, raw.request_id) == ("queued", raw.headers["x-request-id"])
        ended = await until_ended(reader, raw.parse().id)
        again = await reader.responses.with_raw_response.cancel(ended.id)
        assert again.parse() == ended

        creating = maker.responses.with_streaming_response.create(model=MODEL, input="Hi", background=True, stream=True)
        async with creating as answer:
            lines = [line async for line in answer.iter_lines()]
        response_id = id_in("\n".join(lines).encode())
        async with reader.responses.with_streaming_response.retrieve(response_id, stream=True) as answer:
            assert [line async for line in answer.iter_lines()] == lines


async def test_the_synchronous_client(places: Replicas, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Thought("Hm."), Text("One "), Text("two")]))
    maker, reader = places[0].sync_client(), places[1].sync_client()

    def leave_and_resume() -> tuple[Response, Response]:
        with maker, reader:
            with maker.responses.create(model=MODEL, input="Hi", background=True, stream=True) as stream:
                created = _response_of(next(stream))
            assert created.status == "queued"
            with reader.responses.stream(response_id=created.id, starting_after=0) as resumed:
                final = resumed.get_final_response()
            return final, reader.responses.retrieve(created.id)

    final, stored = await asyncio.to_thread(leave_and_resume)
    assert shown(final) == shown(stored)
    assert final.output_text == "One two"


async def test_a_failure_is_raised_by_the_stream_and_stored(places: Replicas, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.error(400, {"error": {"message": "No such thing.", "code": "bad_thing"}}))
    async with places[0].client() as maker, places[1].client() as reader:
        stream = await maker.responses.create(model=MODEL, input="Hi", background=True, stream=True)
        created = _response_of(await anext(stream))
        with pytest.raises(openai.APIError, match="No such thing"):
            _ = [event async for event in stream]
        with pytest.raises(openai.APIError, match="No such thing"):
            async with reader.responses.stream(response_id=created.id) as resumed:
                await resumed.get_final_response()
        failed = await until_ended(reader, created.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert "No such thing" in failed.error.message
