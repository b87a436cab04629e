"""The life of a WebSocket: its handshake, its limits, and its end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e.streams import MODEL, Json
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Gate, Reply, Text
from tests.support.upstream import ScriptedUpstream
from tests.support.websockets import NO_UPGRADE, UPGRADE, Socket, socket

on_sqlite = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)
MIB = 1024 * 1024


@asynccontextmanager
async def _own_gateway(directory: Path, upstream: ScriptedUpstream, **settings: str) -> AsyncGenerator[Gateway]:
    manager = running_gateway(directory, upstream.url, **settings)
    running = await asyncio.to_thread(manager.__enter__)
    try:
        yield running
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


async def _refused(gateway: Gateway, path: str = "/v1/responses", **headers: str) -> tuple[int, str]:
    """Status and error code of a refused handshake."""
    address = f"ws{gateway.base_url.removeprefix('http')}{path}"
    with pytest.raises(InvalidStatus) as refused:
        async with connect(address, additional_headers=headers, proxy=None):
            pass
    answer = refused.value.response
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    body: Json = json.loads(answer.body or b"")
    return answer.status_code, body["error"]["code"]


async def test_a_key_is_asked_for(gateway: Gateway) -> None:
    assert await _refused(gateway) == (401, "missing_api_key")
    assert await _refused(gateway, authorization="Bearer sk-wrong") == (401, "invalid_api_key")
    assert await _refused(gateway, "/v1/realtime", authorization=f"Bearer {gateway.key}") == (404, "unknown_url")


@on_sqlite
async def test_every_path_of_the_endpoint(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    for path in ("/responses", "/openai/v1/responses?api-version=1"):
        address = f"ws{gateway.base_url.removeprefix('http')}{path}"
        async with connect(
            address, additional_headers={"authorization": f"Bearer {gateway.key}"}, proxy=None
        ) as connection:
            assert (await Socket(connection, MODEL).answer(input="Hi"))["status"] == "completed"
            assert connection.response is not None
            assert connection.response.headers["x-request-id"]
            assert "sec-websocket-extensions" not in connection.response.headers
    assert len(upstream.requests) == 2


@on_sqlite
async def test_an_invalid_handshake(gateway: Gateway) -> None:
    async with gateway.http() as http:
        for headers in (NO_UPGRADE, {**UPGRADE, "sec-websocket-key": "short"}):
            answer = await http.get("/v1/responses", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_websocket_handshake")
            assert answer.headers["sec-websocket-version"] == "13"
        assert (await http.post("/v1/responses", headers=UPGRADE, json={"model": MODEL})).status_code == 400


async def test_other_sites_are_refused_where_no_key_is_asked_for(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with _own_gateway(tmp_path, upstream, authentication="false") as gateway:
        assert await _refused(gateway, origin="https://evil.example") == (403, "origin_not_allowed")
        async with socket(gateway, MODEL, origin=gateway.base_url) as ws:
            await ws.answer(input="Hi")
    assert len(upstream.requests) == 1


async def test_it_can_be_turned_off(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with _own_gateway(tmp_path, upstream, websockets="false") as gateway, gateway.http() as http:
        for path in ("/v1/responses", "/responses", "/openai/v1/responses"):
            answer = await http.get(path, headers=UPGRADE)
            assert (answer.status_code, answer.json()["error"]["code"]) == (426, "websocket_not_served")
            assert answer.headers["x-request-id"]
        assert await _refused(gateway, authorization=f"Bearer {gateway.key}") == (426, "websocket_not_served")
    assert not upstream.requests


@on_sqlite
async def test_the_size_of_a_message(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with socket(gateway, MODEL) as ws:
        await ws.connection.send("x" * (16 * MIB))
        assert (await ws.take())["error"]["code"] == "json_parse_error"
        parts = ("y" * MIB for _ in range(16))
        await ws.connection.send(parts)
        assert (await ws.take())["error"]["code"] == "json_parse_error"
        with suppress(ConnectionClosed):
            await ws.connection.send("x" * (16 * MIB + 1))
        assert await ws.closed() == 1009
    assert not upstream.requests


@on_sqlite
async def test_requests_are_logged_and_counted(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    start = len(gateway.log().encode())
    async with gateway.http() as http, socket(gateway, MODEL) as ws:
        made = await ws.answer(input="Hi")
        await ws.error(input="Hi", top_p=7)
        await ws.error(input="Hi", stream_id="a b")
        log = await gateway.logged(r" WEBSOCKET ", start, times=3)
        metrics = (await http.get("/metrics")).text
    assert f"response={made['id']}" in log
    assert re.search(r"WEBSOCKET /v1/responses 400 .*code=invalid_value param=top_p", log)
    assert re.search(r"WEBSOCKET /v1/responses 400 .*code=invalid_stream_id param=stream_id", log)
    assert re.search(r"GET /v1/responses 101 ", log)
    assert re.search(r'requests_total\{.*method="WEBSOCKET".*status="200".*\}', metrics)
    assert len(upstream.requests) == 1


async def test_a_hang_up_cancels(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    stalls = [Gate(), Gate()]
    upstream.script(*(Reply(pieces=[Text("Half"), stall]) for stall in stalls))
    async with gateway.http() as http:
        async with socket(gateway, MODEL) as ws:
            await ws.create(input="1", stream_id="a")
            await ws.create(input="never", stream_id="a")
            made = (await ws.until("response.created", "a"))["response"]["id"]
            await stalls[0].reached()
            await ws.create(input="2", stream_id="b")
            await stalls[1].reached()
        await upstream.hang_up()
        await upstream.hang_up()
        assert await _ended(http, made) == "cancelled"
    assert len(upstream.requests) == 2


async def _ended(http: httpx.AsyncClient, made: str) -> str:
    """How a response ends that nobody reads."""
    while True:
        status: str = (await http.get(f"/v1/responses/{made}")).json()["status"]
        if status != "in_progress":
            return status
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("header", ["x_gateway_on_disconnect", "x_gateway_resumable"])
async def test_what_the_handshake_asks_to_continue(gateway: Gateway, upstream: ScriptedUpstream, header: str) -> None:
    stall = Gate()
    upstream.script(Reply(pieces=[Text("Half "), stall, Text("and half")]))
    value = "continue" if header == "x_gateway_on_disconnect" else "true"
    async with gateway.http() as http:
        async with socket(gateway, MODEL, **{header: value}) as ws:
            await ws.create(input="1")
            made = (await ws.until("response.created"))["response"]["id"]
            await stall.reached()
        stall.open()
        assert await _ended(http, made) == "completed"


async def test_a_revoked_key(gateway: Gateway, upstream: ScriptedUpstream, command: Callable[..., str]) -> None:
    key = (await asyncio.to_thread(command, "keys", "create", "--project", "fired", "--name", "to be revoked")).strip()
    async with socket(gateway, MODEL, key) as ws:
        assert (await ws.answer(input="Hi", generate=False))["status"] == "completed"
        listed = await asyncio.to_thread(command, "keys", "list")
        lines = [line for line in listed.splitlines() if "to be revoked" in line and line.endswith("active")]
        for line in lines:
            await asyncio.to_thread(command, "keys", "revoke", line.split()[0])
        while True:
            await ws.create(input="Hi", generate=False)
            event = (await ws.events())[-1]
            if event["type"] == "error":
                break
            await asyncio.sleep(0.1)  # the key is cached for seconds
        assert (event["status"], event["error"]["code"]) == (401, "invalid_api_key")
        assert await ws.closed() == 1008
    assert not upstream.requests


async def test_the_time_limit(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    stall = Gate()
    upstream.script(Reply(pieces=[Text("Half "), stall, Text("and half")]))
    async with (
        _own_gateway(tmp_path, upstream, connections__websocket_seconds="1") as gateway,
        socket(gateway, MODEL) as busy,
        socket(gateway, MODEL) as idle,
    ):
        await busy.create(input="Hi")
        await busy.create(input="waits")
        await stall.reached()
        event = await idle.take()
        assert (event["status"], event["error"]["code"]) == (400, "websocket_connection_limit_reached")
        assert await idle.closed() == 1000
        late = await busy.error(input="too late", stream_id="a")
        assert late["error"]["code"] == "websocket_connection_limit_reached"
        stall.open()
        assert (await busy.events())[-1]["type"] == "response.completed"
        assert (await busy.take())["error"]["code"] == "websocket_connection_limit_reached"
        assert await busy.closed() == 1000


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_a_drain(
    upstream: ScriptedUpstream, tmp_path: Path, request: pytest.FixtureRequest, backend: str
) -> None:
    settings: dict[str, str] = {}
    if backend == "postgresql":
        settings["redis_url"] = request.getfixturevalue("valkey").url
        settings["database_url"] = request.getfixturevalue("shared_database")
    stall = Gate()
    upstream.script(Reply(pieces=[Text("Half "), stall, Text("and half")]))
    async with _own_gateway(tmp_path, upstream, **settings) as gateway:
        async with socket(gateway, MODEL) as busy, socket(gateway, MODEL) as idle:
            await busy.create(input="Hi")
            await stall.reached()
            gateway.process.send_signal(signal.SIGTERM)
            assert (await idle.take())["error"]["code"] == "server_is_stopping"
            assert await idle.closed() == 1001
            late = await busy.error(input="too late", stream_id="a")
            assert (late["status"], late["error"]["code"]) == (503, "server_is_stopping")
            stall.open()
            ended = await busy.until("response.completed")
            assert ended["response"]["output"][0]["content"][0]["text"] == "Half and half"
            assert await busy.closed() == 1001
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0


async def test_what_is_kept_is_bounded(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with (
        _own_gateway(tmp_path, upstream, limits__websocket_cache_bytes="20000") as gateway,
        socket(gateway, MODEL) as ws,
        socket(gateway, MODEL) as other,
    ):
        first = await ws.answer(input="Hi", store=False, generate=False)
        second = await other.answer(input="x" * 10_000, store=False, generate=False)
        third = await other.answer(input="y" * 8_000, store=False, generate=False)
        for session, gone in ((ws, first), (other, second)):
            error = await session.error(input="?", store=False, previous_response_id=gone["id"])
            assert error["error"]["code"] == "previous_response_not_found"
        await other.answer(input="?", store=False, previous_response_id=third["id"])
    assert len(upstream.requests) == 1


async def test_a_silent_client_is_disconnected(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    settings = {"connections__websocket_ping_seconds": "0.1", "connections__unread_seconds": "0.5"}
    async with _own_gateway(tmp_path, upstream, **settings) as gateway:
        host, port = gateway.base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(_handshake(gateway))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert (await reader.readexactly(2))[0] == 0x89  # a ping
        assert b"keepalive ping timeout" in await reader.read()
        writer.close()
        async with socket(gateway, MODEL) as ws:
            with pytest.raises(TimeoutError):  # twice the time after which a silent one is disconnected
                await asyncio.wait_for(ws.connection.recv(), 1)
            await ws.answer(input="Hi", generate=False)


def _handshake(gateway: Gateway) -> bytes:
    fields = {**UPGRADE, "host": "localhost", "authorization": f"Bearer {gateway.key}"}
    lines = [f"{name}: {value}\r\n" for name, value in fields.items()]
    return "".join(["GET /v1/responses HTTP/1.1\r\n", *lines, "\r\n"]).encode()


async def test_idle_connections_cost_little(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with _own_gateway(tmp_path, upstream) as gateway:
        await _idle(gateway, 50)
        before = gateway.memory()
        await _idle(gateway, 1000, then=lambda: _at_most(gateway, before + 30 * MIB))


def _at_most(gateway: Gateway, limit: int) -> None:
    assert gateway.memory() <= limit


async def _idle(gateway: Gateway, count: int, then: Callable[[], None] = lambda: None) -> None:
    """Open so many connections, and close them again."""
    host, port = gateway.base_url.removeprefix("http://").split(":")
    writers: list[asyncio.StreamWriter] = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
        writer.write(_handshake(gateway))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    then()
    for writer in writers:
        writer.close()


async def test_connections_count_towards_the_limit(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with (
        _own_gateway(tmp_path, upstream, connections__open="2") as gateway,
        socket(gateway, MODEL),
        socket(gateway, MODEL),
        gateway.http() as http,
    ):
        answer = await http.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_is_overloaded")
