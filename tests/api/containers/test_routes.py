"""`/v1/containers` over the real sandbox service; what is answered is judged by the official SDK's own types."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from openai.types import ContainerCreateResponse, ContainerListResponse, ContainerRetrieveResponse
from openai.types.containers import FileCreateResponse, FileListResponse, FileRetrieveResponse

from app.api import errors
from app.api.containers import routes as containers
from app.api.dependencies import Services
from app.engine.accounts.access import Access
from app.protocol.wire.errors import NotFound
from app.settings import Settings
from app.tools.code_interpreter import TOOL, CodeInterpreter, containers_of
from app.tools.fetch.fetcher import GuardedFetcher
from app.tools.ports.files import FileContent, FileHit, FileQuery
from app.tools.ports.tool import ToolServices
from sandbox.protocol import NewSession
from tests.support.gateway import ADMIN_KEY

# One loop, so that the sandbox service is started once.
pytestmark = pytest.mark.asyncio(loop_scope="module")

FILE_BYTES = 1024 * 1024
ADMIN, OTHER = "admin", "other"


class StoredFiles:
    """One uploaded file, of project `admin`."""

    async def read(self, project_id: str, file_id: str) -> FileContent:
        if (project_id, file_id) != (ADMIN, "file-1"):
            raise NotFound("No such file.")
        return FileContent(file_id, "numbers.csv", b"1,2")

    async def check(self, project_id: str, vector_store_ids: Sequence[str]) -> None:
        raise NotFound(f"{project_id} has none of {vector_store_ids}")

    async def search(self, project_id: str, query: FileQuery) -> Sequence[FileHit]:
        raise NotFound(f"{project_id}: {query}")


class Keys:
    """The other project's key."""

    async def find(self, digest: bytes) -> None:
        del digest


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def tool() -> AsyncGenerator[CodeInterpreter]:
    settings = Settings.model_validate({"limits": {"container_file_bytes": FILE_BYTES}})
    made = TOOL.build(ToolServices(settings=settings, fetcher=GuardedFetcher(), files=StoredFiles()))
    assert isinstance(made, CodeInterpreter)
    yield made
    await made.aclose()


def application(tool: CodeInterpreter | None) -> FastAPI:
    """The routes alone; what they do not use is not there."""
    access = Access(cast("Any", Keys()), admin_key=ADMIN_KEY, required=True)
    used = {"access": access, "containers": containers_of([] if tool is None else [tool]), "body_bytes": 1 << 20}
    services: dict[str, Any] = {name: used.get(name) for name in Services.__struct_fields__}
    app = FastAPI()
    app.include_router(containers.router)
    errors.install(app)
    app.state.services = Services(**services)
    return app


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def http(tool: CodeInterpreter) -> AsyncGenerator[httpx.AsyncClient]:
    async with client(tool) as connected:
        yield connected


def client(tool: CodeInterpreter | None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(application(tool))
    return httpx.AsyncClient(
        base_url="http://gateway/v1", transport=transport, headers={"authorization": f"Bearer {ADMIN_KEY}"}
    )


async def create(http: httpx.AsyncClient, **body: object) -> ContainerCreateResponse:
    answer = await http.post("/containers", json={"name": "box", **body})
    assert answer.status_code == 200, answer.text
    return ContainerCreateResponse.model_validate(answer.json(), strict=True)


async def test_a_container_is_made_listed_read_and_deleted(http: httpx.AsyncClient) -> None:
    made = await create(
        http,
        memory_limit="4g",
        expires_after={"anchor": "last_active_at", "minutes": 5},
        network_policy={"type": "disabled"},
    )
    assert (made.object, made.status, made.name, made.memory_limit) == ("container", "running", "box", "4g")
    assert made.expires_after is not None
    assert made.expires_after.minutes == 5

    read = ContainerRetrieveResponse.model_validate((await http.get(f"/containers/{made.id}")).json(), strict=True)
    listed = [
        ContainerListResponse.model_validate(each, strict=True)
        for each in (await http.get("/containers")).json()["data"]
    ]
    assert read.id == made.id
    assert made.id in [each.id for each in listed]

    assert (await http.delete(f"/containers/{made.id}")).json() == {
        "id": made.id,
        "object": "container.deleted",
        "deleted": True,
    }
    gone = await http.get(f"/containers/{made.id}")
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "container_id")


