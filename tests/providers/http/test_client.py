"""The upstream client's HTTP, against a server that says exactly the bytes a test wants."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from contextlib import aclosing, closing

import pytest

from app.providers.base import UpstreamProtocolError
from app.providers.http.client import UpstreamClient
from app.providers.http.response import Response
from tests.providers.raw_http import (
    CHUNKED,
    HELLO,
    LIMITS,
    OK,
    Peer,
    answering,
    answering_once,
    ask,
    ask_whole,
    connect,
    serve,
    then_silent,
)

BODIES = {
    "content-length": HELLO,
    "chunked": CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "chunk extensions and trailers": CHUNKED + b'5;a="b"\r\nhello\r\n0\r\nx-late: 1\r\n\r\n',
    "until close": OK + b"\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "interim responses": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HELLO,
}


@pytest.mark.parametrize("one_by_one", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("answer", BODIES.values(), ids=BODIES.keys())
async def test_every_framing_of_a_body(answer: bytes, *, one_by_one: bool) -> None:
    parts = [answer[i : i + 1] for i in range(len(answer))] if one_by_one else [answer]
    async with serve(answering_once(*parts)) as server, connect(server) as client:
        with closing(await ask(client)) as reply:
            assert reply.status == 200
            assert "link" not in reply.headers
            assert await reply.read(5) == b"hello"
            assert await reply.read_some() == b""
            assert "x-late" not in reply.headers


@pytest.mark.parametrize(
    "head", [OK + b"Content-Length: 0\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n", CHUNKED + b"0\r\n\r\n"]
)
async def test_an_empty_body_leaves_the_connection_in_use(head: bytes) -> None:
    async with serve(answering(head)) as server, connect(server) as client:
        assert [await ask_whole(client) for _ in range(2)] == [b"", b""]
        assert server.connections == 1


async def test_status_and_headers_come_before_the_body() -> None:
    head = b"HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 1\r\n\r\n"
    async with serve(then_silent(head)) as server, connect(server) as client:
        with closing(await ask(client)) as reply:
            assert reply.status == 429
            assert reply.headers == {"retry-after": "7", "x-a": "1, 2", "content-length": "1"}


async def test_chunks_of_one_read_come_joined() -> None:
    async with (
        serve(then_silent(CHUNKED + b"1\r\na\r\n1\r\nb\r\n", b"1\r\nc\r\n")) as server,
        connect(server) as client,
    ):
        with closing(await ask(client)) as reply:
            assert await reply.read_some() == b"ab"
            assert await reply.read_some() == b"c"


async def test_what_is_sent() -> None:
    async with serve(answering(HELLO)) as server:
        url = f"http://127.0.0.1:{server.port}/v1/"
        async with aclosing(UpstreamClient(url, headers={"Authorization": "Bearer k"}, timeouts=LIMITS)) as client:
            await ask_whole(client)
            with closing(await client.get("/models")) as reply:
                assert await reply.read(5) == b"hello"
        common = (
            f"host: 127.0.0.1:{server.port}\r\nuser-agent: responses-gateway\r\ncontent-type: application/json\r\n"
            "authorization: Bearer k\r\nAccept-Encoding: identity\r\n"
        ).encode()
        assert server.requests == [
            b"POST /v1/chat/completions HTTP/1.1\r\n"
            + common
            + b"Accept: text/event-stream\r\nContent-Length: 2\r\n\r\n{}",
            b"GET /v1/models HTTP/1.1\r\n" + common + b"Accept: application/json\r\n\r\n",
        ]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://[::1]:{port}", "[::1]:{port}"),
        ("http://127.0.0.1:80/v1", "127.0.0.1"),
        ("http://127.0.0.1/v1", "127.0.0.1"),
        ("http://127.0.0.1:443", "127.0.0.1:443"),
    ],
)
async def test_host_field(url: str, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    async with serve(answering(HELLO)) as server:
        to_server = loop.create_connection

        async def redirected(factory: Callable[[], asyncio.Protocol], *_: object, **__: object) -> object:
            return await to_server(factory, "127.0.0.1", server.port)

        monkeypatch.setattr(loop, "create_connection", redirected)  # ports of the system cannot be listened on
        async with aclosing(UpstreamClient(url.format(port=server.port), headers={}, timeouts=LIMITS)) as client:
            await ask_whole(client)
    assert f"\r\nhost: {host.format(port=server.port)}\r\n".encode() in server.requests[0]


async def test_requests_in_a_row_share_a_connection() -> None:
    async with serve(answering(HELLO)) as server, connect(server) as client:
        assert [await ask_whole(client) for _ in range(5)] == [b"hello"] * 5
        (await ask(client)).close()  # arrived in full, though nobody read it
        await ask_whole(client)
        assert server.connections == 1


async def test_many_requests_at_once() -> None:
    async def echo(peer: Peer) -> None:
        while True:
            body = await peer.request()
            await peer.say(CHUNKED, *(b"%x\r\n%b\r\n" % (len(body), body) for _ in range(3)), b"0\r\n\r\n")

    async def one(client: UpstreamClient, body: bytes) -> bytes:
        with closing(await ask(client, body)) as reply:
            return await reply.read(1000)

    async with serve(echo) as server, connect(server) as client:
        for _ in range(2):
            answers = await asyncio.gather(*(one(client, b"<%d>" % i) for i in range(50)))
            assert answers == [b"<%d>" % i * 3 for i in range(50)]
        assert server.connections <= 50


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        HELLO + b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["close", "HTTP/1.0", "unasked-for bytes"],
)
async def test_a_connection_that_must_not_be_used_again(answer: bytes) -> None:
    async with serve(answering(answer)) as server, connect(server) as client:
        assert [await ask_whole(client) for _ in range(3)] == [b"hello"] * 3
        assert server.connections == 3


async def test_bytes_on_an_unused_connection_close_it() -> None:
    async with serve(then_silent(HELLO, b"HTTP/1.1 408 Request Timeout\r\n\r\n")) as server, connect(server) as client:
        assert await ask_whole(client) == b"hello"
        await server.saw_departure()
        assert await ask_whole(client) == b"hello"


async def test_a_request_that_is_still_being_sent_ends_its_connection() -> None:
    async def early(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await peer.gone()

    async with serve(early) as server, connect(server) as client:
        for _ in range(2):
            with closing(await ask(client, bytes(32 << 20))) as reply:
                assert reply.status == 413
        assert server.connections == 2


@pytest.mark.parametrize("size", [3, 5_000, 20_000, 700_000])
async def test_a_body_in_pieces_arrives_whole_also_when_it_is_repeated(size: int) -> None:
    pieces = [bytes([65 + number]) * size for number in range(6)]

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(HELLO)
        await peer.request()  # and closes, without a word

    async with serve(script) as server, connect(server) as client:
        for _ in range(2):
            with closing(await client.post("/chat/completions", *pieces, accept="application/json")) as reply:
                assert await reply.read(5) == b"hello"
        assert server.connections == 2
        bodies = [request.partition(b"\r\n\r\n")[2] for request in server.requests]
        assert bodies == [b"".join(pieces)] * 3


async def test_only_so_many_unused_connections_are_kept() -> None:
    async with serve(answering(HELLO)) as server, connect(server, max_idle=1) as client:
        for reply in [await ask(client), await ask(client)]:
            reply.close()
        await asyncio.gather(ask_whole(client), ask_whole(client))
        assert server.connections == 3


async def test_an_unused_connection_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.providers.http.connection._KEEP_ALIVE", 0.05)
    async with serve(then_silent(HELLO)) as server, connect(server) as client:
        await ask_whole(client)
        await server.saw_departure()


async def test_a_connection_that_is_kept_no_longer_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time may be over in the moment of the next request, as that of lists of models, which are asked for once a
    minute.
    """
    monkeypatch.setattr("app.providers.http.connection._KEEP_ALIVE", 0.05)
    async with serve(answering(HELLO)) as server, connect(server) as client:
        for _ in range(3):
            assert await ask_whole(client) == b"hello"
            time.sleep(0.06)  # noqa: ASYNC251 - the loop is busy until then
            await asyncio.sleep(0)  # the timer runs,
            await asyncio.sleep(0)  # and the socket is about to be closed
        assert server.connections == 3


