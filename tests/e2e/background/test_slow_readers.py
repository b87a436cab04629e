"""Readers that do not read: they cost next to nothing, and nobody waits for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.background.pairs import Replicas
from tests.e2e.background.test_background import STREAMED, until
from tests.e2e.streams import id_in, replay
from tests.support.gateway import Gateway
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

_READERS = 40
_WORDS = 8_000
_EACH = 1 << 20
"""Bytes that one may cost: what a connection holds, and one batch. With the whole stream one would cost 4.5 MB."""


async def test_they_cost_next_to_nothing(replicas: Replicas, upstream: ScriptedUpstream) -> None:
    """Of a live response where it is generated and in another process, and of one that has ended."""
    gate = Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), *[Text(f"word{number} ") for number in range(_WORDS)], gate]))
    first, second = replicas
    async with first.http() as http, second.http() as elsewhere:
        async with http.stream("POST", "/v1/responses", json=STREAMED) as answer:
            response_id = id_in(await anext(answer.aiter_bytes()))
        await gate.reached()
        await _followed(elsewhere, response_id)
        for gateway in replicas:
            await _check_cost(gateway, response_id)
        gate.open()
        await until(http, response_id, "completed")
        whole = await replay(elsewhere, response_id)
        assert await replay(http, response_id) == whole
        await _check_cost(second, response_id)


async def _followed(http: httpx.AsyncClient, response_id: str) -> None:
    """Read the stream up to the last word."""
    path, last = f"/v1/responses/{response_id}?stream=true", f"word{_WORDS - 1} ".encode()
    async with http.stream("GET", path) as answer:
        async for piece in answer.aiter_bytes():
            if last in piece:
                return
    pytest.fail("the stream has ended")


async def _check_cost(gateway: Gateway, response_id: str) -> None:
    async with gateway.http() as http:
        await _followed(http, response_id)
        before = gateway.memory()
        async with _unread(gateway, response_id):
            await _followed(http, response_id)
            assert gateway.memory() - before < _READERS * _EACH


@asynccontextmanager
async def _unread(gateway: Gateway, response_id: str) -> AsyncGenerator[None]:
    """Clients that take the first byte of the stream, and no more."""
    address = urlsplit(gateway.base_url)
    request = f"GET /v1/responses/{response_id}?stream=true HTTP/1.1\r\nhost: {address.netloc}\r\n"
    head = f"{request}authorization: Bearer {gateway.key}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(_READERS)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(0)
            await loop.sock_connect(client, (address.hostname, address.port))
            await loop.sock_sendall(client, head)
        for client in clients:
            assert await loop.sock_recv(client, 1) == b"H"
        yield
