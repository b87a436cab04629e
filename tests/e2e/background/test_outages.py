"""Redis and Postgres away while responses are generated: clients are not broken off, and everything is told once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import httpx
import pytest

from app.db.migrate import upgrade_apart
from tests.e2e.background.pairs import Replicas
from tests.e2e.background.test_background import STREAMED, until
from tests.e2e.streams import Frames, final, id_in, replay
from tests.support.gateway import running_gateway
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.services import Postgres, Valkey
from tests.support.upstream import ScriptedUpstream

Clients = tuple[httpx.AsyncClient, httpx.AsyncClient]


@pytest.fixture(scope="module")
def redis() -> Generator[Valkey]:
    """A Valkey of this module's own, to be mistreated."""
    with Valkey() as server:
        yield server


@pytest.fixture(scope="module")
def database() -> Generator[Postgres]:
    """A Postgres of this module's own."""
    with Postgres() as server:
        upgrade_apart(server.url())
        yield server


@pytest.fixture(scope="module")
def both(
    redis: Valkey, database: Postgres, upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Replicas]:
    """Two gateways on them."""
    settings = {"database_url": database.url(), "redis_url": redis.url}
    with (
        running_gateway(tmp_path_factory.mktemp("here"), upstream_server.url, **settings) as here,
        running_gateway(tmp_path_factory.mktemp("there"), upstream_server.url, **settings) as there,
    ):
        yield here, there


@pytest.fixture
async def clients(both: Replicas) -> AsyncGenerator[Clients]:
    """A client of each."""
    async with both[0].http() as first, both[1].http() as second:
        yield first, second


def _reply(gate: Gate) -> Reply:
    return Reply(pieces=[Thought("Hm."), Text("One "), Text("two "), gate, Text("three")])


async def _ends_alike(clients: Clients, upstream: ScriptedUpstream, gate: Gate, seen: bytes, frames: Frames) -> None:
    """The client here and a reader elsewhere get every byte, and the record is the same."""
    asked = len(upstream.requests)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        following = group.create_task(replay(clients[1], id_in(seen)))
        gate.open()
        stream = seen + await frames.rest()
    assert following.result() == stream == await replay(clients[1], id_in(seen))
    assert final(stream)["status"] == "completed"
    assert (await clients[1].get(f"/v1/responses/{id_in(seen)}")).json() == final(stream)
    assert len(upstream.requests) == asked


async def test_redis_is_restarted_empty(clients: Clients, upstream: ScriptedUpstream, redis: Valkey) -> None:
    gate = Gate()
    upstream.script(_reply(gate))
    async with clients[0].stream("POST", "/v1/responses", json=STREAMED) as answer:
        frames = Frames(answer)
        seen = await frames.until("response.output_text.delta")
        redis.crash()
        redis.start()
        await _ends_alike(clients, upstream, gate, seen, frames)


async def test_redis_does_not_answer(clients: Clients, upstream: ScriptedUpstream, redis: Valkey) -> None:
    gate = Gate()
    upstream.script(_reply(gate))
    async with clients[0].stream("POST", "/v1/responses", json=STREAMED) as answer:
        frames = Frames(answer)
        seen = await frames.until("response.output_text.delta")
        redis.pause()
        try:
            gate.open()
            async with asyncio.timeout(10):
                stream = seen + await frames.rest()
                again = await replay(clients[1], id_in(seen))
        finally:
            redis.resume()
    assert again == stream
    assert final(stream)["status"] == "completed"


async def test_a_process_stops_though_redis_does_not_answer(
    upstream: ScriptedUpstream, redis: Valkey, database: Postgres, tmp_path: Path
) -> None:
    settings = {"database_url": database.url(), "redis_url": redis.url}
    with running_gateway(tmp_path, upstream.url, **settings) as gateway:
        redis.pause()
        try:
            async with gateway.http() as http:
                assert final((await http.post("/v1/responses", json=STREAMED)).content)["status"] == "completed"
            gateway.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(gateway.process.wait, 30) == 0
        finally:
            redis.resume()


async def test_a_process_stops_though_postgres_does_not_answer(
    upstream: ScriptedUpstream, redis: Valkey, database: Postgres, tmp_path: Path
) -> None:
    gate = Gate()
    upstream.script(_reply(gate))
    settings = {"database_url": database.url(), "redis_url": redis.url, "drain_seconds": "1"}
    with running_gateway(tmp_path, upstream.url, **settings) as gateway:
        async with gateway.http() as http, http.stream("POST", "/v1/responses", json=STREAMED) as answer:
            await Frames(answer).until("response.output_text.delta")
            database.pause()
            try:
                gate.open()
                gateway.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(gateway.process.wait, 60) == 0
            finally:
                database.resume()


async def test_postgres_is_restarted(clients: Clients, upstream: ScriptedUpstream, database: Postgres) -> None:
    gate = Gate()
    upstream.script(_reply(gate))
    async with clients[0].stream("POST", "/v1/responses", json=STREAMED) as answer:
        frames = Frames(answer)
        seen = await frames.until("response.output_text.delta")
        database.crash()
        database.start()
        await until(clients[1], id_in(seen), "in_progress")
        await _ends_alike(clients, upstream, gate, seen, frames)