async def test_lists_come_in_pages(http: httpx.AsyncClient) -> None:
    made = [await create(http, name="paged") for _ in range(3)]
    ids = [each.id for each in reversed(made)]

    first = (await http.get("/containers", params={"name": "paged", "limit": 2})).json()
    rest = (await http.get("/containers", params={"name": "paged", "limit": 2, "after": first["last_id"]})).json()

    assert ([each["id"] for each in first["data"]], first["has_more"]) == (ids[:2], True)
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (ids[2:], False)
    for each in made:
        await http.delete(f"/containers/{each.id}")


async def test_files_go_in_by_form_and_by_id_and_come_out(http: httpx.AsyncClient) -> None:
    made = await create(http)
    sent = await http.post(f"/containers/{made.id}/files", files={"file": ("a b/数据.csv", b"x,y\n1,2\n", "text/csv")})
    copied = await http.post(f"/containers/{made.id}/files", json={"file_id": "file-1"})

    by_form = FileCreateResponse.model_validate(sent.json(), strict=True)
    by_id = FileCreateResponse.model_validate(copied.json(), strict=True)
    assert (by_form.path, by_form.bytes, by_form.source, by_form.container_id) == (
        "/mnt/data/数据.csv",
        8,
        "user",
        made.id,
    )
    assert by_id.path == "/mnt/data/numbers.csv"
    listed = [
        FileListResponse.model_validate(each, strict=True)
        for each in (await http.get(f"/containers/{made.id}/files")).json()["data"]
    ]
    assert {each.id for each in listed} == {by_form.id, by_id.id}
    one = FileRetrieveResponse.model_validate(
        (await http.get(f"/containers/{made.id}/files/{by_id.id}")).json(), strict=True
    )
    assert one.bytes == 3

    content = await http.get(f"/containers/{made.id}/files/{by_form.id}/content")
    assert content.content == b"x,y\n1,2\n"
    assert content.headers["content-type"] == "text/csv; charset=utf-8"
    assert content.headers["content-disposition"].startswith("attachment; filename*=utf-8''")
    assert (await http.delete(f"/containers/{made.id}/files/{by_id.id}")).json()["deleted"] is True
    assert (await http.get(f"/containers/{made.id}/files/{by_id.id}")).status_code == 404
    await http.delete(f"/containers/{made.id}")


@pytest.mark.parametrize(
    ("name", "kind", "disposition"),
    [
        ("plot.png", "image/png", "inline"),
        ("page.html", "text/html; charset=utf-8", "attachment"),
        ("drawing.svg", "image/svg+xml", "attachment"),
        ("program.bin", "application/octet-stream", "attachment"),
    ],
)
async def test_browsers_show_pictures_and_save_the_rest(
    http: httpx.AsyncClient, name: str, kind: str, disposition: str
) -> None:
    made = await create(http)
    file = (await http.post(f"/containers/{made.id}/files", files={"file": (name, b"<script>")})).json()

    content = await http.get(f"/containers/{made.id}/files/{file['id']}/content")

    assert content.headers["content-type"] == kind
    assert content.headers["content-disposition"].startswith(disposition)
    assert content.headers["x-content-type-options"] == "nosniff"
    assert content.headers["content-security-policy"] == "sandbox"
    await http.delete(f"/containers/{made.id}")


async def test_files_that_code_made_come_out_and_its_links_do_not(
    http: httpx.AsyncClient, tool: CodeInterpreter
) -> None:
    made = await create(http, file_ids=["file-1"])
    code = """
import os
os.symlink('/etc/passwd', 'leak')
numbers = open('numbers.csv').read().split(',')
open('sum.txt', 'w').write(str(sum(map(int, numbers))))
"""
    [file] = (await tool.sandbox.run(ADMIN, made.id, code, 10)).files

    assert (await http.get(f"/containers/{made.id}/files/{file.id}/content")).text == "3"
    paths = {each["path"]: each["source"] for each in (await http.get(f"/containers/{made.id}/files")).json()["data"]}
    assert paths == {"/mnt/data/numbers.csv": "user", "/mnt/data/sum.txt": "assistant"}
    await http.delete(f"/containers/{made.id}")


