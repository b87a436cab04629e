"""A live foreground stream is followed from another process, over each event log."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Generator, Sequence

import httpx
import pytest

from app.protocol.wire import ids
from tests.e2e.streams import MODEL, Frames, Json, final, id_in, replay, split
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Call, Gate, Reply, Text, Thought
from tests.support.services import Valkey
from tests.support.upstream import ScriptedUpstream

TOOL: Json = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
STREAMED: Json = {"model": MODEL, "input": "Hi", "stream": True}


@pytest.fixture(scope="module", params=["redis", "database"])
def pair(
    request: pytest.FixtureRequest,
    upstream_server: ScriptedUpstream,
    tmp_path_factory: pytest.TempPathFactory,
    shared_database: str,
) -> Generator[tuple[Gateway, Gateway]]:
    """Two replicas on Postgres, with either log."""
    settings = {"database_url": shared_database, "event_log": request.param}
    if request.param == "redis":
        settings["redis_url"] = request.getfixturevalue("valkey").url
    first, second = (tmp_path_factory.mktemp("replica") for _ in range(2))
    with (
        running_gateway(first, upstream_server.url, **settings) as here,
        running_gateway(second, upstream_server.url, **settings) as there,
    ):
        yield here, there


async def test_every_byte_from_everywhere(pair: tuple[Gateway, Gateway], upstream: ScriptedUpstream) -> None:
    """From each event, twice, on both replicas, by readers who come early and late."""
    here, there = pair
    gates = [Gate(), Gate()]
    upstream.script(
        Reply(
            pieces=[
                *(
                    Thought("Let me "),
                    Thought("look."),
                    Text("Rome: "),
                    gates[0],
                    Text("\u2028 \U0001f31e\n\n"),
                    Text("half"),
                ),
                *(
                    Call("weather", ['{"city"', ':"Rome"}'], id="call_a"),
                    gates[1],
                    Call("weather", ['{"city":"Oslo"}'], id="b", index=1),
                ),
            ]
        )
    )
    request = {**STREAMED, "tools": [TOOL]}
    async with (
        here.http() as first,
        there.http() as second,
        first.stream("POST", "/v1/responses", json=request) as made,
    ):
        owner = Frames(made)
        begun = await owner.take()
        response_id = id_in(begun)
        await gates[0].reached()
        async with asyncio.TaskGroup() as readers:
            following: dict[asyncio.Task[bytes], int] = {}

            async def come(http: httpx.AsyncClient, numbers: Sequence[int]) -> None:
                for after in [*numbers, *numbers]:
                    following[readers.create_task(_follow(http, response_id, after))] = after
                await _is_in_progress(http, response_id)

            await come(second, range(-1, 40))
            gates[0].open()
            await gates[1].reached()
            await come(second, range(-1, 40))
            await come(first, range(-1, 40, 3))
            gates[1].open()
            stream = begun + await owner.rest()

    frames = split(stream)
    assert final(stream)["status"] == "completed"
    for task, after in following.items():
        _check(task.result(), frames, after)


async def test_nothing_is_logged_of_a_stream_that_nobody_follows_elsewhere(
    pair: tuple[Gateway, Gateway], upstream: ScriptedUpstream
) -> None:
    here, there = pair
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Half "), gate, Text("done")]))
    async with here.http() as first, there.http() as second:
        before = [await _logged(http) for http in (first, second)]
        async with first.stream("POST", "/v1/responses", json=STREAMED) as made:
            owner = Frames(made)
            response_id = id_in(await owner.take())
            await gate.reached()
            async with asyncio.TaskGroup() as readers:
                local = readers.create_task(replay(first, response_id))
                await asyncio.sleep(1.2)  # longer than an owner takes to look what is asked for
                gate.open()
                await owner.rest()
        assert [await _logged(http) for http in (first, second)] == before
    assert final(local.result())["id"] == response_id


async def test_ids_that_cannot_be_live_are_not_waited_for(
    pair: tuple[Gateway, Gateway], upstream: ScriptedUpstream
) -> None:
    here, there = pair
    upstream.script(Reply.say("Hi."))
    async with here.http() as first, there.http() as second:
        deleted = id_in((await first.post("/v1/responses", json=STREAMED)).content)
        await first.delete(f"/v1/responses/{deleted}")
        before = await _logged(second)
        yesterday = ids.response_id(int(time.time() - 86400) * 1000, b"0123456789")
        tomorrow = ids.response_id(int(time.time() + 86400) * 1000, b"0123456789")
        for unknown in (deleted, yesterday, tomorrow):
            for query in ("", "?stream=true"):
                assert (await second.get(f"/v1/responses/{unknown}{query}")).status_code == 404
            assert (await second.delete(f"/v1/responses/{unknown}")).status_code == 404
        assert await _logged(second) == before

        recent = ids.response_id(int(time.time() * 1000), b"0123456789")
        answers = [await second.get(f"/v1/responses/{recent}{query}") for query in ("", "?stream=true")]
        assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [
            (404, "response_not_found")
        ] * 2
        assert await _logged(second) > before


@pytest.mark.parametrize("gateway", ["postgresql"], indirect=True)
async def test_another_project_sees_nothing(
    gateway: Gateway, replica: Gateway, command: Callable[..., str], upstream: ScriptedUpstream
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Half "), gate, Text("done")]))
    key = (await asyncio.to_thread(command, "keys", "create", "--project", "stranger")).strip()
    async with (
        gateway.http() as first,
        replica.http() as second,
        first.stream("POST", "/v1/responses", json=STREAMED) as made,
    ):
        owner = Frames(made)
        response_id = id_in(await owner.take())
        await gate.reached()
        await _is_in_progress(second, response_id)
        foreign = {"authorization": f"Bearer {key}"}
        answers = [
            await second.get(f"/v1/responses/{response_id}{query}", headers=foreign) for query in ("", "?stream=true")
        ]
        gate.open()
        await owner.rest()
    assert [answer.status_code for answer in answers] == [404, 404]


@pytest.fixture
def own_redis() -> Generator[Valkey]:
    """A Redis of the test's own, to crash."""
    with Valkey() as redis:
        yield redis


