"""`/v1/files` with the official client, and with requests it would not send."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import httpx
import openai
import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.upstream import ScriptedUpstream

UNKNOWN = "file-0190b7c23f4e7abc8def0123456789ab"
MIB = 1024 * 1024


@pytest.fixture
async def files(gateway: Gateway) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with gateway.client() as client:
        yield client


async def test_a_files_life(files: openai.AsyncOpenAI) -> None:
    content = bytes(range(256)) * 5000
    made = await files.files.create(file=("数据 report.bin", content), purpose="user_data")
    assert (made.filename, made.bytes, made.purpose, made.status, made.expires_at) == (
        "数据 report.bin",
        len(content),
        "user_data",
        "processed",
        None,
    )
    assert made.id.startswith("file-")
    assert len(made.id) >= 29

    assert await files.files.retrieve(made.id) == made
    assert (await files.files.content(made.id)).content == content
    deleted = await files.files.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "file")
    for gone in (files.files.retrieve, files.files.content, files.files.delete):
        with pytest.raises(openai.NotFoundError, match=made.id):
            await gone(made.id)


async def test_lists(files: openai.AsyncOpenAI) -> None:
    made = [(await files.files.create(file=(f"{number}.txt", b"x"), purpose="vision")).id for number in range(3)]

    newest = [file.id async for file in files.files.list(purpose="vision", limit=2)]  # the client turns the pages
    assert newest[:3] == made[::-1]
    page = await files.files.list(purpose="vision", limit=1, order="asc", after=made[0])
    assert ([file.id for file in page.data], page.has_more) == ([made[1]], True)
    with pytest.raises(openai.BadRequestError, match="limit"):
        await files.files.list(limit=10_001)


async def test_an_expiry(files: openai.AsyncOpenAI) -> None:
    made = await files.files.create(
        file=("a.txt", b"x"), purpose="assistants", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600
    batch = await files.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    assert batch.expires_at == batch.created_at + 30 * 86_400
    for seconds in (3599, 2_592_001):
        with pytest.raises(openai.BadRequestError, match="from 3600 to 2592000"):
            await files.files.create(
                file=("a.txt", b"x"), purpose="assistants", expires_after={"anchor": "created_at", "seconds": seconds}
            )


async def test_empty_files_and_odd_names(files: openai.AsyncOpenAI) -> None:
    assert (await files.files.create(file=("empty.txt", b""), purpose="user_data")).bytes == 0
    for sent, kept in (("../../etc/passwd", "passwd"), ("a\\b.txt", "b.txt"), ("x" * 300 + ".md", "x" * 252 + ".md")):
        assert (await files.files.create(file=(sent, b"x"), purpose="user_data")).filename == kept


async def test_a_download_is_never_shown_by_a_browser(gateway: Gateway, files: openai.AsyncOpenAI) -> None:
    made = await files.files.create(file=('a"b\n数.html', b"<script>"), purpose="user_data")
    async with gateway.http() as http:
        answer = await http.get(f"/v1/files/{made.id}/content")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment; filename*=utf-8''")
    assert "%E6%95%B0.html" in answer.headers["content-disposition"]
    assert answer.headers["content-length"] == "8"


async def test_what_is_wrong_is_named(gateway: Gateway) -> None:
    text = {"file": ("a.txt", b"x")}
    cases: list[tuple[dict[str, object], int, str | None, str]] = [
        ({"files": text, "data": {"purpose": "homework"}}, 400, "purpose", "'homework' is not one of"),
        ({"files": text}, 400, "purpose", "Missing required parameter: 'purpose'"),
        ({"files": text, "data": {"purpose": "vision", "colour": "red"}}, 400, "colour", "Unknown parameter"),
        ({"files": {"picture": ("a", b"x")}, "data": {"purpose": "vision"}}, 400, "file", "named 'file'"),
        (
            {"files": [("file", ("a", b"x")), ("file", ("b", b"y"))], "data": {"purpose": "vision"}},
            400,
            "file",
            "one file",
        ),
        ({"files": {"purpose": (None, "vision")}}, 400, "file", "Missing required parameter: 'file'"),
        ({"json": {"file": "x"}}, 400, None, "multipart/form-data"),
        (
            {"content": b"--b\r\nrubbish", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400,
            None,
            "malformed|cut off",
        ),
        ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, 400, None, "multipart/form-data"),
    ]
    async with gateway.http() as http:
        for request, status, param, words in cases:
            answer = await http.post("/v1/files", **request)  # type: ignore[arg-type] - keyword arguments of the client
            error = answer.json()["error"]
            assert (answer.status_code, error["param"]) == (status, param), answer.text
            assert any(word in error["message"] for word in words.split("|")), answer.text


async def test_a_body_that_is_cut_off_is_no_file(gateway: Gateway, files: openai.AsyncOpenAI) -> None:
    start = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nvision\r\n--b\r\n'
    start += b'content-disposition: form-data; name="file"; filename="half"\r\n\r\nhalf of it'
    before = {file.id async for file in files.files.list()}
    async with gateway.http() as http:
        answer = await http.post(
            "/v1/files", content=start, headers={"content-type": "multipart/form-data; boundary=b"}
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "incomplete_body")
    assert {file.id async for file in files.files.list()} == before


async def test_fields_may_follow_the_file(gateway: Gateway) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n--b\r\n'
    body += b'Content-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n--b--\r\n'
    async with gateway.http() as http:
        answer = await http.post("/files", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
        assert (answer.status_code, answer.json()["bytes"]) == (200, 5), answer.text
        assert (await http.get(f"/openai/v1/files/{answer.json()['id']}/content")).content == b"hello"


async def test_another_project_cannot_tell_that_a_file_exists(
    gateway: Gateway, files: openai.AsyncOpenAI, command: Callable[..., str]
) -> None:
    made = await files.files.create(file=("secret.txt", b"secret"), purpose="user_data")
    key = (await asyncio.to_thread(command, "keys", "create", "--project", "files-stranger")).strip()
    async with httpx.AsyncClient(base_url=gateway.base_url, headers={"authorization": f"Bearer {key}"}) as stranger:
        for method, path in (("GET", "/v1/files/{}"), ("GET", "/v1/files/{}/content"), ("DELETE", "/v1/files/{}")):
            foreign = await stranger.request(method, path.format(made.id))
            unknown = await stranger.request(method, path.format(UNKNOWN))
            assert foreign.status_code == unknown.status_code == 404
            assert foreign.content.replace(made.id.encode(), UNKNOWN.encode()) == unknown.content
        assert (await stranger.get("/v1/files")).json()["data"] == []
    assert (await files.files.content(made.id)).content == b"secret"
    async with httpx.AsyncClient(base_url=gateway.base_url) as nobody:
        assert (await nobody.get(f"/v1/files/{made.id}")).status_code == 401


async def _undeclared(size: int) -> AsyncIterator[bytes]:
    """A form that does not say how large it is."""
    yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="huge"\r\n\r\n'
    for _ in range(size // MIB):
        yield bytes(MIB)
    yield b"\r\n--b--\r\n"


async def test_huge_uploads_are_refused_with_flat_memory(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """One that says how large it is, and one that does not; the largest that is allowed passes through."""
    with running_gateway(tmp_path, upstream.url, limits__file_bytes=str(64 * MIB)) as gateway:
        async with gateway.http() as http, gateway.client() as client:
            await client.files.create(file=("small", bytes(MIB)), purpose="user_data")
            before = gateway.memory()
            large = await client.files.create(file=("large", io.BytesIO(bytes(64 * MIB))), purpose="user_data")
            with pytest.raises(openai.APIStatusError) as declared:
                await client.files.create(file=("huge", io.BytesIO(bytes(65 * MIB))), purpose="user_data")
            headers = {"content-type": "multipart/form-data; boundary=b"}
            refused = await http.post("/v1/files", content=_undeclared(96 * MIB), headers=headers)
            peak = gateway.memory("VmHWM")

            assert (declared.value.status_code, refused.status_code) == (413, 413)
            assert refused.json()["error"]["code"] == "file_too_large"
            assert peak - before < 24 * MIB
            stored = [path.stat().st_size for path in (tmp_path / "data" / "files").rglob("*") if path.is_file()]
            assert sorted(stored) == [MIB, 64 * MIB]
            await client.files.delete(large.id)
            assert [
                path
                for path in (tmp_path / "data" / "files").rglob("*")
                if path.is_file() and path.stat().st_size > MIB
            ] == []


async def test_files_can_be_switched_off(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running_gateway(tmp_path, upstream.url, files_dir="off") as gateway:
        async with gateway.http() as http:
            for path in ("/v1/files", "/v1/vector_stores"):
                answer = await http.get(path)
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, "files_off")
                assert "GATEWAY_FILES_DIR" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["purpose", "a"])
async def test_a_field_that_comes_again_and_again(sqlite_gateway: Gateway, name: str) -> None:
    part = f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\nassistants\r\n'.encode()
    async with sqlite_gateway.http() as http:
        answer = await http.post(
            "/v1/files", content=part * 1000, headers={"content-type": "multipart/form-data; boundary=B"}
        )

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
