"""What a client may do to a connection: how much it sends, how slowly, and how little it reads.

No key is needed to try.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from tests.e2e.streams import MODEL
from tests.support.gateway import Gateway, running_gateway
from tests.support.operations import OPERATIONS
from tests.support.script import Gate, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream
from tests.support.wire import connected, head

MIB = b"a" * 1024 * 1024
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
_DATA_SEGMENTS_IN = 152
"""The place of `tcpi_data_segs_in` in Linux's `struct tcp_info`."""


@pytest.fixture(scope="module")
def strict(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    """A gateway with little patience and room for few."""
    limits = {"header_seconds": "1", "body_seconds": "1", "unread_seconds": "1", "open": "8"}
    settings = {f"connections__{name}": value for name, value in limits.items()}
    with running_gateway(tmp_path_factory.mktemp("strict"), upstream_server.url, **settings) as running:
        yield running


async def assert_served(gateway: Gateway) -> None:
    async with gateway.http() as http:
        assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("start", "status", "code"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ", 431, "headers_too_large"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-", 431, "headers_too_large"),
        (b"GET /", 414, "url_too_long"),
        (b"GET /healthz?x=", 414, "url_too_long"),
        (b"POST /v1/containers HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: ", 431, "headers_too_large"),
    ],
)
async def test_a_header_without_end_is_refused_soon(
    sqlite_gateway: Gateway, start: bytes, status: int, code: str
) -> None:
    async with connected(sqlite_gateway) as wire:
        await wire.send(start, MIB[: 70 * 1024])
        answer = await wire.answer()
        assert await wire.rest() == b""

    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["content-type"] == "application/json"


async def test_whoever_goes_on_sending_is_cut_off(sqlite_gateway: Gateway) -> None:
    async with connected(sqlite_gateway) as wire:
        assert not await wire.send(b"GET / HTTP/1.1\r\nX-A: ", *[MIB] * 24)

    await assert_served(sqlite_gateway)


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head("GET", "/healthz", *[f"X-{number}: a" for number in range(200)]), 431),
        (head("GET", "/healthz", "X-A: " + "a" * 65_600), 431),
        (head("GET", "/healthz?" + "a" * 17_000), 414),
        (head("GET", "/healthz", *[f"X-{number}: {'a' * 400}" for number in range(100)]), 200),
        (head("GET", "/healthz?" + "a" * 15_000), 200),
    ],
)
async def test_the_header_as_a_whole_is_limited(sqlite_gateway: Gateway, request_head: bytes, status: int) -> None:
    async with connected(sqlite_gateway) as wire:
        await wire.send(request_head)
        answer = await wire.answer()

    assert answer.status == status


