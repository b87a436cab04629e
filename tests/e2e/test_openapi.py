"""The OpenAPI schema: a client can be generated from it and works, and its examples work when they are sent."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.e2e.streams import MODEL
from tests.support.gateway import Gateway
from tests.support.operations import OPERATION_IDS
from tests.support.upstream import ScriptedUpstream

pytestmark = pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)

Operations = Mapping[str, dict[str, Any]]
"""By method and path."""
OPERATIONAL = {"GET /healthz": {"200"}, "GET /readyz": {"200", "503"}, "GET /metrics": {"200"}}
ALWAYS = {"400", "401", "429", "500", "503"}


@pytest.fixture
async def http(gateway: Gateway) -> AsyncGenerator[httpx.AsyncClient]:
    async with gateway.http() as client:
        yield client


@pytest.fixture
async def description(http: httpx.AsyncClient) -> dict[str, Any]:
    return (await http.get("/openapi.json")).json()


@pytest.fixture
def operations(description: dict[str, Any]) -> Operations:
    paths: dict[str, dict[str, Any]] = description["paths"]
    return {
        f"{method.upper()} {path}": operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


@pytest.fixture
def generated(description: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[ModuleType]:
    """A client that openapi-python-client made, which warns of everything that it cannot express."""
    (tmp_path / "openapi.json").write_text(json.dumps(description))
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning", "--meta", "none"]
    places = ["--path", "openapi.json", "--config", "config.yml", "--output-path", "made_client"]
    made = subprocess.run([*command, *places], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    yield importlib.import_module("made_client")
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_client"]:
        del sys.modules[name]


def test_names_are_readable_and_stay(operations: Operations, description: dict[str, Any]) -> None:
    ids = {path: operation["operationId"] for path, operation in operations.items() if path not in OPERATIONAL}

    assert ids == OPERATION_IDS
    assert len(set(ids.values())) == len(ids)
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+", name) for name in description["components"]["schemas"])


def test_failures_and_keys_are_described(operations: Operations) -> None:
    for path, operation in operations.items():
        statuses = set(operation["responses"])
        if path in OPERATIONAL:
            assert statuses == OPERATIONAL[path]
            assert "security" not in operation
            continue
        assert statuses >= ALWAYS | {"200"}, path
        assert "422" not in statuses
        assert ("413" in statuses) == ("requestBody" in operation), path
        assert operation["security"] == [{"HTTPBearer": []}]
        for status in statuses - {"200"}:
            assert operation["responses"][status]["content"] == {
                "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
            }


async def test_what_needs_a_key_says_so(gateway: Gateway, operations: Operations) -> None:
    async with httpx.AsyncClient(base_url=gateway.base_url) as stranger:
        for operation in operations:
            method, path = operation.split()
            answer = await stranger.request(method, path.format_map(_Ids({})))
            assert answer.status_code == (200 if operation in OPERATIONAL else 401), operation


async def test_examples_work_when_sent(
    http: httpx.AsyncClient, operations: Operations, upstream: ScriptedUpstream
) -> None:
    bodies = {
        path: operation["requestBody"]["content"]
        for path, operation in operations.items()
        if "requestBody" in operation
    }
    examples = {
        path: content["application/json"]["example"]
        for path, content in bodies.items()
        if "application/json" in content
    }
    ids = _Ids(await _objects(http))

    assert len(examples) == len(bodies) - 1  # one is a form only
    for operation, example in sorted(examples.items(), key=lambda item: item[0].endswith("{file_id}")):
        method, path = operation.split()
        body = json.loads(re.sub(r"file-[0-9a-f]+", ids["file_id"], json.dumps(example)))
        answer = await http.request(method, path.format_map(ids), json=body)
        assert answer.status_code == 200, (operation, answer.text)
    assert upstream.requests[0].body["model"] == MODEL


async def test_a_generated_client_works(generated: ModuleType, gateway: Gateway, upstream: ScriptedUpstream) -> None:
    def part(name: str) -> Any:
        return importlib.import_module(f"made_client.{name}")

    client = generated.AuthenticatedClient(base_url=gateway.base_url, token=gateway.key)
    models = part("models")
    create = part("api.responses.create_response")
    async with client:
        made = await create.asyncio(client=client, body=models.CreateResponse(model=MODEL, input_="Hi"))
        read = await part("api.responses.get_response").asyncio(made.id, client=client)
        refused = await create.asyncio(
            client=client, body=models.CreateResponse(model=MODEL, input_="Hi", temperature=9)
        )
        listed = await part("api.models.list_models").asyncio(client=client)
        store = await part("api.vector_stores.create_vector_store").asyncio(
            client=client, body=models.NewStoreBody(name="Manuals")
        )
        gone = await part("api.vector_stores.delete_vector_store").asyncio(store.id, client=client)

    assert (made.status, read.id) == (models.ResponseObjectStatus.COMPLETED, made.id)
    assert isinstance(refused, models.Error)
    assert refused.error.param == "temperature"
    assert [model.id for model in listed.data] == [MODEL]
    assert gone.deleted is True
    assert len(upstream.requests) == 1


class _Ids(dict[str, str]):
    """For the parameters of paths."""

    def __missing__(self, name: str) -> str:
        return f"{name}_1"


async def _objects(http: httpx.AsyncClient) -> dict[str, str]:
    """One of everything that the examples need."""
    file = (
        await http.post(
            "/v1/files", files={"file": ("a.md", b"The filter is cleaned with water.")}, data={"purpose": "assistants"}
        )
    ).json()
    store = (await http.post("/v1/vector_stores", json={"file_ids": [file["id"]]})).json()
    container = (await http.post("/v1/containers", json={"name": "mine"})).json()
    conversation = (await http.post("/v1/conversations")).json()
    return {
        "file_id": file["id"],
        "vector_store_id": store["id"],
        "container_id": container["id"],
        "conversation_id": conversation["id"],
    }
