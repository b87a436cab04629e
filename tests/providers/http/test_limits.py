"""The upstream client's time limits, cancellation, back-pressure, TLS and refusals."""

from __future__ import annotations

import asyncio
import datetime
import errno
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import aclosing, closing
from functools import partial
from pathlib import Path

import msgspec
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.providers.base import UpstreamError
from app.providers.http.client import ClientTimeouts, UpstreamClient
from tests.providers.http import test_client
from tests.providers.raw_http import (
    CHUNKED,
    HELLO,
    LIMITS,
    OK,
    Peer,
    answering,
    ask,
    ask_whole,
    connect,
    serve,
    then_silent,
)

SOON = 0.1
A_CHUNK = b"1\r\na\r\n"


def limited(**seconds: float) -> ClientTimeouts:
    return msgspec.structs.replace(LIMITS, **seconds)


async def failure(call: Awaitable[object]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize(
    ("answer", "limits", "code", "named"),
    [
        (b"", limited(first_token=SOON), "upstream_timeout", "first_token"),
        (CHUNKED, limited(first_token=SOON), "upstream_timeout", "first_token"),
        (CHUNKED + A_CHUNK, limited(idle=SOON), "upstream_stalled", "idle"),
        (CHUNKED + A_CHUNK, limited(total=SOON), "upstream_timeout", "total"),
        (CHUNKED, limited(total=SOON), "upstream_timeout", "total"),
    ],
    ids=["no head", "no body", "stalled", "total, in the body", "total, before the body"],
)
async def test_an_answer_that_takes_too_long(answer: bytes, limits: ClientTimeouts, code: str, named: str) -> None:
    async with serve(then_silent(answer)) as server, connect(server, timeouts=limits) as client:
        async with asyncio.timeout(30):  # the other limits are further away
            error = await failure(ask_whole(client))
        assert (error.status, error.code, error.retryable) == (504, code, False)
        assert error.message.endswith(f" within 0.1 seconds (its setting 'timeouts.{named}').")
        await server.saw_departure()


async def test_limits_hold_on_a_kept_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(HELLO)
        await peer.request()
        await peer.gone()

    async with serve(script) as server, connect(server, timeouts=limited(first_token=SOON)) as client:
        assert await ask_whole(client) == b"hello"
        with pytest.raises(UpstreamError, match="begin"):
            await ask(client)
        await server.saw_departure()
        assert server.connections == 1


async def test_every_read_moves_the_idle_limit() -> None:
    async def drip(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        for _ in range(10):
            # the pace of the stream: longer in all than the limits, each pause far below them
            await asyncio.sleep(SOON)
            await peer.say(A_CHUNK)
        await peer.say(b"0\r\n\r\n")

    limits = limited(first_token=7 * SOON, idle=7 * SOON)
    async with serve(drip) as server, connect(server, timeouts=limits) as client:
        assert await ask_whole(client) == b"a" * 10


async def test_no_read_moves_the_total_limit() -> None:
    async def drip(peer: Peer) -> None:
        await peer.request()
        await peer.say(CHUNKED)
        while not peer.writer.is_closing():
            await peer.say(A_CHUNK)
            await asyncio.sleep(SOON / 10)

    async with serve(drip) as server, connect(server, timeouts=limited(total=3 * SOON)) as client:
        async with asyncio.timeout(30):
            assert (await failure(ask_whole(client))).code == "upstream_timeout"


async def test_a_connection_that_takes_too_long_to_open() -> None:
    async with serve(Peer.gone) as server:  # it accepts, and never begins the TLS handshake
        client = UpstreamClient(f"https://127.0.0.1:{server.port}", headers={}, timeouts=limited(connect=SOON))
        with pytest.raises(UpstreamError) as caught:
            await ask(client)
        assert (caught.value.status, caught.value.code, caught.value.retryable) == (504, "upstream_timeout", True)
        assert "'timeouts.connect'" in caught.value.message
        await server.saw_departure()


async def test_an_upstream_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UpstreamError) as caught:
        await ask(UpstreamClient(f"http://127.0.0.1:{port}", headers={}, timeouts=LIMITS))
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (503, "upstream_unreachable", True)
    assert "127.0.0.1" not in caught.value.message


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "host.test"), "host name"),
        (OSError(errno.ENETUNREACH, "host.test"), "connection failed"),
    ],
)
async def test_an_upstream_that_cannot_be_found(cause: OSError, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> object:
        raise cause

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)  # no name server is asked in a test
    error = await failure(ask(UpstreamClient("http://host.test", headers={}, timeouts=LIMITS)))
    assert (error.status, error.code, error.retryable) == (503, "upstream_unreachable", True)
    assert reason in error.message
    assert "host.test" not in error.message


