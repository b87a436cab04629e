"""One turn at a time: a conversation is locked while a response is generated in it, in whichever process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.background.test_background import until
from tests.e2e.streams import MODEL, Frames, final, id_in, sent
from tests.e2e.test_conversations import respond, said, texts
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Gate, Reply, Text
from tests.support.services import Valkey
from tests.support.upstream import ScriptedUpstream


@pytest.fixture
async def http(gateway: Gateway) -> AsyncGenerator[httpx.AsyncClient]:
    async with gateway.http() as client:
        yield client


@pytest.fixture
async def conversation(http: httpx.AsyncClient) -> str:
    """An empty one."""
    return (await http.post("/v1/conversations")).json()["id"]


def is_locked(answer: httpx.Response) -> bool:
    """Whether a request was refused because of the lock, and told when to come back."""
    if answer.status_code != 409:
        return False
    assert answer.json()["error"]["code"] == "conversation_locked"
    assert "few seconds" in answer.json()["error"]["message"]
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("2", "true")
    return True


@pytest.mark.parametrize("stream", [False, True])
async def test_two_turns_at_once(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Hello"), gate, Text(" there.")]))
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(respond(http, conversation, input="One.", stream=stream))
        await gate.reached()
        assert is_locked(await respond(http, conversation, input="Two."))
        assert is_locked(await respond(http, conversation, input="Two.", stream=True))
        assert is_locked(await respond(http, conversation, input="Two.", background=True))
        assert is_locked(await http.delete(f"/v1/conversations/{conversation}"))
        reading = await respond(http, conversation, input="Only reading.", store=False)
        adding = await http.post(f"/v1/conversations/{conversation}/items", json={"items": [said("Between.")]})
        gate.open()

    assert (first.result().status_code, reading.status_code, adding.status_code) == (200, 200, 200)
    assert await texts(http, conversation) == ["Between.", "One.", "Hello there."]
    assert (await respond(http, conversation, input="Two.")).status_code == 200
    assert len(sent(upstream)) == 4


async def test_the_client_waits_by_itself(
    gateway: Gateway, http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream
) -> None:
    """The official client tries again when it is told to."""
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Hello"), gate, Text(" there.")]))
    async with (
        openai.AsyncOpenAI(base_url=f"{gateway.base_url}/v1", api_key=gateway.key, max_retries=3) as client,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(respond(http, conversation, input="One."))
        await gate.reached()
        start = len(gateway.log())
        second = tasks.create_task(client.responses.create(model=MODEL, input="Two.", conversation=conversation))
        await gateway.logged("conversation_locked", start)
        gate.open()
    assert first.result().status_code == 200
    assert second.result().status == "completed"
    assert await texts(http, conversation) == ["One.", "Hello there.", "Two.", "Hello there."]


async def test_of_many_turns_at_once_each_stands_whole(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream
) -> None:
    async with asyncio.TaskGroup() as tasks:
        turns = [tasks.create_task(respond(http, conversation, input=f"{number}.")) for number in range(12)]
    answers = [turn.result() for turn in turns]
    made = [answer for answer in answers if not is_locked(answer)]
    assert {answer.status_code for answer in made} == {200}
    said_then = await texts(http, conversation)
    assert len(said_then) == 2 * len(made)
    assert set(said_then[1::2]) == {"Hello there."}
    assert len(upstream.requests) == len(made)


async def test_a_refused_request_leaves_no_lock(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream
) -> None:
    unread = [{"type": "function_call_output", "call_id": "c", "output": "x"}]
    for fields in (
        {"input": unread},
        {"input": unread, "stream": True},
        {"temperature": 3},
        {"top_p": 3, "stream": True},
    ):
        assert (await respond(http, conversation, **fields)).status_code == 400
    assert (await respond(http, conversation)).status_code == 200
    assert len(upstream.requests) == 1


async def test_a_client_that_leaves_frees_the_conversation(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream
) -> None:
    """Its question is kept, half an answer is not."""
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Half an"), gate]))
    body = {"model": MODEL, "conversation": conversation, "input": "One.", "stream": True}
    async with http.stream("POST", "/v1/responses", json=body) as answer:
        await Frames(answer).until("response.in_progress")
        await gate.reached()
    async with asyncio.timeout(20):
        while is_locked(second := await respond(http, conversation, input="Two.")):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    gate.open()
    assert second.status_code == 200
    assert [message["content"] for message in sent(upstream)] == ["One.", "Two."]


# --- Background


@pytest.mark.parametrize("stream", [False, True])
async def test_a_background_turn(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Hello"), gate, Text(" there.")]))
    body = {"model": MODEL, "conversation": conversation, "input": "One.", "background": True, "stream": stream}
    async with http.stream("POST", "/v1/responses", json=body) as answer:
        frames = Frames(answer)
        made = id_in(await frames.take()) if stream else (await answer.aread(), answer.json()["id"])[1]
        await gate.reached()
        assert is_locked(await respond(http, conversation))
        gate.open()
        if stream:
            await frames.until("response.completed")
    ended = await until(http, made, "completed")
    assert ended["conversation"] == {"id": conversation}
    assert await texts(http, conversation) == ["One.", "Hello there."]
    assert (await respond(http, conversation, input="Two.")).status_code == 200
    assert len(sent(upstream)) == 3


async def test_a_cancelled_background_turn(
    http: httpx.AsyncClient, conversation: str, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Half an"), gate]))
    made = (await respond(http, conversation, input="One.", background=True)).json()["id"]
    await gate.reached()
    cancelled = (await http.post(f"/v1/responses/{made}/cancel")).json()
    gate.open()
    assert cancelled["status"] == "cancelled"
    assert (await respond(http, conversation, input="Two.")).status_code == 200
    assert await texts(http, conversation) == ["One.", "Two.", "Hello there."]


# --- Replicas


async def test_the_lock_holds_on_every_replica(
    postgres_gateway: Gateway, replica: Gateway, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Hello"), gate, Text(" there.")]))
    async with postgres_gateway.http() as here, replica.http() as there, asyncio.TaskGroup() as tasks:
        conversation = (await here.post("/v1/conversations")).json()["id"]
        first = tasks.create_task(respond(here, conversation, input="One.", stream=True))
        await gate.reached()
        assert is_locked(await respond(there, conversation, input="Two."))
        gate.open()
        final((await first).content)
        assert (await respond(there, conversation, input="Two.")).status_code == 200
        assert [message["content"] for message in sent(upstream)] == ["One.", "Hello there.", "Two."]
        assert len(await texts(here, conversation)) == 4


async def test_a_lock_is_held_longer_than_its_lease(
    postgres_gateway: Gateway, replica: Gateway, upstream: ScriptedUpstream
) -> None:
    """As long as its process lives, however long the answer takes."""
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Hello"), gate, Text(" there.")]))
    async with postgres_gateway.http() as here, replica.http() as there, asyncio.TaskGroup() as tasks:
        conversation = (await here.post("/v1/conversations")).json()["id"]
        first = tasks.create_task(respond(here, conversation, input="One."))
        await gate.reached()
        until_over = asyncio.get_running_loop().time() + 12  # the lease is of 10 seconds
        while asyncio.get_running_loop().time() < until_over:
            assert is_locked(await respond(there, conversation, input="Two."))
            await asyncio.sleep(0.5)
        gate.open()
        assert (await first).status_code == 200


async def test_the_lock_of_a_dead_process_ends(
    postgres_gateway: Gateway, upstream: ScriptedUpstream, tmp_path: Path, shared_database: str, valkey: Valkey
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Hello"), gate]))
    doomed = running_gateway(tmp_path, upstream.url, database_url=shared_database, redis_url=valkey.url)
    async with postgres_gateway.http() as there:
        conversation = (await there.post("/v1/conversations")).json()["id"]
        with doomed as dying:
            async with dying.http() as here, asyncio.TaskGroup() as tasks:
                first = tasks.create_task(_lost(here, conversation))
                await gate.reached()
                assert is_locked(await respond(there, conversation, input="Two."))
                dying.process.kill()
                await first
                gate.open()
        async with asyncio.timeout(30):
            while is_locked(second := await respond(there, conversation, input="Two.")):  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.2)
        assert second.status_code == 200
        assert await texts(there, conversation) == ["Two.", "Hello there."]


async def _lost(http: httpx.AsyncClient, conversation: str) -> None:
    with pytest.raises(httpx.TransportError):
        await respond(http, conversation, input="One.")