@pytest.fixture
def own_pair(
    own_redis: Valkey, upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory, shared_database: str
) -> Generator[tuple[Gateway, Gateway]]:
    """Two replicas with that Redis."""
    settings = {"database_url": shared_database, "redis_url": own_redis.url}
    first, second = (tmp_path_factory.mktemp("replica") for _ in range(2))
    with (
        running_gateway(first, upstream.url, **settings) as here,
        running_gateway(second, upstream.url, **settings) as there,
    ):
        yield here, there


async def test_a_redis_that_comes_back_empty_costs_no_follower_a_byte(
    own_pair: tuple[Gateway, Gateway], own_redis: Valkey, upstream: ScriptedUpstream
) -> None:
    here, there = own_pair
    gates = [Gate(), Gate(), Gate()]
    words = [Text(f"{number} ") for number in range(20)]
    upstream.script(Reply(pieces=[*words, gates[0], *words, gates[1], *words, gates[2], Text("end")]))
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
            following = [readers.create_task(_follow(second, response_id, after)) for after in (-1, 5, 10, 30)]
            await _is_in_progress(second, response_id)
            own_redis.crash()
            gates[0].open()
            await gates[1].reached()
            refused = await second.get(f"/v1/responses/{response_id}?stream=true")
            own_redis.start()
            following += [readers.create_task(_follow(second, response_id, after)) for after in (-1, 5, 10, 30)]
            await _is_in_progress(second, response_id)
            gates[1].open()
            await gates[2].reached()
            own_redis.crash()
            gates[2].open()
            stream = begun + await owner.rest()

    frames = split(stream)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "event_log_unavailable")
    assert refused.headers["retry-after"] == "1"
    for task, after in zip(following, (-1, 5, 10, 30) * 2, strict=True):
        _check(task.result(), frames, after)


async def test_a_redis_that_hangs_delays_no_client(
    own_pair: tuple[Gateway, Gateway], own_redis: Valkey, upstream: ScriptedUpstream
) -> None:
    here, there = own_pair
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Half "), gate, Text("done")]))
    async with (
        here.http() as first,
        there.http() as second,
        first.stream("POST", "/v1/responses", json=STREAMED) as made,
    ):
        owner = Frames(made)
        begun = await owner.take()
        await gate.reached()
        async with asyncio.TaskGroup() as readers:
            far = readers.create_task(_follow(second, id_in(begun), -1))
            await _is_in_progress(second, id_in(begun))
            near = readers.create_task(_follow(first, id_in(begun), -1))
            own_redis.pause()
            gate.open()
            stream = begun + await owner.until("response.completed")
            assert await near == stream
            assert not far.done(), "it waits for Redis, and then reads the record"
        own_redis.resume()
    assert far.result() == stream


async def test_an_owner_that_is_killed_is_no_response_in_progress(
    own_pair: tuple[Gateway, Gateway], upstream: ScriptedUpstream
) -> None:
    here, there = own_pair
    gate = Gate()
    upstream.script(Reply.say("Known."), Reply(pieces=[Text("Half "), gate]))
    async with here.http() as first, there.http() as second:
        # the first text of an upstream that is not known yet may be held back
        await first.post("/v1/responses", json=STREAMED)
        async with first.stream("POST", "/v1/responses", json=STREAMED) as made:
            owner = Frames(made)  # its iterator keeps the connection open
            response_id = id_in(await owner.take())
            await gate.reached()
            async with second.stream("GET", f"/v1/responses/{response_id}?stream=true") as followed:
                reader = Frames(followed)
                await reader.until("response.output_text.delta")
                here.process.kill()
                rest = await reader.rest()
        answer = await second.get(f"/v1/responses/{response_id}")

    assert rest.startswith(b"event: error\n")
    assert b'"code":"server_error"' in rest
    assert len(split(rest)) == 1
    assert answer.status_code == 404


async def _follow(http: httpx.AsyncClient, response_id: str, after: int) -> bytes:
    """Everything after that event, or the error if it ends before; again where the log could not be read at first."""
    async with asyncio.timeout(30):
        while True:
            answer = await http.get(
                f"/v1/responses/{response_id}",
                params={"stream": "true", "starting_after": after} if after >= 0 else {"stream": "true"},
            )
            if answer.status_code == 400:  # it has ended, and before that number
                assert answer.json()["error"]["param"] == "starting_after"
                return answer.content
            if answer.status_code != 503:
                assert answer.status_code == 200, answer.text
                return answer.content
            await asyncio.sleep(0.05)


def _check(seen: bytes, frames: Sequence[bytes], after: int) -> None:
    """The rest of the stream, or an error that says where it ended."""
    if after < len(frames):
        assert seen == b"".join(frames[after + 1 :]), after
    else:
        assert f"has the number {len(frames) - 1}".encode() in seen, after


async def _is_in_progress(http: httpx.AsyncClient, response_id: str) -> None:
    async with asyncio.timeout(30):
        while (answer := await http.get(f"/v1/responses/{response_id}")).status_code == 503:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.05)
    assert (answer.status_code, answer.json()["status"]) == (200, "in_progress")


async def _logged(http: httpx.AsyncClient) -> float:
    """How often this process has used the event log."""
    text = (await http.get("/metrics")).text
    return sum(float(count) for count in re.findall(r"^gateway_event_log_seconds_count\S* (\S+)$", text, re.MULTILINE))
