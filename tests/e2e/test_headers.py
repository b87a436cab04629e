"""Headers: request ids, what a stream says of itself, when to come back, what was left out, and the refused upgrade."""

from __future__ import annotations

import re

import openai
import pytest

from tests.e2e.streams import MODEL, Json
from tests.support.gateway import Gateway
from tests.support.script import Reply
from tests.support.upstream import ScriptedUpstream

pytestmark = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)

CODEX = "codex_cli_rs/0.169.0 (Debian 13; x86_64) xterm"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/responses", 400),
        ("GET", "/v1/responses/unknown", 404),
        ("DELETE", "/v1/responses/unknown", 404),
        ("PUT", "/v1/models", 405),
        ("GET", "/v1/models", 200),
        ("GET", "/nowhere", 404),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
    ],
)
async def test_every_answer_has_one_request_id(gateway: Gateway, method: str, path: str, status: int) -> None:
    async with gateway.http() as http:
        own = await http.request(method, path)
        given = await http.request(method, path, headers={"x-request-id": "trace-7:a.b_C"})
        harmful = await http.request(method, path, headers={"x-request-id": "a b" + "c" * 200})

    assert own.status_code == status
    for answer in (own, harmful):
        assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert given.headers.get_list("x-request-id") == ["trace-7:a.b_C"]
    if status >= 400:
        assert own.json()["error"].keys() == {"message", "type", "param", "code"}


async def test_the_client_shows_the_request_id(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    made = await client.responses.create(model=MODEL, input="Hi", extra_headers={"x-request-id": "mine"})
    with pytest.raises(openai.NotFoundError) as refused:
        await client.responses.retrieve("unknown", extra_headers={"x-request-id": "yours"})

    assert getattr(made, "_request_id") == "mine"  # noqa: B009 - the SDK's public name begins with an underscore
    assert refused.value.request_id == "yours"
    assert len(upstream.requests) == 1


async def test_what_a_stream_says_of_itself(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.http() as http:
        made = await http.post(
            "/v1/responses",
            json={"model": MODEL, "input": "Hi", "stream": True},
            headers={"accept": "application/json"},
        )
        response_id = made.text.split('"id":"')[1].split('"')[0]
        again = await http.get(f"/v1/responses/{response_id}?stream=true", headers={"accept-encoding": "gzip"})

    for answer in (made, again):
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["x-request-id"].startswith("req_")
        assert "content-encoding" not in answer.headers
    assert len(upstream.requests) == 1


async def test_when_to_come_back(client: openai.AsyncOpenAI, upstream: ScriptedUpstream) -> None:
    slow_down = Reply.error(
        429, {"error": {"message": "Requests rate limit exceeded", "code": "limit_requests"}}, {"retry-after": "61"}
    )
    upstream.script(slow_down, slow_down)

    for stream in (False, True):
        with pytest.raises(openai.RateLimitError) as refused:
            await client.responses.create(model=MODEL, input="Hi", stream=stream)
        assert refused.value.response.headers["retry-after"] == "61"
        assert refused.value.response.headers["retry-after-ms"] == "61000"
        assert "try again in 61s" in refused.value.message


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "told"), [(401, "false"), (402, "false"), (403, "false"), (400, "false"), (500, None), (429, None)]
)
async def test_what_cannot_pass_is_not_worth_another_try(
    gateway: Gateway, upstream: ScriptedUpstream, status: int, told: str | None, *, stream: bool
) -> None:
    tries = 3 if told is None else 1
    upstream.script(*[Reply.error(status, {"error": {"message": "No."}}, {"retry-after": "0.01"})] * tries)
    async with gateway.http() as http:
        refused = await http.post("/v1/responses", json={"model": MODEL, "input": "Hi", "stream": stream})

    assert not refused.is_success
    assert refused.headers.get("x-should-retry") == told


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_nobody_asked_for_are_left_out_with_a_warning(
    gateway: Gateway, upstream: ScriptedUpstream, stream: bool
) -> None:
    tools: list[Json] = [
        {"type": "web_search", "external_web_access": True},
        {"type": "function", "name": "shell", "parameters": {}},
    ]
    request: Json = {"model": MODEL, "input": "Hi", "tools": tools, "stream": stream}
    async with gateway.http() as http:
        codex = await http.post("/v1/responses", json=request, headers={"user-agent": CODEX})
        other = await http.post("/v1/responses", json=request)

    assert codex.status_code == 200
    assert codex.headers["warning"] == "299 - \"tool 'web_search' is not served and was left out\""
    assert '"web_search"' not in codex.text
    assert [tool["function"]["name"] for tool in upstream.requests[0].body["tools"]] == ["shell"]
    assert (other.status_code, other.json()["error"]["param"]) == (400, "tools[0].type")
    assert "'web_search'" in other.json()["error"]["message"]
