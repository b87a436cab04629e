"""Below a path of a reverse proxy, whether the proxy leaves the prefix on the path or takes it off."""

from __future__ import annotations

import re
from collections.abc import Generator

import httpx
import openai
import pytest

from tests.e2e.streams import MODEL
from tests.support.gateway import Gateway, running_gateway
from tests.support.upstream import ScriptedUpstream

ROOT = "/a/llm"
both = pytest.mark.parametrize("arrives_with", [ROOT, ""])


@pytest.fixture(scope="module")
def gateway(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    with running_gateway(
        tmp_path_factory.mktemp("root"), upstream_server.url, root_path=f"{ROOT}/", cors_origins="*"
    ) as running:
        yield running


@both
@pytest.mark.parametrize("face", ["/v1", "", "/openai/v1"])
async def test_the_api(gateway: Gateway, upstream: ScriptedUpstream, arrives_with: str, face: str) -> None:
    async with openai.AsyncOpenAI(
        base_url=gateway.base_url + arrives_with + face, api_key=gateway.key, max_retries=0
    ) as client:
        made = await client.responses.create(model=MODEL, input="Hi")

        assert (await client.responses.retrieve(made.id)).output_text == made.output_text
        assert [model.id async for model in client.models.list()] == [MODEL]
    assert len(upstream.requests) == 1


@both
async def test_the_pages_and_their_links(gateway: Gateway, arrives_with: str) -> None:
    async with gateway.http() as http:
        page = (await http.get(f"{arrives_with}/docs")).text
        links = [link for link in re.findall(r"""["'](/[^"']+)["']""", page) if "oauth2-redirect" not in link]
        for link in links:
            assert link.startswith(f"{ROOT}/")
            assert (await http.get(arrives_with + link.removeprefix(ROOT))).status_code == 200
        description = (await http.get(f"{arrives_with}/openapi.json")).json()

    assert f"{ROOT}/openapi.json" in links
    assert description["servers"] == [{"url": ROOT}]


@both
async def test_errors_name_the_whole_path(gateway: Gateway, arrives_with: str) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url) as http:
        unknown = await http.post(f"{arrives_with}/v1/chat/completions")
        other = await http.get(f"{arrives_with}/v1/responses")

    assert (unknown.status_code, other.status_code, other.headers["allow"]) == (404, 405, "POST")
    assert f"POST {ROOT}/v1/responses" in unknown.json()["error"]["message"]


async def test_a_longer_name_is_not_the_prefix(gateway: Gateway) -> None:
    async with gateway.http() as http:
        assert (await http.get(f"{ROOT}s/v1/models")).status_code == 404


@both
async def test_probes_leave_no_lines(gateway: Gateway, arrives_with: str) -> None:
    before = gateway.log_file.stat().st_size
    async with gateway.http() as http:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await http.get(f"{arrives_with}{path}")).status_code == 200
        await http.get(f"{arrives_with}/v1/tools")

    written = await gateway.logged("/v1/tools", before)
    assert "/v1/tools" in written
    assert "/healthz" not in written
    assert "/readyz" not in written
    assert "/metrics" not in written
