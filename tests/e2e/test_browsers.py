"""Web pages of other origins (CORS): preflights, answers, streams, errors; and nothing at all unless it is set."""

from __future__ import annotations

from collections.abc import Generator

import httpx
import pytest

from tests.e2e.streams import MODEL, final
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Reply
from tests.support.upstream import ScriptedUpstream

PAGE, OTHER = "https://app.example.com", "https://evil.example.com"
READABLE = {"x-request-id", "retry-after", "retry-after-ms", "warning", "x-should-retry"}
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type, x-stainless-lang",
}


@pytest.fixture(
    scope="module", params=["https://app.example.com, http://localhost:3000", '["*"]'], ids=["listed", "every"]
)
def gateway(
    request: pytest.FixtureRequest, upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Gateway]:
    upstream_server.reset()
    with running_gateway(tmp_path_factory.mktemp("cors"), upstream_server.url, cors_origins=request.param) as running:
        yield running


def is_open(answer: httpx.Response, gateway: Gateway, origin: str) -> bool:
    """Whether a page of the origin may read the answer, with the rules of browsers."""
    allowed = answer.headers.get("access-control-allow-origin")
    if allowed == "*":
        assert "access-control-allow-credentials" not in answer.headers
        return True
    if allowed is not None:
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert "Origin" in answer.headers["vary"]
    return bool(allowed == origin)


def may_read(answer: httpx.Response) -> set[str]:
    return {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}


@pytest.mark.parametrize("path", ["/v1/responses", "/responses", "/openai/v1/responses", "/v1/models", "/v1/files"])
async def test_a_preflight_needs_no_key(gateway: Gateway, path: str) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url) as http:
        answer = await http.options(path, headers={**PREFLIGHT, "origin": PAGE})

    assert answer.status_code == 200
    assert is_open(answer, gateway, PAGE)
    assert {"GET", "POST", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert answer.headers["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_page_reads_an_answer(gateway: Gateway, upstream: ScriptedUpstream, *, stream: bool) -> None:
    async with gateway.http() as http:
        answer = await http.post(
            "/v1/responses", json={"model": MODEL, "input": "Hi", "stream": stream}, headers={"origin": PAGE}
        )

    assert is_open(answer, gateway, PAGE)
    assert may_read(answer) >= READABLE
    assert (final(answer.content) if stream else answer.json())["status"] == "completed"
    assert len(upstream.requests) == 1


async def test_a_page_reads_errors(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply.error(429, {"error": {"message": "Slow down."}}, {"retry-after": "30"}))
    async with gateway.http() as http:
        busy = await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"}, headers={"origin": PAGE})
        wrong = await http.post("/v1/responses", json={}, headers={"origin": PAGE})
        unknown = await http.get("/v1/nowhere", headers={"origin": PAGE})
        stranger = await http.get("/v1/models", headers={"origin": PAGE, "authorization": "Bearer no"})

    assert [answer.status_code for answer in (busy, wrong, unknown, stranger)] == [429, 400, 404, 401]
    for answer in (busy, wrong, unknown, stranger):
        assert is_open(answer, gateway, PAGE)
        assert may_read(answer) >= READABLE


async def test_a_preflight_is_logged_and_counted(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url) as http:
        answer = await http.options("/v1/responses", headers={**PREFLIGHT, "origin": PAGE})
        metrics = (await http.get("/metrics")).text

    request_id = answer.headers["x-request-id"]
    assert f"INFO app.request [{request_id}] OPTIONS other 200 0ms\n" in await gateway.logged(request_id)
    assert 'gateway_http_requests_total{code="",method="OPTIONS",route="other",status="200"}' in metrics


async def test_other_pages_read_nothing(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.http() as http:
        asked = await http.options("/v1/responses", headers={**PREFLIGHT, "origin": OTHER})
        answer = await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"}, headers={"origin": OTHER})

    everybody = answer.headers.get("access-control-allow-origin") == "*"
    assert is_open(asked, gateway, OTHER) == is_open(answer, gateway, OTHER) == everybody
    assert len(upstream.requests) == 1


async def test_without_the_setting_there_is_nothing_of_it(sqlite_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with sqlite_gateway.http() as http:
        preflight = await http.options("/v1/responses", headers={**PREFLIGHT, "origin": PAGE})
        answer = await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"}, headers={"origin": PAGE})

    assert (preflight.status_code, answer.status_code) == (405, 200)
    assert not [name for each in (preflight, answer) for name in each.headers if name.startswith("access-control")]
    assert len(upstream.requests) == 1
