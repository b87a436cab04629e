"""One line a request: what it says, and what it never says."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.streams import MODEL
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Call, Cut, Gate, Reply, Text
from tests.support.upstream import ScriptedUpstream, serving

SECRET = "a sentence nobody else may read"
ASKED = {"model": MODEL, "input": SECRET}


@pytest.fixture(scope="module")
def logging_gateway(tmp_path_factory: pytest.TempPathFactory, upstream_server: ScriptedUpstream) -> Generator[Gateway]:
    """A gateway that logs as JSON, and tries each upstream once."""
    directory = tmp_path_factory.mktemp("logging")
    (directory / "gateway.toml").write_text(
        f'[[upstreams]]\nname = "main"\nbase_url = "{upstream_server.url}"\ndialect = "vllm"\napi_key = '
        f'"sk-upstream-secret"\n'
        'attempts = 1\nmodels = ["qwen3-8b"]\n',
        encoding="utf-8",
    )
    with running_gateway(directory, "", log_format="json") as running:
        yield running


async def _line(gateway: Gateway, request_id: str) -> Mapping[str, Any]:
    """The request's line; it is written when the answer is out, so it may come a moment after it."""
    for _ in range(200):
        lines = [json.loads(line) for line in gateway.log().splitlines() if line.startswith("{")]
        found = [line for line in lines if line["logger"] == "app.request" and line["request_id"] == request_id]
        if found:
            assert len(found) == 1
            return found[0]
        await asyncio.sleep(0.02)
    raise AssertionError(f"no line of {request_id}: {gateway.log()[-2000:]}")


async def _logged(
    gateway: Gateway, http: httpx.AsyncClient, body: Mapping[str, Any]
) -> tuple[httpx.Response, Mapping[str, Any]]:
    answer = await http.post("/v1/responses", json=body)
    return answer, await _line(gateway, answer.headers["x-request-id"])


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_good_request_leaves(
    logging_gateway: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Text("Fine.")], headers={"x-request-id": "up-1"}))
    async with logging_gateway.http() as http:
        answer, line = await _logged(logging_gateway, http, ASKED | {"stream": stream})
    response_id = re.search(rb'"id":"([0-9a-f-]{36})"', answer.content)
    assert response_id is not None
    expected = {
        "level": "info",
        "method": "POST",
        "route": "/v1/responses",
        "status": 200,
        "project": "admin",
        "key": "admin",
        "response": response_id[1].decode(),
        "outcome": "completed",
        "model": MODEL,
        "upstream": "main",
        "upstream_request": "up-1",
        "input_tokens": 9,
        "output_tokens": 4,
    }
    assert {name: line.get(name) for name in expected} == expected
    assert line.get("stream", False) is stream
    assert "code" not in line
    assert SECRET not in logging_gateway.log()


async def test_tool_calls_are_counted(logging_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Call("f", ["{}"], id="a"), Call("f", ["{}"], id="b", index=1)]))
    async with logging_gateway.http() as http:
        _, line = await _logged(
            logging_gateway, http, ASKED | {"tools": [{"type": "function", "name": "f", "parameters": {}}]}
        )
    assert line["tool_calls"] == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply.error(500, {"error": {"message": "CUDA out of memory"}}), (502, "upstream_error", "CUDA out of memory")),
        (
            Reply.error(401, {"error": {"message": "Invalid key sk-upstream-secret"}}),
            (502, "upstream_authentication", "credentials"),
        ),
        (
            Reply.error(404, {"error": {"message": "It does not exist", "code": "model_not_found"}}),
            (404, "model_not_found", "exist"),
        ),
        (Reply.error(400, {"error": {"message": f"bad: {SECRET}", "code": "odd"}}), (400, "odd", None)),
    ],
)
async def test_a_failure_says_why(
    logging_gateway: Gateway,
    upstream: ScriptedUpstream,
    reply: Reply,
    told: tuple[int, str, str | None],
    *,
    stream: bool,
) -> None:
    status, code, reason = told
    upstream.script(reply)
    async with logging_gateway.http() as http:
        answer, line = await _logged(logging_gateway, http, ASKED | {"stream": stream})
    assert (answer.status_code, line["status"], line["code"], line["upstream"]) == (status, status, code, "main")
    assert reason in line["reason"] if reason else "reason" not in line
    assert "sk-upstream-secret" not in logging_gateway.log()
    assert SECRET not in logging_gateway.log()


