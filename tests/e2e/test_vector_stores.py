"""`/v1/vector_stores` with the official client: made, filled, searched by meaning, killed in the middle, taken away."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import httpx
import openai
import pytest

from tests.support.embeddings import serving_embeddings
from tests.support.gateway import Gateway, running_gateway
from tests.support.upstream import ScriptedUpstream

UNKNOWN = "vs_0190b7c23f4e7abc8def0123456789ab"
WHALES = "# Whales\n\nThe blue whale is the largest animal that has ever lived. It eats krill."
BREAD = "# Bread\n\nKnead the dough for ten minutes and let it rise in a warm kitchen."
TEA = "# 茶\n\n龙井茶产于杭州西湖，是中国著名的绿茶。"


@pytest.fixture
async def client(gateway: Gateway) -> AsyncGenerator[openai.AsyncOpenAI]:
    async with gateway.client() as connected:
        yield connected


async def test_a_store_is_filled_and_searched_by_meaning(client: openai.AsyncOpenAI) -> None:
    store = await client.vector_stores.create(name="docs", metadata={"team": "red"})
    assert (store.status, store.file_counts.total, store.usage_bytes, store.metadata) == (
        "completed",
        0,
        0,
        {"team": "red"},
    )

    whales = await client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id,
        file=("whales.md", WHALES.encode()),
        attributes={"topic": "sea", "year": 2024, "draft": True},
    )
    assert (whales.status, whales.last_error) == ("completed", None)
    batch = await client.vector_stores.file_batches.upload_and_poll(
        store.id, files=[("bread.md", BREAD.encode()), ("tea.txt", TEA.encode())]
    )
    assert (batch.status, batch.file_counts.completed, batch.file_counts.total) == ("completed", 2, 2)
    listed = await client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, filter="completed")
    assert len(listed.data) == 2

    shown = await client.vector_stores.retrieve(store.id)
    assert (shown.status, shown.file_counts.completed, shown.usage_bytes > 0) == ("completed", 3, True)
    await _is_searchable(client, store.id, whales.id)
    await _can_be_described(client, store.id, whales.id)

    content = await client.vector_stores.files.content(whales.id, vector_store_id=store.id)
    assert "blue whale" in (content.data[0].text or "")
    assert (await client.vector_stores.delete(store.id)).deleted
    with pytest.raises(openai.NotFoundError, match=store.id):
        await client.vector_stores.search(store.id, query="whale")
    assert (await client.files.retrieve(whales.id)).filename == "whales.md"


async def _is_searchable(client: openai.AsyncOpenAI, store: str, whales: str) -> None:
    page = await client.vector_stores.search(store, query="What do huge sea mammals feed on?", max_num_results=1)
    (best,) = page.data
    assert (best.file_id, best.filename, best.attributes) == (
        whales,
        "whales.md",
        {"topic": "sea", "year": 2024, "draft": True},
    )
    assert "krill" in best.content[0].text
    assert 0 < best.score <= 1
    (tea,) = (await client.vector_stores.search(store, query=["西湖的绿茶"], max_num_results=1)).data
    assert tea.filename == "tea.txt"
    none = await client.vector_stores.search(
        store, query="whale", filters={"type": "eq", "key": "topic", "value": "land"}
    )
    assert none.data == []


async def _can_be_described(client: openai.AsyncOpenAI, store: str, whales: str) -> None:
    changed = await client.vector_stores.files.update(whales, vector_store_id=store, attributes={"topic": "land"})
    assert changed.attributes == {"topic": "land"}
    found = await client.vector_stores.search(
        store, query="whale", filters={"type": "eq", "key": "topic", "value": "land"}
    )
    assert [hit.file_id for hit in found.data] == [whales]
    updated = await client.vector_stores.update(
        store, name="papers", expires_after={"anchor": "last_active_at", "days": 7}
    )
    assert (updated.name, updated.metadata) == ("papers", {"team": "red"})
    assert updated.expires_at == (updated.last_active_at or 0) + 7 * 86_400


async def test_files_at_the_making_and_what_cannot_be_read(client: openai.AsyncOpenAI) -> None:
    good = await client.files.create(file=("bread.md", BREAD.encode()), purpose="assistants")
    bad = await client.files.create(file=("cat.png", b"\x89PNG\r\n\x1a\n" + bytes(64)), purpose="assistants")
    strategy = openai.types.StaticFileChunkingStrategyObjectParam(
        type="static", static={"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 50}
    )
    store = await client.vector_stores.create(file_ids=[good.id, bad.id], chunking_strategy=strategy)
    assert (store.name, store.status, store.file_counts.in_progress) == ("", "in_progress", 2)

    done = await client.vector_stores.files.poll(good.id, vector_store_id=store.id)
    failed = await client.vector_stores.files.poll(bad.id, vector_store_id=store.id)
    assert done.status == "completed"
    assert done.chunking_strategy is not None
    assert done.chunking_strategy.to_dict() == {
        "type": "static",
        "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 50},
    }
    assert (failed.status, failed.last_error and failed.last_error.code) == ("failed", "unsupported_file")
    listed = [file.id async for file in client.vector_stores.files.list(store.id, filter="failed")]
    assert listed == [bad.id]

    assert (await client.vector_stores.files.delete(bad.id, vector_store_id=store.id)).deleted
    await client.files.delete(good.id)
    assert (await client.vector_stores.retrieve(store.id)).file_counts.total == 0
    with pytest.raises(openai.NotFoundError, match="file-unknown"):
        await client.vector_stores.create(file_ids=["file-unknown"])


async def test_stores_are_listed(client: openai.AsyncOpenAI) -> None:
    made = [(await client.vector_stores.create(name=f"s{number}")).id for number in range(3)]
    newest = [store.id async for store in client.vector_stores.list(limit=2)]  # the client turns the pages
    assert newest[:3] == made[::-1]
    page = await client.vector_stores.list(limit=1, order="asc", after=made[0])
    assert ([store.id for store in page.data], page.has_more) == ([made[1]], True)


async def test_what_is_wrong_is_named(gateway: Gateway, client: openai.AsyncOpenAI) -> None:
    store = (await client.vector_stores.create()).id
    stores, search = "/v1/vector_stores", f"/v1/vector_stores/{store}/search"
    many = {f"key{number}": "x" for number in range(17)}

    def cut(size: int, overlap: int) -> object:
        return {
            "chunking_strategy": {
                "type": "static",
                "static": {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap},
            }
        }

    cases: list[tuple[str, object, str]] = [
        (stores, {"metadata": many}, "metadata"),
        (stores, {"metadata": {"k" * 65: "x"}}, "k" * 65),
        (stores, {"metadata": {"k": "x" * 513}}, "metadata.k"),
        (stores, {"name": "a\0b"}, "name"),
        (stores, {"colour": "red"}, "colour"),
        (stores, {"expires_after": {"anchor": "last_active_at", "days": 0}}, "days"),
        (stores, cut(99, 0), "max_chunk"),
        (stores, cut(200, 101), "overlap"),
        (f"{stores}/{store}/files", {"file_id": "file-1", "attributes": {"k": {"nested": 1}}}, "attributes.k "),
        (f"{stores}/{store}/files", {"file_id": "file-1", "attributes": {"k": "x" * 513}}, "attributes.k "),
        (f"{stores}/{store}/file_batches", {}, "file_ids or files"),
        (f"{stores}/{store}/file_batches", {"file_ids": ["a"], "files": [{"file_id": "a"}]}, "file_ids or files"),
        (search, {"query": ""}, "query"),
        (search, {"query": "x", "max_num_results": 51}, "max_num_results"),
        (search, {"query": "x", "filters": {"type": "about", "key": "k", "value": 1}}, "filters.type"),
        (search, {"query": "x", "rewrite_query": True}, "rewrite_query"),
        (search, [], "body"),
    ]
    async with gateway.http() as http:
        for path, body, words in cases:
            answer = await http.post(path, json=body)
            assert answer.status_code == 400, (path, body, answer.text)
            error = answer.json()["error"]
            assert words in f"{error['param']} {error['message']}", (path, body, answer.text)
        for method, path, body in (
            ("GET", f"{stores}/vs%00", None),
            ("DELETE", f"{stores}/vs%00", None),
            ("POST", f"{stores}/{store}/files", {"file_id": "file\0"}),
            ("DELETE", f"{stores}/{store}/files/file%00", None),
            ("GET", f"{stores}/{store}/files?after=%00", None),
            ("GET", f"{stores}?after=%00", None),
            ("GET", "/v1/files?after=%00", None),
            ("DELETE", "/v1/files/file%00", None),
        ):
            answer = await http.request(method, path, json=body)
            assert answer.status_code == 400, (method, path, answer.text)
        answer = await http.post(search, json={"query": "a\x01b \"' OR -x* NEAR("})
        assert (answer.status_code, answer.json().get("data")) == (200, []), answer.text
        for odd in (b'{"name": "\\ud800"}', b'{"metadata": {"k": NaN}}', b"[" * 100_000, b"{", b"\xff"):
            answer = await http.post(stores, content=odd, headers={"content-type": "application/json"})
            assert answer.status_code == 400, answer.text
        answer = await http.post(
            stores, content=b'{"name": "' + b"x" * 33 * 1024 * 1024, headers={"content-type": "application/json"}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_another_project_cannot_tell(
    gateway: Gateway, client: openai.AsyncOpenAI, command: Callable[..., str]
) -> None:
    file = await client.files.create(file=("tea.txt", TEA.encode()), purpose="assistants")
    store = (await client.vector_stores.create(file_ids=[file.id])).id
    batch = (await client.vector_stores.file_batches.create(store, file_ids=[file.id])).id
    key = (await asyncio.to_thread(command, "keys", "create", "--project", "stores-stranger")).strip()
    requests: list[tuple[str, str, object]] = [
        ("GET", "", None),
        ("POST", "", {"name": "mine"}),
        ("DELETE", "", None),
        ("POST", "/search", {"query": "tea"}),
        ("GET", "/files", None),
        ("POST", "/files", {"file_id": file.id}),
        ("GET", f"/files/{file.id}", None),
        ("POST", f"/files/{file.id}", {"attributes": {}}),
        ("DELETE", f"/files/{file.id}", None),
        ("GET", f"/files/{file.id}/content", None),
        ("POST", "/file_batches", {"file_ids": [file.id]}),
        ("GET", f"/file_batches/{batch}", None),
        ("GET", f"/file_batches/{batch}/files", None),
        ("POST", f"/file_batches/{batch}/cancel", None),
    ]
    async with httpx.AsyncClient(base_url=gateway.base_url, headers={"authorization": f"Bearer {key}"}) as stranger:
        for method, path, body in requests:
            foreign = await stranger.request(method, f"/v1/vector_stores/{store}{path}", json=body)
            unknown = await stranger.request(method, f"/v1/vector_stores/{UNKNOWN}{path}", json=body)
            assert foreign.status_code == unknown.status_code == 404, (method, path)
            assert foreign.content.replace(store.encode(), UNKNOWN.encode()) == unknown.content
        assert (await stranger.get("/v1/vector_stores")).json()["data"] == []
        own = (await stranger.post("/v1/vector_stores", json={})).json()["id"]
        assert (await stranger.post(f"/v1/vector_stores/{own}/files", json={"file_id": file.id})).status_code == 404
    assert (await client.vector_stores.retrieve(store)).name == ""


@pytest.mark.parametrize("end", ["killed", "asked to stop"])
async def test_ingestion_survives_its_process(upstream: ScriptedUpstream, tmp_path: Path, end: str) -> None:
    with serving_embeddings() as embeddings:
        with running_gateway(tmp_path, upstream.url, **embeddings.settings) as first:
            async with first.client() as client:
                file = await client.files.create(file=("whales.md", WHALES.encode()), purpose="assistants")
                store = (await client.vector_stores.create(file_ids=[file.id])).id
                assert await asyncio.to_thread(embeddings.asked.wait, 30)
                assert (
                    await client.vector_stores.files.retrieve(file.id, vector_store_id=store)
                ).status == "in_progress"
            if end == "killed":
                first.process.kill()
                first.process.wait(10)
        if end == "killed":
            _let_leases_end(tmp_path / "gateway.db")
        embeddings.open.set()

        with running_gateway(tmp_path, upstream.url, **embeddings.settings) as second:
            async with second.client() as client:
                done = await client.vector_stores.files.poll(file.id, vector_store_id=store, max_wait_seconds=20)
                assert (done.status, done.last_error) == ("completed", None)
                assert len((await client.vector_stores.search(store, query="whale")).data) == 1


def _let_leases_end(path: Path) -> None:
    """Half a minute passes, as far as the database can tell."""
    with sqlite3.connect(path) as database:
        moved = database.execute("UPDATE vector_store_files SET due_at = due_at - 40000 WHERE owner IS NOT NULL")
        assert moved.rowcount == 1
    database.close()


async def test_a_file_that_was_read_in_part_says_what_is_missing(client: openai.AsyncOpenAI) -> None:
    picture = f"# Bread\n\n![loaf](data:image/png;base64,{'A' * 400})\n\nKnead the dough."
    file = await client.files.create(file=("bread.md", picture.encode()), purpose="assistants")
    store = await client.vector_stores.create(file_ids=[file.id])
    done = await client.vector_stores.files.poll(file.id, vector_store_id=store.id)
    assert (done.status, done.last_error) == ("completed", None)
    assert done.to_dict()["x_not_in_text"] == "1 picture"


async def test_a_store_keeps_the_built_in_model_it_was_filled_with(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running_gateway(tmp_path, upstream.url, embeddings_built_in="multilingual-e5-small") as first:
        async with first.client() as client:
            store = (await client.vector_stores.create()).id
            await client.vector_stores.files.upload_and_poll(vector_store_id=store, file=("whales.md", WHALES.encode()))

    with running_gateway(tmp_path, upstream.url) as second:
        async with second.client() as client:
            added = await client.vector_stores.files.upload_and_poll(
                vector_store_id=store, file=("bread.md", BREAD.encode())
            )
            assert (added.status, added.last_error) == ("completed", None)
            for question, name in (
                ("What do huge sea mammals feed on?", "whales.md"),
                ("How is a loaf baked?", "bread.md"),
            ):
                found = await client.vector_stores.search(store, query=question, max_num_results=1)
                assert [hit.filename for hit in found.data] == [name]
    with sqlite3.connect(tmp_path / "gateway.db") as database:
        assert database.execute("SELECT model, dimensions FROM passage_stores").fetchall() == [
            ("multilingual-e5-small", 384)
        ]
    database.close()
