"""Bodies no client should send: too deep, too large, cut off, of the wrong kind."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.e2e_dialects import ask, error_of, post, send, text_of, with_field
from tests.support.gateway import Gateway
from tests.support.script import Reply
from tests.support.upstream import ScriptedUpstream

LIMIT = 32 * 1024 * 1024


@pytest.mark.parametrize("depth", [500, 850, 900, *range(950, 1010, 10), 5_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
async def test_deep_nesting(
    dialects: Gateway, upstream: ScriptedUpstream, depth: int, opening: bytes, closing: bytes
) -> None:
    """Either refused at once or served for good: what was taken can be read again, in every form."""
    nest = opening * depth + b"0" + closing * depth
    item = b'{"role":"user","content":"Hi","more":%b}' % nest
    upstream.default = Reply.say("Yes.")
    bodies = [
        b'{"model":"vllm/other","input":[%b]}' % item,
        with_field("client_metadata", nest),
        with_field("metadata", nest),
        with_field("tool_choice", nest),
        with_field("text", b'{"format":{"type":"json_schema","name":"a","schema":%b}}' % nest),
        with_field("reasoning", nest),
        nest,
    ]
    for body in bodies:
        answer = await send(dialects, body)
        if answer.status_code != 200:
            error_of(answer, 400)
            continue
        async with dialects.http() as http:
            for path in ("", "/input_items", "?stream=true"):
                assert (await http.get(f"/v1/responses/{answer.json()['id']}{path}")).status_code == 200
        follow_up = await post(dialects, previous_response_id=answer.json()["id"])
        assert follow_up.status_code == 200, follow_up.text


async def test_a_body_that_says_it_is_too_large(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    error = error_of(await send(dialects, b"x" * (LIMIT + 1)), 413)

    assert (error["type"], error["code"]) == ("invalid_request_error", "request_too_large")
    assert not upstream.requests


async def test_a_body_that_turns_out_too_large(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    """Without a length, in chunks; the answer comes before the end."""
    host = dialects.base_url.removeprefix("http://").split(":")
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(host[0], int(host[1]))
        head = (
            f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {dialects.key}\r\nTransfer-Encoding: "
            f"chunked\r\n\r\n"
        )
        writer.write(head.encode())
        piece = b"x" * 1024 * 1024
        try:
            for _ in range(LIMIT // len(piece) + 1):
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
        except ConnectionError:  # the gateway had heard enough
            pass
        answer = await reader.readuntil(b"}}")
        writer.close()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"request_too_large"' in answer
    assert b"x-request-id" in answer
    assert not upstream.requests


async def test_a_body_that_is_cut_off_is_nobodys_request(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    host = dialects.base_url.removeprefix("http://").split(":")
    before = len(dialects.log_file.read_bytes())
    async with asyncio.timeout(20):
        _, writer = await asyncio.open_connection(host[0], int(host[1]))
        writer.write(
            f"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {dialects.key}\r\nContent-Length: "
            f"1000\r\n\r\n{{".encode()
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    assert text_of(await ask(dialects)) == "Hello there."
    assert len(upstream.requests) == 1
    assert "Traceback" not in dialects.log(before)


@pytest.mark.parametrize(
    "name", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml"]
)
async def test_a_wrong_content_type(dialects: Gateway, upstream: ScriptedUpstream, name: str) -> None:
    error = error_of(await send(dialects, with_field("store", b"true"), **{"content-type": name}), 400)

    assert (error["type"], error["code"]) == ("invalid_request_error", "unsupported_content_type")
    assert not upstream.requests


@pytest.mark.parametrize(
    "name", ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json", ""]
)
async def test_a_good_content_type(dialects: Gateway, upstream: ScriptedUpstream, name: str) -> None:
    assert (await send(dialects, with_field("store", b"true"), **{"content-type": name})).status_code == 200
    assert len(upstream.requests) == 1