async def test_another_projects_container_is_unknown(http: httpx.AsyncClient, tool: CodeInterpreter) -> None:
    foreign = (await tool.sandbox.open(OTHER, f"cntr_{'a' * 48}", NewSession())).id
    [file] = (await tool.sandbox.run(OTHER, foreign, "open('mine.txt', 'w').write('x')", 10)).files

    for method, path in (
        ("GET", f"/containers/{foreign}"),
        ("DELETE", f"/containers/{foreign}"),
        ("GET", f"/containers/{foreign}/files"),
        ("GET", f"/containers/{foreign}/files/{file.id}"),
        ("GET", f"/containers/{foreign}/files/{file.id}/content"),
        ("DELETE", f"/containers/{foreign}/files/{file.id}"),
    ):
        assert (await http.request(method, path)).status_code == 404, (method, path)
    assert (await http.post(f"/containers/{foreign}/files", json={"file_id": "file-1"})).status_code == 404
    assert (await http.post(f"/containers/{foreign}/files", files={"file": ("x", b"x")})).status_code == 404
    assert foreign not in (await http.get("/containers")).text
    await tool.sandbox.close(OTHER, foreign)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "a", "memory_limit": "64g"}, "memory_limit"),
        ({"name": "a", "network_policy": {"type": "allowlist", "allowed_domains": ["a.b"]}}, "network_policy.type"),
        ({"name": "a", "expires_after": {"anchor": "last_active_at", "minutes": 100}}, "expires_after.minutes"),
        ({"name": "a", "file_ids": ["file-9"]}, "file_ids[0]"),
        ({"name": "a", "skills": []}, "skills"),
    ],
)
async def test_a_wrong_container_is_refused_by_name(http: httpx.AsyncClient, body: object, param: str) -> None:
    answer = await http.post("/containers", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_wrong_files_are_refused(http: httpx.AsyncClient) -> None:
    made = await create(http)
    path = f"/containers/{made.id}/files"

    large = await http.post(path, files={"file": ("big.bin", bytes(FILE_BYTES + 1))})
    hidden = await http.post(path, files={"file": (".hidden", b"x")})
    unknown = await http.post(path, json={"file_id": "file-9"})
    shapeless = await http.post(path, json={"file": "x"})
    neither = await http.post(path, content=b"x", headers={"content-type": "text/plain"})

    assert (large.status_code, hidden.status_code, unknown.status_code) == (413, 400, 400)
    assert (shapeless.status_code, neither.status_code) == (400, 400)
    assert (await http.get(path)).json()["data"] == []
    await http.delete(f"/containers/{made.id}")


@pytest.mark.parametrize("dots", ["%2e%2e", "%2E%2e", "%2e", "a%2F..%2F..", "..%5C..", "%00", "%252e%252e"])
async def test_what_is_no_id_deletes_nothing_else(http: httpx.AsyncClient, dots: str) -> None:
    made = await create(http)
    await http.post(f"/containers/{made.id}/files", files={"file": ("a.txt", b"x")})

    for path in (
        f"/containers/{made.id}/files/{dots}",
        f"/containers/{dots}",
        f"/containers/{made.id}%2Ffiles%2F{dots}",
    ):
        assert (await http.delete(path)).status_code in (400, 404)
        assert (await http.get(f"{path}/content")).status_code in (400, 404)

    assert (await http.get(f"/containers/{made.id}")).status_code == 200
    assert len((await http.get(f"/containers/{made.id}/files")).json()["data"]) == 1
    await http.delete(f"/containers/{made.id}")


@pytest.mark.parametrize("dots", ["..", ".", "", "../..", "a/..", "..%2f..", "?", "#", "x" * 129])
async def test_the_tool_itself_asks_for_nothing_else(http: httpx.AsyncClient, tool: CodeInterpreter, dots: str) -> None:
    """Ids come to it from request bodies, too."""
    made = await create(http)

    for act in (tool.containers.file, tool.containers.delete_file):
        with pytest.raises(NotFound):
            await act(ADMIN, made.id, dots)
    for act in (tool.containers.get, tool.containers.delete, tool.containers.files):
        with pytest.raises(NotFound):
            await act(ADMIN, f"{made.id}/files/{dots}")
    with pytest.raises(NotFound):
        await tool.containers.get(ADMIN, dots)

    assert (await http.get(f"/containers/{made.id}")).status_code == 200
    await http.delete(f"/containers/{made.id}")


@pytest.mark.parametrize("name", ["..", ".", "", "/", "a/..", "..\\.."])
async def test_a_file_has_a_name_of_its_own(http: httpx.AsyncClient, name: str) -> None:
    made = await create(http)
    answer = await http.post(f"/containers/{made.id}/files", files={"file": (name or '"', b"x")})

    assert answer.status_code in (400, 200) if name == "" else answer.status_code == 400
    assert (await http.get(f"/containers/{made.id}")).json()["name"] == "box"
    await http.delete(f"/containers/{made.id}")


async def test_without_a_sandbox_the_setting_is_named() -> None:
    async with client(None) as http:
        answer = await http.get("/containers")

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "containers_off"