@pytest.mark.parametrize(
    "bad",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: \x00\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A\x00: 1\r\n\r\n",
        b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_told_in_the_envelope(sqlite_gateway: Gateway, bad: bytes) -> None:
    before = len(sqlite_gateway.log_file.read_bytes())
    async with connected(sqlite_gateway) as wire:
        await wire.send(bad)
        answer = await wire.answer()

    assert (answer.status, answer.error["code"]) == (400, "invalid_http")
    assert "Traceback" not in sqlite_gateway.log(before)


@pytest.mark.parametrize(
    "operation", [*OPERATIONS, "POST /v1/nowhere", "PUT /v1/files", "POST /v1/responses/compact", "POST /nowhere"]
)
@pytest.mark.parametrize(
    "fields",
    [
        (JSON, CHUNKED),
        (JSON, CHUNKED, "Content-Encoding: gzip"),
        ("Content-Type: multipart/form-data; boundary=B", CHUNKED),
    ],
)
@pytest.mark.parametrize("key", [None, "sk-unknown"])
async def test_without_a_good_key_no_body_is_read(
    sqlite_gateway: Gateway, operation: str, fields: tuple[str, ...], key: str | None
) -> None:
    """The answer comes while the body has not even begun, and ends the connection."""
    method, path = operation.split()
    async with connected(sqlite_gateway) as wire:
        await wire.send(head(method, path.replace("{", "").replace("}", ""), *fields, key=key))
        answer = await wire.answer()
        assert await wire.rest() == b""

    assert answer.status in ((401,) if operation in OPERATIONS else (401, 404, 405))
    assert answer.headers["connection"] == "close"


async def test_nobody_is_told_to_send_a_body_that_is_not_wanted(sqlite_gateway: Gateway) -> None:
    async with connected(sqlite_gateway) as wire:
        await wire.send(
            head(
                "POST",
                "/v1/files",
                "Expect: 100-continue",
                "Content-Length: 1000000",
                "Content-Type: multipart/form-data",
            )
        )
        answer = await wire.answer()

    assert answer.status == 401


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "GET", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/files", "/healthz", "/metrics", "/docs", "/nowhere"])
async def test_a_body_that_no_route_reads_ends_the_connection(sqlite_gateway: Gateway, method: str, path: str) -> None:
    async with connected(sqlite_gateway) as wire:
        await wire.send(head(method, path, CHUNKED), b"100000\r\n" + MIB + b"\r\n")
        answer = await wire.rest()

    assert answer.startswith(b"HTTP/1.1 ")
    assert b"\r\nconnection: close\r\n" in answer


async def test_a_body_without_end_is_not_taken(sqlite_gateway: Gateway) -> None:
    async with connected(sqlite_gateway) as wire:
        assert not await wire.send(
            head("POST", "/v1/containers", JSON, CHUNKED), *[b"100000\r\n" + MIB + b"\r\n"] * 160
        )


@pytest.mark.parametrize(
    "body",
    [
        b"1\r\na\r\n" * 100_000,
        b"1;" + b"x" * 200_000,
        b"1;x=" + b"y" * 40 + b"\r\n" * 1,
        b"0" * 200_000,
        b"0\r\n" + b"X-A: b\r\n" * 20_000,
        b"0\r\nX-A: " + b"b" * 200_000,
    ],
    ids=["tiny", "extension", "short", "zeros", "trailers", "trailer"],
)
async def test_chunks_that_are_hardly_anything_else(
    sqlite_gateway: Gateway, body: bytes, request: pytest.FixtureRequest
) -> None:
    async with connected(sqlite_gateway) as wire:
        await wire.send(head("POST", "/v1/responses", JSON, CHUNKED, key=sqlite_gateway.key), body)
        if request.node.callspec.id == "short":
            await wire.send(b"{\r\n1\r\n}\r\n0\r\n\r\n")
        answer = await wire.answer()

    assert answer.status == 400
    assert answer.error["code"] == (
        "missing_required_parameter" if request.node.callspec.id == "short" else "invalid_http"
    )


async def test_trailers_are_no_headers(sqlite_gateway: Gateway) -> None:
    body = b'{"model":"m"}'
    async with connected(sqlite_gateway) as wire:
        await wire.send(head("POST", "/v1/vector_stores", JSON, CHUNKED), b"%x\r\n%b\r\n0\r\n" % (len(body), body))
        await wire.send(f"Authorization: Bearer {sqlite_gateway.key}\r\nX-Request-Id: trailer\r\n\r\n".encode())
        answer = await wire.answer()

    assert answer.status == 401
    assert answer.headers["x-request-id"] != "trailer"


async def test_many_requests_at_once_on_one_connection(sqlite_gateway: Gateway) -> None:
    async with connected(sqlite_gateway) as wire:
        await wire.send(head("GET", "/healthz") * 8)
        assert [(await wire.answer()).status for _ in range(8)] == [200] * 8

    async with connected(sqlite_gateway) as wire:
        await wire.send(head("GET", "/healthz") * 5000)
        assert (await wire.rest()).count(b"HTTP/1.1 200") < 100


@pytest.mark.parametrize(
    "rest", [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nX-A: " + MIB[: 70 * 1024], b"GET /" + MIB[: 70 * 1024]]
)
async def test_a_good_request_is_answered_before_a_bad_one_ends_the_connection(
    sqlite_gateway: Gateway, upstream: ScriptedUpstream, rest: bytes
) -> None:
    upstream.script(Reply.say("Yes."))
    body = f'{{"model":"{MODEL}","input":"Hi","stream":true}}'.encode()
    async with connected(sqlite_gateway) as wire:
        await wire.send(
            head("POST", "/v1/responses", JSON, f"Content-Length: {len(body)}", key=sqlite_gateway.key) + body + rest
        )
        answer = await wire.rest()

    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"event: response.completed" in answer
    assert answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
@pytest.mark.parametrize("together", [True, False])
async def test_a_proposal_of_another_protocol_is_passed_over(
    sqlite_gateway: Gateway, upstream: ScriptedUpstream, framing: str, together: bool
) -> None:
    """Java's client proposes HTTP/2 in its requests, and its bodies follow in HTTP/1.1."""
    body = b'{"model":"%b","input":"Hello, old protocol","store":false}' % MODEL.encode()
    proposal = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAA", JSON]
    if framing == "chunked":
        length, sent = CHUNKED, b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (9, body[:9], len(body) - 9, body[9:])
    else:
        length, sent = f"Content-Length: {len(body)}", body
    start = head("POST", "/v1/responses", *proposal, length, f"Authorization: Bearer {sqlite_gateway.key}")
    again = head("GET", "/healthz", *proposal)
    pieces = [start + sent + again + again] if together else [start, sent[:20], sent[20:], again, again]
    async with connected(sqlite_gateway) as wire:
        await wire.send(*pieces)
        answers = [await wire.answer() for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert upstream.requests[-1].body["messages"][-1]["content"] == "Hello, old protocol"


async def test_a_connection_is_used_again(sqlite_gateway: Gateway) -> None:
    async with connected(sqlite_gateway) as wire:
        for fields, body in (
            ((), b""),
            ((JSON, "Content-Length: 2"), b"{}"),
            ((JSON, CHUNKED), b"2\r\n{}\r\n0\r\n\r\n"),
        ):
            await wire.send(head("POST", "/v1/responses", *fields, key=sqlite_gateway.key), body)
            answer = await wire.answer()
            assert (answer.status, answer.headers.get("connection")) == (400, None)


@pytest.mark.parametrize("start", [b"", b"\r\n\r\n", b"GET /healthz HTTP/1.1\r\nX-A: ", b"G"])
async def test_a_header_that_is_not_finished_ends_the_connection(strict: Gateway, start: bytes) -> None:
    async with connected(strict) as wire:
        await wire.send(start)
        answer = await wire.rest()

    assert answer[:12] == (b"HTTP/1.1 408" if start else b"")


async def test_a_second_header_that_is_not_finished_ends_it_too(strict: Gateway) -> None:
    async with connected(strict) as wire:
        await wire.send(head("GET", "/healthz"))
        assert (await wire.answer()).status == 200
        await wire.send(b"\r\n")
        assert (await wire.rest())[:12] == b"HTTP/1.1 408"


async def test_a_header_in_drops_is_not_waited_for(strict: Gateway) -> None:
    async with connected(strict) as wire:
        await wire.send(b"GET /healthz HTTP/1.1\r\nX: ")
        async with asyncio.timeout(30):
            while await wire.send(b"a"):  # noqa: ASYNC110 - nothing to wait for
                await asyncio.sleep(0.02)  # the rate of this client


@pytest.mark.parametrize("body", [b"", b"{", b"1\r\n{\r\n"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/vector_stores", "/v1/containers/cntr_1/files"])
async def test_a_body_that_does_not_come_is_not_waited_for(strict: Gateway, path: str, body: bytes) -> None:
    length = CHUNKED if b"\r" in body else "Content-Length: 1000"
    async with connected(strict) as wire:
        await wire.send(head("POST", path, JSON, length, key=strict.key), body)
        answer = await wire.answer()
        assert await wire.rest() == b""

    assert (answer.status, answer.error["code"]) == (408, "request_timeout")


async def _counted(gateway: Gateway, labels: str) -> float:
    async with gateway.http() as http:
        metrics = (await http.get("/metrics")).text
    return sum(
        float(count) for count in re.findall(rf"gateway_http_requests_total\{{{re.escape(labels)}\}} (\S+)", metrics)
    )


@pytest.mark.parametrize(
    ("start", "status", "code"),
    [
        (b"GET /healthz HTTP/1.1\r\nX-A: " + MIB[: 70 * 1024], 431, "headers_too_large"),
        (b"GET /" + MIB[: 70 * 1024], 414, "url_too_long"),
        (b"nonsense\r\n\r\n", 400, "invalid_http"),
        (b"GET /healthz HTTP/1.1\r\nX-A: ", 408, "request_timeout"),
    ],
)
async def test_a_request_that_is_not_read_is_logged_and_counted(
    strict: Gateway, start: bytes, status: int, code: str
) -> None:
    labels = f'code="{code}",method="-",route="other",status="{status}"'
    before = await _counted(strict, labels)
    async with connected(strict) as wire:
        await wire.send(start)
        request_id = (await wire.answer()).headers["x-request-id"]

    log = await strict.logged(request_id)
    (line,) = [line for line in log.splitlines() if request_id in line]
    assert f" INFO app.request [{request_id}] - other {status} 0ms code={code}" in line
    assert await _counted(strict, labels) == before + 1


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/v1/responses", JSON),
        ("/v1/vector_stores", JSON),
        ("/v1/files", "Content-Type: multipart/form-data; boundary=B"),
    ],
)
@pytest.mark.parametrize(
    ("body", "status", "code"), [(b"1\r\n-\r\n", 408, "request_timeout"), (b"1\r\n-\r\n?\r\n", 400, "invalid_http")]
)
async def test_a_body_that_is_not_read_on_is_logged_once(
    strict: Gateway, path: str, content_type: str, body: bytes, status: int, code: str
) -> None:
    labels = f'code="{code}",method="POST",route="{path}",status="{status}"'
    before, mine = await _counted(strict, labels), f"mine-{uuid4()}"
    async with connected(strict) as wire:
        given = (content_type, CHUNKED, "Expect: 100-continue", f"X-Request-Id: {mine}")
        await wire.send(head("POST", path, *given, key=strict.key))
        assert (await wire.answer()).status == 100  # the body is being read
        await wire.send(body)
        answer = await wire.answer()

    log = await strict.logged(mine)
    (line,) = [line for line in log.splitlines() if mine in line]
    assert (answer.status, answer.headers["x-request-id"]) == (status, mine)
    assert f" POST {path} {status} " in line
    assert f" code={code}" in line
    assert await _counted(strict, labels) == before + 1


async def test_a_body_in_drops_is_not_waited_for(strict: Gateway) -> None:
    async with connected(strict) as wire:
        await wire.send(head("POST", "/v1/responses", JSON, "Content-Length: 100000", key=strict.key))
        async with asyncio.timeout(30):
            while await wire.send(b" "):  # noqa: ASYNC110 - nothing to wait for
                await asyncio.sleep(0.02)  # fifty bytes a second


async def test_a_client_that_does_not_read_is_cut_off(strict: Gateway, upstream: ScriptedUpstream) -> None:
    begun, more = Gate(), Gate()
    upstream.script(Reply(pieces=[Thought("Hm."), begun, *[Text("long " * 50_000)] * 200, more]))
    body = f'{{"model":"{MODEL}","input":"Hi","stream":true}}'.encode()
    async with connected(strict) as wire:
        await wire.send(head("POST", "/v1/responses", JSON, f"Content-Length: {len(body)}", key=strict.key), body)
        await begun.reached()
        begun.open()
        async with asyncio.timeout(30), strict.http() as http:
            while "\ngateway_responses_running 0.0\n" not in (await http.get("/metrics")).text:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert b"response.completed" not in await wire.rest()
    more.open()


async def test_connections_are_limited(strict: Gateway) -> None:
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connected(strict)) for _ in range(12)]
        answers = [await wire.rest() for wire in wires]

    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
    assert len(refused) >= 4
    assert b'"code":"server_is_overloaded"' in refused[0]
    assert b"retry-after: 1" in refused[0]
    await assert_served(strict)


@pytest.mark.parametrize("operation", [*OPERATIONS, "GET /healthz", "GET /nowhere"])
async def test_two_keys_are_one_too_many(sqlite_gateway: Gateway, operation: str) -> None:
    method, path = operation.split()
    async with connected(sqlite_gateway) as wire:
        await wire.send(head(method, path, "Authorization: Bearer sk-other", key=sqlite_gateway.key))
        answer = await wire.answer()

    assert (answer.status, answer.error["code"]) == (400, "ambiguous_api_key")


@pytest.mark.skipif(sys.platform != "linux", reason="segments are counted by Linux")
def test_a_plain_answer_leaves_in_one_write(sqlite_gateway: Gateway) -> None:
    host, _, port = sqlite_gateway.base_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as wire:
        for _ in range(20):
            wire.sendall(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += wire.recv(4096)
        (segments,) = struct.unpack_from(
            "I", wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), _DATA_SEGMENTS_IN
        )

    assert segments == 20
