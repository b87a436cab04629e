"""Several processes are one gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from itertools import cycle
from pathlib import Path

import httpx
import pytest

from tests.e2e.streams import MODEL, Frames, Json, final, id_in, replay, sent, split
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Gate, Reply, Text
from tests.support.services import Valkey
from tests.support.upstream import ScriptedUpstream

STREAMED: Json = {"model": MODEL, "input": "Hi", "stream": True}


@pytest.fixture
def here(postgres_gateway: Gateway) -> Gateway:
    """The replica that makes the responses."""
    return postgres_gateway


@pytest.fixture
def there(replica: Gateway) -> Gateway:
    """The other one."""
    return replica


async def test_a_response_is_everywhere_the_instant_its_end_is_seen(
    here: Gateway, there: Gateway, upstream: ScriptedUpstream
) -> None:
    async with here.http() as first, there.http() as second:
        previous = None
        for turn in range(6):
            async with first.stream(
                "POST", "/v1/responses", json={**STREAMED, "previous_response_id": previous}
            ) as answer:
                previous = id_in(await Frames(answer).until("response.completed"))
                read = await second.get(f"/v1/responses/{previous}")
                child = await second.post(
                    "/v1/responses", json={"model": MODEL, "input": "?", "previous_response_id": previous}
                )
            assert (read.status_code, read.json()["status"]) == (200, "completed")
            assert child.status_code == 200
            assert len(sent(upstream)) == 4 * turn + 3
            previous = child.json()["id"]


async def test_an_item_without_an_id_has_the_same_one_everywhere(
    here: Gateway, there: Gateway, upstream: ScriptedUpstream
) -> None:
    """None is stored: each replica derives it."""
    items = [{"role": "user", "content": "One.", "id": None}, {"role": "user", "content": "Two."}]
    async with here.http() as first, there.http() as second:
        made = (await first.post("/v1/responses", json={"model": MODEL, "input": items})).json()["id"]
        pages = [
            (await http.get(f"/v1/responses/{made}/input_items", params={"order": "asc"})).json()["data"]
            for http in (first, second)
        ]
        reference = {"type": "item_reference", "id": pages[0][1]["id"]}
        referring = await second.post("/v1/responses", json={"model": MODEL, "input": [reference]})

    assert pages[0] == pages[1]
    assert len({entry["id"] for entry in pages[0]}) == len(items)
    assert referring.status_code == 200
    assert [message["content"] for message in sent(upstream)] == ["Two."]


async def test_what_is_deleted_on_one_is_gone_on_the_other(
    here: Gateway, there: Gateway, upstream: ScriptedUpstream
) -> None:
    async with here.http() as first, there.http() as second:
        root = id_in((await first.post("/v1/responses", json=STREAMED)).content)
        child = (
            await second.post("/v1/responses", json={"model": MODEL, "input": "?", "previous_response_id": root})
        ).json()["id"]
        assert (await second.get(f"/v1/responses/{root}")).status_code == 200

        assert (await first.delete(f"/v1/responses/{root}")).status_code == 200

        for path in (f"/v1/responses/{root}", f"/v1/responses/{root}?stream=true", f"/v1/responses/{root}/input_items"):
            assert [(await http.get(path)).status_code for http in (first, second)] == [404, 404]
        assert (await second.delete(f"/v1/responses/{root}")).status_code == 404
        for previous in (root, child):
            refused = await second.post(
                "/v1/responses", json={"model": MODEL, "input": "?", "previous_response_id": previous}
            )
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "previous_response_not_found")
    assert len(upstream.requests) == 2


async def test_a_live_stream_is_followed_on_the_other(
    here: Gateway, there: Gateway, upstream: ScriptedUpstream
) -> None:
    gates = [Gate(), Gate()]
    words = [Text(f"{number} ") for number in range(20)]
    upstream.script(Reply(pieces=[*words, gates[0], *words, gates[1], Text("end")]))
    async with (
        here.http() as first,
        there.http() as second,
        first.stream("POST", "/v1/responses", json=STREAMED) as made,
    ):
        owner = Frames(made)
        begun = await owner.take()
        response_id = id_in(begun)
        await gates[0].reached()
        async with asyncio.TaskGroup() as readers:
            following = [readers.create_task(_follow(second, response_id, after)) for after in (None, 1, 10)]
            await _until_visible(second, response_id)
            gates[0].open()
            await gates[1].reached()
            following.append(readers.create_task(_follow(second, response_id, 30)))
            gates[1].open()
            stream = begun + await owner.rest()

    frames = split(stream)
    assert final(stream)["status"] == "completed"
    for task, after in zip(following, (-1, 1, 10, 30), strict=True):
        assert task.result() == b"".join(frames[after + 1 :])


async def test_a_live_response_is_seen_in_progress_on_the_other(
    here: Gateway, there: Gateway, upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Half "), gate, Text("done")]))
    async with (
        here.http() as first,
        there.http() as second,
        first.stream("POST", "/v1/responses", json=STREAMED) as made,
    ):
        owner = Frames(made)
        response_id = id_in(await owner.take())
        await gate.reached()
        seen = await _until_visible(second, response_id)
        deleted = [await http.delete(f"/v1/responses/{response_id}") for http in (first, second)]
        gate.open()
        await owner.rest()

    assert (seen["id"], seen["status"]) == (response_id, "in_progress")
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in deleted] == [
        (409, "response_in_progress")
    ] * 2


async def test_a_hang_up_is_known_on_the_other(here: Gateway, there: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Half "), gate]))
    async with here.http() as first, there.http() as second:
        async with first.stream("POST", "/v1/responses", json=STREAMED) as made:
            owner = Frames(made)
            response_id = id_in(await owner.until("response.output_text.delta"))
            await _until_visible(second, response_id)
        await upstream.hang_up()

        assert final(await replay(second, response_id))["status"] == "cancelled"
        assert (await second.get(f"/v1/responses/{response_id}")).json()["status"] == "cancelled"


async def test_a_redis_that_dies_costs_no_data(
    shared_database: str, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    gate = Gate()
    upstream.script(Reply.say("Before."), Reply(pieces=[Text("During "), gate, Text("it.")]), Reply.say("After."))
    with (
        Valkey() as redis,
        running_gateway(tmp_path, upstream.url, database_url=shared_database, redis_url=redis.url) as gateway,
    ):
        async with gateway.http() as http:
            before = (await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"})).json()
            async with http.stream(
                "POST", "/v1/responses", json={**STREAMED, "previous_response_id": before["id"]}
            ) as answer:
                frames = Frames(answer)
                begun = await frames.take()
                await gate.reached()
                redis.crash()
                gate.open()
                during = begun + await frames.rest()
            response = final(during)
            after = (
                await http.post(
                    "/v1/responses", json={"model": MODEL, "input": "?", "previous_response_id": response["id"]}
                )
            ).json()

            for stored in (before, response, after):
                assert (await http.get(f"/v1/responses/{stored['id']}")).json() == stored
            assert await replay(http, response["id"]) == during
            assert (await http.get("/v1/responses/0190b7c2-3f4e-7abc-8def-0123456789ab?stream=true")).status_code == 404
            assert (await http.delete(f"/v1/responses/{before['id']}")).status_code == 200
            assert (await http.get(f"/v1/responses/{before['id']}")).status_code == 404
            assert (await http.get("/readyz")).status_code == 200

    assert response["output"][0]["content"][0]["text"] == "During it."
    assert [message["content"] for message in sent(upstream)] == ["Hi", "Before.", "Hi", "During it.", "?"]


@pytest.fixture(scope="module")
def workers(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    """Two worker processes behind one port, on SQLite."""
    upstream_server.reset()
    with running_gateway(tmp_path_factory.mktemp("workers"), upstream_server.url, workers="2") as running:
        deadline = time.monotonic() + 30
        while running.log().count("Application startup complete") < 2:
            # the port answers as soon as the first of them is there
            assert time.monotonic() < deadline, running.log()
            time.sleep(0.02)
        yield running


async def test_workers_share_everything(workers: Gateway, upstream: ScriptedUpstream) -> None:
    """Which worker serves a connection is the kernel's choice; so there are many, and the conversation goes from one to
    the next.
    """
    upstream.respond = lambda body: Reply.say(f"answer {len(body['messages'])}")
    connections = [workers.http() for _ in range(8)]
    previous = None
    for _, http in zip(range(16), cycle(connections), strict=False):
        made = await http.post("/v1/responses", json={**STREAMED, "previous_response_id": previous})
        assert made.status_code == 200, made.text
        previous = final(made.content)["id"]

    assert [len(request.body["messages"]) for request in upstream.requests] == list(range(1, 33, 2))
    for http in connections:
        assert id_in(await replay(http, str(previous))) == previous
    await _followed_by_all(connections, upstream)
    for http in connections:
        await http.aclose()
    assert workers.log().count("Started server process") == 2


async def test_workers_share_their_containers(workers: Gateway) -> None:
    connections = [workers.http() for _ in range(12)]
    made = (await connections[0].post("/v1/containers", json={"name": "shared"})).json()["id"]
    assert {(await http.get(f"/v1/containers/{made}")).status_code for http in connections} == {200}
    assert {len((await http.get("/v1/containers")).json()["data"]) for http in connections} == {1}
    for http in connections:
        await http.aclose()


async def test_a_scrape_of_one_worker_shows_what_all_have_done(workers: Gateway, upstream: ScriptedUpstream) -> None:
    async def served(http: httpx.AsyncClient) -> tuple[float, float]:
        text = (await http.get("/metrics")).text
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        route = 'gateway_http_requests_total{code="model_not_found",method="GET",route="/v1/models/{id}",status="404"}'
        return float(lines.get(route, 0)), float(lines["gateway_workers"])

    connections = [workers.http() for _ in range(12)]
    before, _ = await served(connections[0])
    for http in connections:
        assert (await http.get("/v1/models/none")).status_code == 404
    assert {await served(http) for http in connections} == {(before + len(connections), 2)}
    for http in connections:
        await http.aclose()
    assert not upstream.requests


async def _followed_by_all(connections: list[httpx.AsyncClient], upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Half "), gate, Text("done")]))
    async with connections[0].stream("POST", "/v1/responses", json=STREAMED) as made, asyncio.TaskGroup() as readers:
        owner = Frames(made)
        begun = await owner.take()
        await gate.reached()
        for http in connections[1:]:
            await _until_visible(http, id_in(begun))
        following = [readers.create_task(_follow(http, id_in(begun), None)) for http in connections[1:]]
        gate.open()
        stream = begun + await owner.rest()
    assert {task.result() for task in following} == {stream}


async def _follow(http: httpx.AsyncClient, response_id: str, after: int | None) -> bytes:
    await _until_visible(http, response_id)
    return await (replay(http, response_id) if after is None else replay(http, response_id, starting_after=after))


async def _until_visible(http: httpx.AsyncClient, response_id: str) -> Json:
    """The response as soon as it is known there; what is under way is shared ten times a second."""
    async with asyncio.timeout(10):
        while (answer := await http.get(f"/v1/responses/{response_id}")).status_code != 200:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.02)
    response: Json = answer.json()
    return response
