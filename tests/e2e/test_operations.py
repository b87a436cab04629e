"""What operators use: health, metrics, the description of the API, the paths it is served under."""

from __future__ import annotations

import asyncio
import re
import shutil

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.streams import MODEL, final
from tests.support.gateway import Gateway
from tests.support.operations import OPERATIONS
from tests.support.upstream import ScriptedUpstream

on_sqlite = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)


@pytest.mark.parametrize(("path", "status"), [("/healthz", "ok"), ("/readyz", "ready")])
async def test_health_needs_no_key(gateway: Gateway, path: str, status: str) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url) as http:
        answer = await http.get(path)

    assert (answer.status_code, answer.json()["status"]) == (200, status)


async def test_metrics_count_what_was_done(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.http() as http:
        before = await _samples(http)
        await http.post("/v1/responses", json={"model": MODEL, "input": "Hi"})
        await http.post("/v1/responses", json={"model": MODEL, "input": "Hi", "stream": True})
        await http.get("/v1/responses/nothing")
        after = await _samples(http)

    risen = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
    assert risen["gateway_responses_total", "", MODEL, "completed", "true", "default"] == 1
    assert risen["gateway_responses_total", "", MODEL, "completed", "false", "default"] == 1
    assert risen["gateway_tokens_total", "input", MODEL, "default"] == 18
    assert risen["gateway_tokens_total", "output", MODEL, "default"] == 8
    assert risen["gateway_first_token_seconds_count", MODEL, "default"] == 2
    assert risen["gateway_http_requests_total", "", "POST", "/v1/responses", "200"] == 2
    assert risen["gateway_http_requests_total", "response_not_found", "GET", "/v1/responses/{id}", "404"] == 1
    assert risen["gateway_store_seconds_count", "save"] == 2
    assert after["gateway_responses_running",] == 0
    assert len(upstream.requests) == 2


@on_sqlite
async def test_metrics_are_clean(gateway: Gateway) -> None:
    async with gateway.http() as http:
        answer = await http.get("/metrics")

    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation and family.name.startswith("gateway_") for family in families)
    assert len({family.name for family in families}) == len(families)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    promtool = shutil.which("promtool")
    if promtool:
        checking = await asyncio.create_subprocess_exec(promtool, "check", "metrics", stdin=asyncio.subprocess.PIPE)
        await checking.communicate(answer.content)
        assert checking.returncode == 0


@on_sqlite
async def test_the_api_describes_itself(gateway: Gateway) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url) as http:
        description = (await http.get("/openapi.json")).json()
        page = await http.get("/docs")

    served = {f"{method.upper()} {path}" for path, methods in description["paths"].items() for method in methods}
    assert served == {*OPERATIONS, "GET /healthz", "GET /readyz", "GET /metrics"}
    assert "previous_response_id" in description["components"]["schemas"]["CreateResponse"]["properties"]
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


@on_sqlite
@pytest.mark.parametrize("root", ["/v1", "", "/openai/v1"])
async def test_every_root_serves_the_same(gateway: Gateway, upstream: ScriptedUpstream, root: str) -> None:
    async with openai.AsyncOpenAI(base_url=gateway.base_url + root, api_key=gateway.key, max_retries=0) as client:
        made = await client.responses.create(model=MODEL, input="Hi")
        async with client.responses.stream(model=MODEL, input="More", previous_response_id=made.id) as stream:
            streamed = await stream.get_final_response()
        items = [item async for item in client.responses.input_items.list(streamed.id)]
        models = [model.id async for model in client.models.list()]

        assert len(items) == 3
        assert models == [MODEL]
        assert (await client.models.retrieve(MODEL)).id == MODEL
        assert (await client.responses.retrieve(made.id)).output_text == made.output_text
        await client.responses.delete(made.id)
    assert len(upstream.requests) == 2


async def test_an_id_is_found_in_each_of_its_forms(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    async with gateway.http() as http:
        made = final((await http.post("/v1/responses", json={"model": MODEL, "input": "Hi", "stream": True})).content)
        plain = made["id"]
        forms = [plain, f"resp_{plain}", plain.upper(), plain.replace("-", ""), f"resp_{plain.replace('-', '')}"]
        for form in forms:
            assert (await http.get(f"/v1/responses/{form}")).json() == made
            assert (await http.get(f"/v1/responses/{form}/input_items")).json()["has_more"] is False
            child = await http.post(
                "/v1/responses", json={"model": MODEL, "input": "And?", "previous_response_id": form}
            )
            assert child.json()["status"] == "completed"
        assert (await http.delete(f"/v1/responses/{forms[-1]}")).json() == {
            "id": plain,
            "object": "response",
            "deleted": True,
        }
    assert len(upstream.requests) == 1 + len(forms)


async def _samples(http: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Every value, by its name and the values of its labels in the order of their names."""
    text = (await http.get("/metrics")).text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


async def test_the_documentation_page_needs_nothing_from_elsewhere(gateway: Gateway) -> None:
    async with gateway.http() as http:
        page = (await http.get("/docs")).text
        assets = re.findall(r'(?:src|href)="([^"]+\.(?:js|css))"', page)
        sizes = [len((await http.get(asset)).content) for asset in assets]

    assert "://" not in " ".join(assets)
    assert len(assets) == 2
    assert min(sizes) > 100_000
