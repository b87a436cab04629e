"""What belongs to one project is not there for another: not by any address, not by any option of any tool."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

import httpx
import openai
import pytest

from tests.e2e.tools.stage import SEES, asking, code_runs, library, new_key, official
from tests.support.gateway import Gateway
from tests.support.script import Json
from tests.support.upstream import ScriptedUpstream

UNKNOWN = {
    "file": "file-0190b7c23f4e7abc8def0123456789ab",
    "store": "vs_0190b7c23f4e7abc8def0123456789ab",
    "batch": "vsfb_0190b7c23f4e7abc8def0123456789ab",
    "response": "0190b7c2-3f4e-7abc-8def-0123456789ab",
    "container": f"cntr_{'0123456789ab' * 4}",
    "made": f"cfile_{'0123456789ab' * 4}",
}
ADDRESSES = (
    "GET /files/{file}",
    "GET /files/{file}/content",
    "DELETE /files/{file}",
    "GET /vector_stores/{store}",
    "POST /vector_stores/{store}",
    "DELETE /vector_stores/{store}",
    "POST /vector_stores/{store}/search",
    "GET /vector_stores/{store}/files",
    "POST /vector_stores/{store}/files",
    "GET /vector_stores/{store}/files/{file}",
    "GET /vector_stores/{store}/files/{file}/content",
    "DELETE /vector_stores/{store}/files/{file}",
    "POST /vector_stores/{store}/file_batches",
    "GET /vector_stores/{store}/file_batches/{batch}",
    "GET /vector_stores/{store}/file_batches/{batch}/files",
    "POST /vector_stores/{store}/file_batches/{batch}/cancel",
    "GET /responses/{response}",
    "GET /responses/{response}?stream=true",
    "GET /responses/{response}/input_items",
    "DELETE /responses/{response}",
)
OF_CONTAINERS = (
    "GET /containers/{container}",
    "DELETE /containers/{container}",
    "GET /containers/{container}/files",
    "POST /containers/{container}/files",
    "GET /containers/{container}/files/{made}",
    "GET /containers/{container}/files/{made}/content",
    "DELETE /containers/{container}/files/{made}",
)
BODIES: dict[str, Json] = {
    "search": {"query": "Turm"},
    "file_batches": {"file_ids": ["{file}"]},
    "files": {"file_id": "{file}"},
}


@pytest.fixture
def database_url(patient: Gateway, request: pytest.FixtureRequest) -> str:
    """The database of `patient`; empty for its own SQLite."""
    own = (patient.log_file.parent / "gateway.db").exists()
    return "" if own else cast("str", request.getfixturevalue("patient_database"))


@pytest.fixture
async def owner(patient: Gateway, upstream: ScriptedUpstream) -> AsyncGenerator[openai.AsyncOpenAI]:
    del upstream  # it has been reset
    async with official(patient) as client:
        yield client


@pytest.fixture
async def stranger(patient: Gateway, database_url: str) -> AsyncGenerator[httpx.AsyncClient]:
    key = await new_key(patient, "stranger", database_url)
    async with httpx.AsyncClient(
        base_url=f"{patient.base_url}/v1", headers={"authorization": f"Bearer {key}"}, timeout=30
    ) as client:
        yield client


async def test_another_project_sees_nothing(
    patient: Gateway, owner: openai.AsyncOpenAI, stranger: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    owned = await _owned(owner, code=await code_runs(patient))
    asked = len(upstream.requests)
    for address in (*ADDRESSES, *(OF_CONTAINERS if "container" in owned else ())):
        foreign, unknown = await _call(stranger, address, owned), await _call(stranger, address, UNKNOWN)
        assert (foreign.status_code, unknown.status_code) == (404, 404), f"{address}: {foreign.text} {unknown.text}"
        assert _anonymous(foreign.text, owned) == _anonymous(unknown.text, UNKNOWN), address
    for listing in ("/files", "/vector_stores", "/containers" if "container" in owned else "/files"):
        assert (await stranger.get(listing)).json()["data"] == []
    for request in _requests("container" in owned):
        foreign, unknown = [
            await stranger.post(path, json=_filled(body, ids)) for path, body in [request] for ids in (owned, UNKNOWN)
        ]
        assert foreign.status_code == unknown.status_code, f"{request}: {foreign.text} {unknown.text}"
        assert foreign.status_code in (400, 404), foreign.text
        assert _anonymous(foreign.text, owned) == _anonymous(unknown.text, UNKNOWN), request
    assert len(upstream.requests) == asked, "the model was not asked"
    await _is_all_there(owner, owned)


async def _owned(owner: openai.AsyncOpenAI, *, code: bool) -> dict[str, str]:
    """One of everything."""
    store, file = await library(owner)
    batch = await owner.vector_stores.file_batches.create(store, file_ids=[file])
    response = await owner.responses.create(model=SEES, input="Secret.")
    owned = {"file": file, "store": store, "batch": batch.id, "response": response.id}
    if code:
        container = await owner.containers.create(name="own", file_ids=[file])
        (made,) = (await owner.containers.files.list(container.id)).data
        owned |= {"container": container.id, "made": made.id}
    return owned


def _requests(code: bool) -> list[tuple[str, Json]]:
    """Bodies that name what is not the sender's."""

    def asked(**fields: Any) -> tuple[str, Json]:
        return "/responses", {"model": SEES, "input": "q", **fields}

    found = [
        asked(previous_response_id="{response}"),
        asked(tools=[{"type": "file_search", "vector_store_ids": ["{store}"]}]),
        asked(input=asking("q", {"type": "input_image", "file_id": "{file}", "detail": "auto"})),
        asked(input=asking("q", {"type": "input_file", "file_id": "{file}"})),
        ("/vector_stores", {"name": "n", "file_ids": ["{file}"]}),
    ]
    if code:
        auto = {"type": "auto", "file_ids": ["{file}"]}
        found += [
            asked(tools=[{"type": "code_interpreter", "container": container}]) for container in ("{container}", auto)
        ]
        found.append(("/containers", {"name": "n", "file_ids": ["{file}"]}))
    return found


def _filled(value: Any, ids: dict[str, str]) -> Any:
    match value:
        case str():
            return value.format_map(ids) if value.startswith("{") else value
        case list():
            return [_filled(one, ids) for one in cast("list[Any]", value)]
        case dict():
            return {name: _filled(one, ids) for name, one in cast("Json", value).items()}
        case _:
            return value


async def _call(client: httpx.AsyncClient, address: str, ids: dict[str, str]) -> httpx.Response:
    method, path = address.format_map(ids).split(" ", 1)
    body = _filled(BODIES.get(path.rpartition("/")[2], {}), ids) if method == "POST" else None
    return await client.request(method, path, json=body)


def _anonymous(text: str, ids: dict[str, str]) -> str:
    for name, one in ids.items():
        text = text.replace(one, name)
    return text


async def _is_all_there(owner: openai.AsyncOpenAI, owned: dict[str, str]) -> None:
    assert (await owner.files.content(owned["file"])).content.startswith(b"# Turm")
    assert (await owner.vector_stores.search(owned["store"], query="Turm")).data
    assert (await owner.responses.retrieve(owned["response"])).status == "completed"
    if "container" in owned:
        content = await owner.containers.files.content.retrieve(owned["made"], container_id=owned["container"])
        assert (await content.aread()).startswith(b"# Turm")