async def test_closing_in_the_middle_reaches_the_upstream() -> None:
    async with serve(then_silent(CHUNKED + A_CHUNK)) as server, connect(server) as client:
        reply = await ask(client)
        assert await reply.read_some() == b"a"
        reply.close()
        reply.close()
        await server.saw_departure()
        with pytest.raises(RuntimeError, match="closed"):
            await reply.read_some()


async def test_closing_ends_a_read_under_way() -> None:
    async with serve(then_silent(CHUNKED)) as server, connect(server) as client:
        reply = await ask(client)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(failure(reply.read_some()))
            await asyncio.sleep(0)
            reply.close()
        assert "abandoned" in reading.result().message


@pytest.mark.parametrize("answer", [b"", CHUNKED], ids=["before the head", "in the body"])
async def test_cancelling_reaches_the_upstream(answer: bytes) -> None:
    asked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)
        asked.set()
        await peer.gone()

    async with serve(script) as server, connect(server) as client:
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask_whole(client))
            await asked.wait()
            asking.cancel()
        assert asking.cancelled()
        await server.saw_departure()


async def test_a_cancelled_read_does_not_look_like_the_end() -> None:
    async with serve(then_silent(OK + b"\r\nhalf")) as server, connect(server) as client:
        with closing(await ask(client)) as reply:
            assert await reply.read_some() == b"half"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await reply.read_some()
            await server.saw_departure()
            with pytest.raises(UpstreamError):
                await reply.read_some()