async def test_a_kept_connection_that_has_died_is_replaced() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(HELLO)
        await peer.request()  # and closes, without a word

    async with serve(script) as server, connect(server) as client:
        assert [await ask_whole(client) for _ in range(3)] == [b"hello"] * 3
        assert (server.connections, len(server.requests)) == (3, 5)


async def test_a_request_is_repeated_only_on_a_kept_connection_and_only_before_an_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if server.connections > 1:
            await peer.say(HELLO)
            await peer.request()
            await peer.say(b"HTTP/1.1 2")

    async with serve(script) as server, connect(server) as client:
        with pytest.raises(UpstreamProtocolError, match="without an answer"):
            await ask(client)
        assert await ask_whole(client) == b"hello"
        with pytest.raises(UpstreamProtocolError, match="middle"):
            await ask(client)
        assert (server.connections, len(server.requests)) == (2, 3)


@pytest.mark.parametrize(
    "answer",
    [OK + b"Content-", OK + b"Content-Length: 9\r\n\r\nhello", CHUNKED + b"9\r\nhello", CHUNKED + b"5\r\nhello\r\n"],
    ids=["head", "content-length", "inside a chunk", "no last chunk"],
)
async def test_a_cut_answer_is_an_error(answer: bytes) -> None:
    async with serve(answering_once(answer)) as server, connect(server) as client:
        with pytest.raises(UpstreamProtocolError) as caught:
            await ask_whole(client)
        assert (caught.value.status, caught.value.retryable) == (502, True)


