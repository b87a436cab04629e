"""A gateway that asks for no key: programs may use it, and pages of this machine; those of other sites may not,
whatever they try.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import httpx
import pytest

from tests.e2e.streams import MODEL
from tests.support.gateway import Gateway, running_gateway
from tests.support.script import Reply
from tests.support.upstream import ScriptedUpstream
from tests.support.wire import connected, head

JSON = {"content-type": "application/json"}
PAGE = "https://app.example.com"
OTHER = "https://evil.example"
BODY = f'{{"model":"{MODEL}","input":"Hi"}}'.encode()


@pytest.fixture(scope="module", params=["", PAGE], ids=["no pages", "a page"])
def gateway(
    request: pytest.FixtureRequest, upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Gateway]:
    settings = {"authentication": "false", "allowed_hosts": "qwen.corp, qwen", "cors_origins": request.param}
    with running_gateway(tmp_path_factory.mktemp("keyless"), upstream_server.url, **settings) as running:
        yield running


@pytest.fixture
async def http(gateway: Gateway) -> AsyncGenerator[httpx.AsyncClient]:
    """A client without a key."""
    async with httpx.AsyncClient(base_url=gateway.base_url, timeout=30) as client:
        yield client


async def test_the_start_warns(gateway: Gateway) -> None:
    assert "authentication is off" in gateway.log()


async def test_a_program_may(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    answer = await http.post("/v1/responses", content=BODY, headers=JSON)
    form = await http.post("/v1/files", files={"file": ("a.txt", b"Text."), "purpose": (None, "assistants")})

    assert (answer.status_code, form.status_code) == (200, 200)
    assert (await http.post(f"/v1/responses/{answer.json()['id']}/cancel")).status_code == 400
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "text/plain;json", "application/x-www-form-urlencoded", "", "text/json", "multipart/form-data"],
)
@pytest.mark.parametrize("path", ["/v1/responses", "/responses", "/v1/vector_stores", "/v1/containers"])
async def test_what_a_form_could_send_is_not_taken(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, path: str, kind: str
) -> None:
    answer = await http.post(path, content=BODY, headers={"content-type": kind} if kind else {})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_content_type")
    assert not upstream.requests


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "a b",
        "",
        "@",
        "qwen.corp@evil",
    ],
)
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/models", "/healthz", "/metrics", "/v1/files"])
async def test_a_name_that_is_not_ours_is_refused(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, path: str, host: str
) -> None:
    """A page whose name was made to lead here sends its own name."""
    method = "POST" if path == "/v1/responses" else "GET"
    answer = await http.request(
        method, path, headers={"host": host, **JSON}, content=BODY if method == "POST" else None
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")
    assert "GATEWAY_ALLOWED_HOSTS" in answer.json()["error"]["message"]
    assert not upstream.requests


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:1",
        "app.localhost",
        "127.0.0.1",
        "10.0.0.7:80",
        "[::1]:8000",
        "qwen.corp",
        "QWEN:80",
        "qwen.corp.",
    ],
)
async def test_a_name_that_is_ours_is_served(http: httpx.AsyncClient, host: str) -> None:
    assert (await http.get("/v1/models", headers={"host": host})).status_code == 200


async def test_two_names_are_one_too_many(gateway: Gateway) -> None:
    async with connected(gateway) as wire:
        await wire.send(head("GET", "/v1/models", "Host: evil.example"))
        answer = await wire.answer()

    assert (answer.status, answer.error["code"]) == (400, "invalid_http")


@pytest.mark.parametrize("origin", [OTHER, "null", "http://localhost:1", "http://localhost.evil.example"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/vector_stores", "/v1/files"])
async def test_a_page_of_another_origin_is_refused(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, path: str, origin: str
) -> None:
    for headers in (
        {"origin": origin},
        {"origin": origin, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ):
        answer = await http.post(path, content=BODY, headers={**JSON, **headers})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert not upstream.requests


async def test_a_page_of_another_origin_uploads_nothing(http: httpx.AsyncClient) -> None:
    form = {"file": ("a.txt", b"Text."), "purpose": (None, "assistants")}
    answer = await http.post("/v1/files", files=form, headers={"origin": OTHER})

    assert answer.status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("mode", ["no-cors", "cors", None])
async def test_what_a_page_embeds_is_refused(http: httpx.AsyncClient, site: str, mode: str | None) -> None:
    """Browsers send no origin with pictures and scripts."""
    headers = {"sec-fetch-site": site} | ({"sec-fetch-mode": mode} if mode else {})

    assert (await http.get("/v1/files", headers=headers)).status_code == 403


async def test_a_link_may_be_followed(http: httpx.AsyncClient) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}

    assert (await http.get("/docs", headers=headers)).status_code == 200
    assert (await http.delete("/v1/files/file_1", headers=headers)).status_code == 403


@pytest.mark.parametrize("place", ["iframe", "frame", "object", "embed", "fencedframe"])
async def test_what_another_page_shows_inside_is_refused(http: httpx.AsyncClient, place: str) -> None:
    """Else a visitor could be made to click on `/docs` without seeing it."""
    foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}

    assert (await http.get("/docs", headers={**foreign, "sec-fetch-dest": place})).status_code == 403
    assert (await http.get("/docs", headers={**foreign, "sec-fetch-dest": "document"})).status_code == 200


async def test_our_own_pages_may(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    own = str(http.base_url).rstrip("/")
    headers = {"origin": own, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}

    assert (await http.post("/v1/responses", content=BODY, headers={**JSON, **headers})).status_code == 200
    assert (await http.get("/v1/models", headers={"sec-fetch-site": "none"})).status_code == 200
    assert len(upstream.requests) == 1


async def test_pages_that_the_settings_name_may(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, request: pytest.FixtureRequest
) -> None:
    upstream.default = Reply.say("Yes.")
    headers = {"origin": PAGE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
    answer = await http.post("/v1/responses", content=BODY, headers={**JSON, **headers})

    assert answer.status_code == (200 if "a page" in request.node.name else 403)
