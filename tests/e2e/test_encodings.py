"""Compressed request bodies, as Codex and others send them, on every route."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import brotli  # pyright: ignore[reportMissingTypeStubs] - has none
import httpx
import pytest
from backports import zstd

from tests.e2e.streams import MODEL, Json, final, sent
from tests.support.gateway import Gateway
from tests.support.upstream import ScriptedUpstream

pytestmark = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)

REQUEST: Json = {"model": MODEL, "input": "你好 " * 50_000, "stream": True}


def packed_by_brotli(data: bytes) -> bytes:
    return bytes(brotli.compress(data))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": packed_by_brotli,
    "zstd": zstd.compress,
    "gzip, zstd": lambda data: zstd.compress(gzip.compress(data)),
    "identity": bytes,
}


async def post(gateway: Gateway, path: str, body: bytes, coding: str, kind: str = "application/json") -> httpx.Response:
    async with gateway.http() as http:
        return await http.post(path, content=body, headers={"content-type": kind, "content-encoding": coding})


@pytest.mark.parametrize("coding", PACKERS)
async def test_a_compressed_request_is_answered(gateway: Gateway, upstream: ScriptedUpstream, coding: str) -> None:
    answer = await post(gateway, "/v1/responses", PACKERS[coding](json.dumps(REQUEST).encode()), coding)

    assert final(answer.content)["status"] == "completed"
    assert sent(upstream)[-1]["content"] == REQUEST["input"]


async def test_two_fields_are_one_list(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    fields = [("content-type", "application/json"), ("content-encoding", "gzip"), ("content-encoding", "br")]
    async with gateway.http() as http:
        answer = await http.post(
            "/responses", content=packed_by_brotli(gzip.compress(json.dumps(REQUEST).encode())), headers=fields
        )

    assert final(answer.content)["status"] == "completed"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("coding", PACKERS)
async def test_other_routes_read_them_too(gateway: Gateway, coding: str) -> None:
    made = await post(gateway, "/v1/vector_stores", PACKERS[coding](b'{"name": "packed"}'), coding)

    assert (made.status_code, made.json()["name"]) == (200, "packed")


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/vector_stores", "/v1/containers"])
async def test_what_is_not_read_is_refused_with_what_is(gateway: Gateway, path: str) -> None:
    other = await post(gateway, path, b"{}", "compress")
    broken = await post(gateway, path, b"\x28\xb5\x2f\xfdxxxx", "zstd")
    bomb = await post(gateway, path, gzip.compress(b" " * (40 << 20), 1), "gzip")

    assert (other.status_code, other.json()["error"]["code"]) == (415, "unsupported_content_encoding")
    assert "gzip, deflate, br, zstd" in other.json()["error"]["message"]
    assert (other.headers["accept-encoding"], other.headers["x-should-retry"]) == ("gzip, deflate, br, zstd", "false")
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_content_encoding")
    assert (bomb.status_code, bomb.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("path", ["/v1/files", "/v1/containers/cntr_1/files"])
async def test_a_form_with_a_file_is_not_unpacked(gateway: Gateway, path: str) -> None:
    refused = await post(gateway, path, gzip.compress(b"--B--\r\n"), "gzip", "multipart/form-data; boundary=B")
    as_it_is = await post(gateway, "/v1/files", b"--B--\r\n", "identity", "multipart/form-data; boundary=B")

    assert (refused.status_code, refused.json()["error"]["code"]) == (415, "unsupported_content_encoding")
    assert (as_it_is.status_code, as_it_is.json()["error"]["param"]) == (400, "file")


async def test_a_stranger_has_nothing_unpacked(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url) as http:
        for path in ("/v1/responses", "/v1/vector_stores"):
            refused = await http.post(
                path, content=b"no gzip", headers={"content-type": "application/json", "content-encoding": "gzip"}
            )
            assert refused.status_code == 401