async def test_what_came_before_the_cut_is_still_read() -> None:
    async with serve(answering_once(CHUNKED + b"5\r\nhello\r\n")) as server, connect(server) as client:
        with closing(await ask(client)) as reply:
            assert await reply.read_some() == b"hello"
            with pytest.raises(UpstreamProtocolError):
                await reply.read_some()


async def test_a_broken_connection_is_not_the_end_of_a_body() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK + b"\r\nhalf")
        peer.reset()

    async with serve(script) as server, connect(server) as client:
        with pytest.raises(UpstreamProtocolError, match="was lost"):
            await ask_whole(client)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        CHUNKED + b"nonsense\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"X: " + b"x" * 70_000,
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3000,
        CHUNKED + b"0\r\nX: " + b"x" * 70_000,
    ],
    ids=[
        "no HTTP",
        "chunk size",
        "upgrade",
        "two lengths",
        "endless field",
        "endless interim responses",
        "endless trailer",
    ],
)
async def test_a_malformed_answer_is_an_error_and_closes_the_connection(answer: bytes) -> None:
    async with serve(then_silent(answer)) as server, connect(server) as client:
        with pytest.raises(UpstreamProtocolError):
            await ask_whole(client)
        await server.saw_departure()


async def test_what_surrounds_a_body_is_limited_each_by_itself() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2000
    trailers = b"0\r\nX: " + b"x" * 60_000
    async with (
        serve(answering_once(hints, CHUNKED + b"5\r\nhello\r\n", trailers, b"\r\n\r\n")) as server,
        connect(server) as client,
    ):
        assert await ask_whole(client) == b"hello"


async def test_a_body_over_the_limit_is_an_error() -> None:
    async with serve(then_silent(HELLO)) as server, connect(server) as client:
        with closing(await ask(client)) as reply, pytest.raises(UpstreamProtocolError, match="too large"):
            await reply.read(4)


async def test_an_abandoned_answer_is_freed_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        async with serve(then_silent(CHUNKED)) as server, connect(server) as client:
            with closing(await ask(client)):
                pass
        assert not [one for one in gc.get_objects() if isinstance(one, Response)]
    finally:
        gc.enable()
