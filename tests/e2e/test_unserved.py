"""Addresses and methods that are not served: one shape of error, which names them."""

from __future__ import annotations

import re

import openai
import pytest

from tests.support.gateway import Gateway
from tests.support.websockets import UPGRADE

pytestmark = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)

PREFIXES = ["", "/v1", "/openai/v1"]
UNKNOWN = [
    ("POST", "/chat/completions"),
    ("POST", "/completions"),
    ("POST", "/embeddings"),
    ("GET", "/nowhere"),
    ("GET", "/responses/resp_1/unknown"),
    ("POST", "/responses/"),
    ("GET", "/vector_stores/"),
    ("PATCH", "/nowhere/at/all"),
    ("HEAD", "/nowhere"),
    ("OPTIONS", "/nowhere"),
]
OTHER_METHOD = [
    ("GET", "/responses", "POST"),
    ("HEAD", "/responses", "POST"),
    ("OPTIONS", "/responses", "POST"),
    ("PUT", "/responses", "POST"),
    ("POST", "/models", "GET"),
    ("HEAD", "/models", "GET"),
    ("OPTIONS", "/models", "GET"),
    ("DELETE", "/models/qwen3-8b", "GET"),
    ("PUT", "/responses/resp_1", "GET, DELETE"),
    ("POST", "/responses/resp_1/input_items", "GET"),
    ("GET", "/responses/resp_1/cancel", "POST"),
    ("PUT", "/files", "GET, POST"),
    ("PUT", "/vector_stores/vs_1", "GET, POST, DELETE"),
    ("PATCH", "/containers", "GET, POST"),
    ("POST", "/tools", "GET"),
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("method", "path"), UNKNOWN)
async def test_an_unknown_url(gateway: Gateway, prefix: str, method: str, path: str) -> None:
    async with gateway.http() as http:
        answer = await http.request(method, prefix + path)

    assert answer.status_code == 404
    assert (answer.headers["content-type"], answer.headers["x-should-retry"]) == ("application/json", "false")
    assert answer.headers["x-request-id"]
    if method != "HEAD":
        error = answer.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "unknown_url", None)
        assert f"{method} {prefix}{path} is not served" in error["message"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("method", "path", "allowed"), OTHER_METHOD)
async def test_another_method(gateway: Gateway, prefix: str, method: str, path: str, allowed: str) -> None:
    async with gateway.http() as http:
        answer = await http.request(method, prefix + path)

    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        error = answer.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "method_not_allowed", None)
        assert f"{method} {prefix}{path} is not served" in error["message"]
        assert allowed in error["message"]


async def test_what_speaks_another_api_is_told_which_this_is(gateway: Gateway) -> None:
    async with gateway.client() as client:
        with pytest.raises(openai.NotFoundError, match="POST /v1/responses") as refused:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])

    assert refused.value.code == "unknown_url"


@pytest.mark.parametrize(
    ("path", "instead"),
    [
        ("/v1/chat/completions", "POST /v1/responses, with 'input' in place of 'messages'"),
        ("/chat/completions/", "POST /v1/responses"),
        ("/v1/completions", "POST /v1/responses, with 'input' in place of 'prompt'"),
        ("/v1/messages", "POST /v1/responses"),
        ("/api/chat", "POST /v1/responses"),
        ("/api/tags", "GET /v1/models"),
        ("/openai/deployments/qwen/chat/completions", "POST /v1/responses, with the model's name in 'model'"),
        ("/v1/embeddings", "Send this request to the model server directly"),
        ("/v1/assistants/asst_1", "previous_response_id"),
        ("/v1/threads/thread_1/runs", "previous_response_id"),
        ("/v1/batches", "POST /v1/responses"),
        ("/v1/uploads", "POST /v1/files"),
        ("/v1/realtime/sessions", "'stream': true"),
        ("/v1/v1/responses", "leave one out"),
        ("/v1/nowhere", "GET /openapi.json has the OpenAPI schema, and GET /docs the interactive docs"),
        ("/v1/chatter", "GET /openapi.json"),
        ("/v1", "GET /docs"),
        ("/", "GET /docs"),
        ("/v1/{root}", "GET /docs"),
    ],
)
async def test_what_is_served_instead_is_said(gateway: Gateway, path: str, instead: str) -> None:
    async with gateway.http() as http:
        answer = await http.post(path, json={})

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
    assert instead in answer.json()["error"]["message"]


async def test_an_upgrade_elsewhere_is_an_unknown_url(gateway: Gateway) -> None:
    async with gateway.http() as http:
        answer = await http.get("/v1/realtime", headers=UPGRADE)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


@pytest.mark.parametrize("path", ["/v1/%0d%0aset-cookie:a=b%00%1b[31m", "/v1/" + "a" * 5000, "/v1/%E2%80%AE%ff"])
async def test_a_hostile_path_is_cleaned_and_cut(gateway: Gateway, path: str) -> None:
    async with gateway.http() as http:
        answer = await http.get(path)

    message = answer.json()["error"]["message"]
    assert answer.status_code == 404
    assert message.isprintable()
    assert len(message) < 400
    assert re.match(r"Unknown request URL: GET /v1/", message)
