"""API keys: made and revoked on the command line, asked for by every endpoint."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import httpx
import openai
import pytest

from tests.e2e.streams import MODEL, Frames, final
from tests.support.gateway import Gateway
from tests.support.script import Gate, Reply, Text
from tests.support.upstream import ScriptedUpstream

ENDPOINTS = [
    ("POST", "/v1/responses"),
    ("GET", "/v1/responses/0190b7c2-3f4e-7abc-8def-0123456789ab"),
    ("GET", "/v1/responses/0190b7c2-3f4e-7abc-8def-0123456789ab?stream=true"),
    ("DELETE", "/v1/responses/0190b7c2-3f4e-7abc-8def-0123456789ab"),
    ("GET", "/v1/responses/0190b7c2-3f4e-7abc-8def-0123456789ab/input_items"),
    ("GET", "/v1/models"),
    ("GET", f"/v1/models/{MODEL}"),
]
MISSING = "missing_api_key"
WRONG = "invalid_api_key"

ONE_SECOND = "0.0000116"
"""In days."""

on_sqlite = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)


async def _status(gateway: Gateway, key: str) -> int:
    async with httpx.AsyncClient(base_url=gateway.base_url, headers={"authorization": f"Bearer {key}"}) as http:
        return (await http.get("/v1/models")).status_code


@pytest.mark.parametrize("gateway", ["postgresql"], indirect=True)
async def test_keys_serve_until_revoked_or_expired(
    gateway: Gateway, upstream: ScriptedUpstream, command: Callable[..., str]
) -> None:
    revoked = (
        await asyncio.to_thread(command, "keys", "create", "--project", "cycle", "--name", "for a while")
    ).strip()
    expired = (await asyncio.to_thread(command, "keys", "create", "--project", "cycle", "--days", ONE_SECOND)).strip()
    assert re.fullmatch(r"sk-[\w-]{40,}", revoked)
    async with openai.AsyncOpenAI(base_url=f"{gateway.base_url}/v1", api_key=revoked, max_retries=0) as client:
        assert (await client.responses.create(model=MODEL, input="Hi")).output_text == "Hello there."

    listed = await asyncio.to_thread(command, "keys", "list")
    (line,) = [line for line in listed.splitlines() if "for a while" in line]
    assert revoked not in listed
    assert revoked[:12] in line
    assert line.endswith("active")

    await asyncio.to_thread(command, "keys", "revoke", line.split()[0])
    await _until_refused(gateway, revoked)
    await _until_refused(gateway, expired)
    listed = await asyncio.to_thread(command, "keys", "list")
    assert {line.split()[-1] for line in listed.splitlines() if " cycle " in line} == {"expired", "revoked"}
    assert len(upstream.requests) == 1


@on_sqlite
@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
async def test_every_endpoint_asks_for_a_key(gateway: Gateway, method: str, path: str) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url) as http:
        answer = await http.request(method, path, json={"model": MODEL, "input": "Hi"} if method == "POST" else None)

    assert answer.status_code == 401
    assert answer.json()["error"] | {"message": ""} == {
        "message": "",
        "type": "authentication_error",
        "param": None,
        "code": MISSING,
    }
    assert answer.headers["x-request-id"]


@on_sqlite
@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        b"Bearer",
        b"sk-0123456789abcdef",
        b"Basic c2s6Zm9v",
        b"Bearer sk-unknown",
        b"Bearer test-key-4f9a1c7e2b8d605",
        b"Bearer \xff\xfe",
    ],
)
async def test_a_wrong_key_is_refused(gateway: Gateway, authorization: bytes) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url, headers=[(b"authorization", authorization)]) as http:
        hot = await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"})
        cold = await http.get("/v1/models")

    assert (hot.status_code, cold.status_code) == (401, 401)
    assert hot.json()["error"]["code"] == cold.json()["error"]["code"] == WRONG
    assert hot.json() == cold.json()


@on_sqlite
async def test_what_has_begun_outlives_its_key(
    gateway: Gateway, upstream: ScriptedUpstream, command: Callable[..., str]
) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Half "), gate, Text("done.")]))
    key = (await asyncio.to_thread(command, "keys", "create", "--project", "begun", "--name", "short")).strip()
    asked = {"model": MODEL, "input": "Hi", "stream": True}
    async with httpx.AsyncClient(
        base_url=gateway.base_url, headers={"authorization": f"Bearer {key}"}, timeout=30
    ) as http:
        async with http.stream("POST", "/v1/responses", json=asked) as answer:
            frames = Frames(answer)
            begun = await frames.take()
            await asyncio.to_thread(command, "keys", "revoke", key[:12])
            await _until_refused(gateway, key)
            gate.open()
            response = final(begun + await frames.rest())
        assert (response["status"], response["output"][0]["content"][0]["text"]) == ("completed", "Half done.")
        assert (await http.get(f"/v1/responses/{response['id']}")).status_code == 401


@on_sqlite
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_in_any_case(gateway: Gateway, scheme: str) -> None:
    async with httpx.AsyncClient(
        base_url=gateway.base_url, headers={"authorization": f"{scheme} {gateway.key}"}
    ) as http:
        assert (await http.get("/v1/models")).status_code == 200


async def _until_refused(gateway: Gateway, key: str) -> None:
    """Keys are believed for some seconds; after that no process takes this one any more."""
    async with asyncio.timeout(20):
        while await _status(gateway, key) != 401:  # noqa: ASYNC110 - the gateway is another process
            await asyncio.sleep(0.1)
