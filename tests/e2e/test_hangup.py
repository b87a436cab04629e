"""A client that hangs up: the upstream is left at once, and what was produced is kept."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator

import httpx
import pytest

from tests.e2e.streams import MODEL, Frames, final, id_in, replay
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def streaming_upstream(
    upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Gateway]:
    """A gateway that asks its upstream for a stream, whatever its client asked for."""
    upstream_server.reset()
    with running_gateway(
        tmp_path_factory.mktemp("hangup"), upstream_server.url, upstream_dialect="dashscope"
    ) as running:
        yield running


async def test_in_mid_stream(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    stall = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), Text("Half an "), Text("answer"), stall, Text(" more")]))
    async with gateway.http() as http:
        async with http.stream("POST", "/v1/responses", json={"model": MODEL, "input": "Hi", "stream": True}) as answer:
            frames = Frames(answer)
            response_id = id_in(await frames.take())
            await stall.reached()
            await frames.until("response.output_text.delta")
            await frames.until("response.output_text.delta")

        async with asyncio.timeout(1):
            left = await upstream.hang_up()
        told = final(await replay(http, response_id))
        stored = (await http.get(f"/v1/responses/{response_id}")).json()

    assert left.body["model"] == MODEL
    assert stored == told
    assert (stored["status"], stored["usage"], stored["completed_at"]) == ("cancelled", None, None)
    assert [item["type"] for item in stored["output"]] == ["reasoning", "message"]
    assert stored["output"][1]["status"] == "incomplete"
    assert stored["output"][1]["content"][0]["text"] == "Half an answer"


async def test_before_the_first_byte(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    stall = Gate()
    upstream.script(Reply(pieces=[stall, Text("too late")]))

    await _hang_up_during_a_request(gateway, stall, stream=True)

    async with asyncio.timeout(1):
        await upstream.hang_up()
    await _until_nothing_runs(gateway)


async def test_during_a_plain_request(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    stall = Gate()
    upstream.script(Reply(pieces=[stall, Text("too late")]))

    await _hang_up_during_a_request(gateway, stall, stream=False)

    async with asyncio.timeout(1):
        await upstream.hang_up()
    await _until_nothing_runs(gateway)


async def test_during_a_plain_request_whose_answer_has_begun(
    streaming_upstream: Gateway, upstream: ScriptedUpstream
) -> None:
    stall = Gate()
    upstream.script(Reply(pieces=[Text("Half an "), Text("answer"), stall]))

    await _hang_up_during_a_request(streaming_upstream, stall, stream=False)

    async with asyncio.timeout(1):
        await upstream.hang_up()
    await _until_nothing_runs(streaming_upstream)
    async with streaming_upstream.http() as http:
        stored = (await http.get(f"/v1/responses/{_only_id(streaming_upstream)}")).json()
    assert stored["status"] == "cancelled"
    assert stored["output"][0]["content"][0]["text"] == "Half an answer"


async def test_a_follower_that_leaves_disturbs_nobody(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    stall = Gate()
    upstream.script(Reply(pieces=[Text("Half an "), stall, Text("answer")]))
    async with (
        gateway.http() as http,
        http.stream("POST", "/v1/responses", json={"model": MODEL, "input": "Hi", "stream": True}) as answer,
    ):
        frames = Frames(answer)
        created = await frames.take()
        await stall.reached()
        async with http.stream("GET", f"/v1/responses/{id_in(created)}?stream=true") as following:
            await Frames(following).take()
        stall.open()
        response = final(created + await frames.rest())

    assert response["output"][0]["content"][0]["text"] == "Half an answer"


async def _hang_up_during_a_request(gateway: Gateway, stall: Gate, *, stream: bool) -> None:
    async with gateway.http() as http, asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(http.post("/v1/responses", json={"model": MODEL, "input": "Hi", "stream": stream}))
        await stall.reached()
        asking.cancel()


async def _until_nothing_runs(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url) as http, asyncio.timeout(10):
        while "\ngateway_responses_running 0.0\n" not in (await http.get("/metrics")).text:  # noqa: ASYNC110 - the gateway is another process
            await asyncio.sleep(0.02)


def _only_id(gateway: Gateway) -> str:
    """The id of the one response in the database; its client never learned it."""
    connection = sqlite3.connect(gateway.log_file.parent / "gateway.db")
    try:
        ((response_id,),) = connection.execute("SELECT id FROM responses").fetchall()
    finally:
        connection.close()
    return str(response_id)