async def test_a_slow_reader_holds_the_upstream_back() -> None:
    size, held_back = 32 << 20, asyncio.Event()

    async def flood(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(OK + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            peer.writer.write(bytes(1 << 16))
            try:
                await asyncio.wait_for(peer.writer.drain(), 3 * SOON)
            except TimeoutError:
                held_back.set()
                await peer.writer.drain()

    # The reader is silent for longer than the idle limit: its own slowness is not the upstream's.
    async with serve(flood) as server, connect(server, timeouts=limited(idle=SOON)) as client:
        with closing(await ask(client)) as reply:
            async with asyncio.timeout(10):
                await held_back.wait()
            assert len(await reply.read(size)) == size


async def test_closing_the_client_closes_everything() -> None:
    async with serve(then_silent(CHUNKED + A_CHUNK)) as server, connect(server) as client:
        replies = [await ask(client) for _ in range(3)]
        assert await replies[0].read_some() == b"a"
        await client.aclose()
        for _ in replies:
            await server.saw_departure()
        assert await replies[1].read_some() == b"a"  # it had arrived
        for call in (replies[0].read_some(), replies[1].read_some(), ask(client)):
            assert (await failure(call)).status == 503


async def test_closing_the_client_closes_unused_connections() -> None:
    async with serve(then_silent(HELLO)) as server, connect(server) as client:
        await ask_whole(client)
        await client.aclose()
        await server.saw_departure()


def certificate(folder: Path, *, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server with a certificate of its own, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "upstream")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "server.pem"
    file.write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_tls(tmp_path: Path) -> None:
    for_server, for_client = certificate(tmp_path, name="127.0.0.1")

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(HELLO)
        await peer.request()
        await peer.say(CHUNKED + A_CHUNK)
        await peer.gone()

    async with serve(script, tls=for_server) as server:
        url = f"https://127.0.0.1:{server.port}"
        async with aclosing(UpstreamClient(url, headers={}, timeouts=limited(idle=SOON), tls=for_client)) as client:
            assert await ask_whole(client) == b"hello"
            with closing(await ask(client)) as reply:
                assert await reply.read_some() == b"a"
                assert (await failure(reply.read_some())).code == "upstream_stalled"
            await server.saw_departure()
            assert server.connections == 1


async def test_https_where_plain_http_is_spoken() -> None:
    async def script(peer: Peer) -> None:
        await peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async with serve(script) as server:
        error = await failure(ask(UpstreamClient(f"https://127.0.0.1:{server.port}", headers={}, timeouts=LIMITS)))
    assert (error.status, error.code) == (503, "upstream_unreachable")
    assert "TLS handshake" in error.message


@pytest.mark.parametrize(
    ("name", "trusted"), [("127.0.0.1", False), ("127.0.0.2", True)], ids=["not trusted", "another's"]
)
async def test_a_certificate_that_does_not_convince(tmp_path: Path, name: str, *, trusted: bool) -> None:
    for_server, for_client = certificate(tmp_path, name=name)
    async with serve(answering(HELLO), tls=for_server) as server:
        url = f"https://127.0.0.1:{server.port}"
        client = UpstreamClient(url, headers={}, timeouts=LIMITS, tls=for_client if trusted else None)
        with pytest.raises(UpstreamError, match="certificate") as caught:
            await ask(client)
    assert (caught.value.status, caught.value.code) == (503, "upstream_unreachable")
    assert server.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "secret\r\nX-B: 1"},
        {"X-A": "secret\n"},
        {"X-A": "secret\x00"},
        {"X-A\r\nX-B": "secret"},
        {"X A": "secret"},
        {"": "secret"},
    ]
    + [{name: "secret"} for name in ("Content-Length", "transfer-encoding", "Connection", "Accept-Encoding")],
)
def test_headers_that_would_change_the_message_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header") as caught:
        UpstreamClient("http://127.0.0.1", headers=headers, timeouts=LIMITS)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "http://user:key@host",
        "http://host/v1?a=1",
        "http://host/v 1",
        "http://host:99999",
    ],
)
def test_addresses_that_cannot_be_used_are_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the port's mistake is worded by the standard library
        UpstreamClient(url, headers={}, timeouts=LIMITS)


async def test_a_path_cannot_carry_another_request() -> None:
    client = UpstreamClient("http://127.0.0.1", headers={}, timeouts=LIMITS)
    with pytest.raises(ValueError, match="path"):
        await client.get("/models HTTP/1.1\r\nX: ")


@pytest.mark.parametrize(
    "scenario",
    [
        test_client.test_many_requests_at_once,
        test_client.test_requests_in_a_row_share_a_connection,
        test_client.test_a_kept_connection_that_has_died_is_replaced,
        test_client.test_bytes_on_an_unused_connection_close_it,
        test_client.test_a_request_that_is_still_being_sent_ends_its_connection,
        partial(test_client.test_a_body_in_pieces_arrives_whole_also_when_it_is_repeated, 700_000),
        test_limits_hold_on_a_kept_connection,
        test_every_read_moves_the_idle_limit,
        test_a_connection_that_takes_too_long_to_open,
        test_an_upstream_that_is_not_there,
        test_https_where_plain_http_is_spoken,
        test_closing_in_the_middle_reaches_the_upstream,
        test_a_cancelled_read_does_not_look_like_the_end,
        test_a_slow_reader_holds_the_upstream_back,
        test_closing_the_client_closes_everything,
    ],
)
def test_the_same_on_uvloop(scenario: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario()

    uvloop.run(run())


def test_tls_on_uvloop(tmp_path: Path) -> None:
    uvloop.run(test_tls(tmp_path))