async def test_an_answer_that_breaks_off_says_why(logging_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Text("Half"), Cut()]))
    async with logging_gateway.http() as http:
        answer, line = await _logged(logging_gateway, http, ASKED | {"stream": True})
        metrics = (await http.get("/metrics")).text
    assert (answer.status_code, line["status"], line["outcome"], line["code"]) == (
        200,
        200,
        "failed",
        "upstream_protocol_error",
    )
    assert re.search(
        r'gateway_upstream_failures_total\{code="upstream_protocol_error",upstream="main"\} [1-9]', metrics
    )


@pytest.mark.parametrize(
    ("body", "key", "status", "code"),
    [
        (ASKED | {"model": "no-such-model"}, None, 404, "model_not_found"),
        (ASKED, "sk-wrong-and-secret", 401, "invalid_api_key"),
        (ASKED | {"temperature": SECRET}, None, 400, None),
    ],
)
async def test_a_refusal_says_why(
    logging_gateway: Gateway,
    upstream: ScriptedUpstream,
    body: Mapping[str, Any],
    key: str | None,
    status: int,
    code: str | None,
) -> None:
    async with logging_gateway.http() as http:
        if key is not None:
            http.headers["authorization"] = f"Bearer {key}"
        answer, line = await _logged(logging_gateway, http, body)
    assert (answer.status_code, line["status"], line["code"]) == (
        status,
        status,
        code or answer.json()["error"]["code"],
    )
    assert line.get("param") == answer.json()["error"]["param"]
    assert SECRET not in logging_gateway.log()
    assert "sk-wrong-and-secret" not in logging_gateway.log()
    assert not upstream.requests


async def test_a_client_that_leaves_is_told_of(logging_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    gate = Gate()
    upstream.script(Reply(pieces=[Text("Half"), gate, Text("never")]))
    async with logging_gateway.http() as http:
        async with http.stream("POST", "/v1/responses", json=ASKED | {"stream": True}) as answer:
            await gate.reached()
            request_id = answer.headers["x-request-id"]
        line = await _line(logging_gateway, request_id)
    gate.open()
    assert (line["status"], line["outcome"]) == (499, "cancelled")


async def test_other_routes_and_lines_have_the_id_too(logging_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with logging_gateway.http() as http:
        answer = await http.get("/v1/responses/nothing", headers={"x-request-id": "mine.1"})
        await http.get("/healthz", headers={"x-request-id": "probe.1"})
        await http.get("/v1/models", headers={"x-request-id": "mine.2"})
    assert answer.headers["x-request-id"] == "mine.1"
    line = await _line(logging_gateway, "mine.1")
    assert (line["route"], line["status"], line["code"]) == ("/v1/responses/{id}", 404, "response_not_found")
    assert (await _line(logging_gateway, "mine.2"))["project"] == "admin"
    assert "probe.1" not in logging_gateway.log()  # machines ask all the time
    assert not upstream.requests


async def test_an_upstream_that_failed_is_counted_and_another_answers(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with serving(ScriptedUpstream()) as broken:
        broken.default = Reply.error(503, {"error": {"message": "overloaded"}})
        names = (("alpha", broken), ("beta", upstream))
        (tmp_path / "gateway.toml").write_text(
            "".join(
                f'[[upstreams]]\nname = "{name}"\nbase_url = "{one.url}"\ndialect = "vllm"\nattempts = 1\nmodels = '
                f'["{MODEL}"]\n'
                f"weight = {1000 if name == 'alpha' else 1}\n"
                for name, one in names
            ),
            encoding="utf-8",
        )
        with running_gateway(tmp_path, "") as gateway:
            async with gateway.http() as http:
                while not broken.requests:  # which one is asked first is a matter of chance
                    assert (await http.post("/v1/responses", json=ASKED)).status_code == 200
                metrics = (await http.get("/metrics")).text
    assert 'gateway_upstream_failures_total{code="server_is_overloaded",upstream="alpha"} 1.0' in metrics
    assert re.search(
        r'gateway_responses_total\{code="",model="qwen3-8b",status="completed",stream="false",upstream="beta"\} ',
        metrics,
    )
    assert 'upstream="beta"} ' in metrics
    assert not re.search(r'failures_total\{[^}]*upstream="beta"', metrics)
