"""Vector stores: made, changed, filled, searched, expired, deleted."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from app.db.engine import Database
from app.engine.files.store_files import Chunking, NewStoreFile
from app.engine.files.vector_stores import NewStore, StoreChange
from app.knowledge.ports.passages import Attributes
from app.protocol.wire.errors import InvalidRequest, NotFound, RateLimited, Unavailable
from app.protocol.wire.paging import Page
from app.tools.ports.files import FileQuery
from tests.engine.library import PROJECT, Library, build

DAY = 86_400


@pytest.fixture
def library(database: Database, tmp_path: Path) -> Library:
    return build(database, tmp_path / "files")


async def _store(library: Library, *file_ids: str, days: int | None = None, project: str = PROJECT) -> str:
    new = NewStore(name="s", description=None, metadata={}, expires_days=days, file_ids=file_ids, chunking=Chunking())
    return (await library.stores.create(project, new)).record.id


async def _filled(library: Library, *texts: str) -> tuple[str, list[str]]:
    """A store with a file for each text, all ingested."""
    ids = [(await library.upload(text.encode())).id for text in texts]
    store = await _store(library, *ids)
    assert await library.ingestion.work() == len(texts)
    return store, ids


def _query(store: str, *queries: str, **rest: object) -> FileQuery:
    return FileQuery(vector_store_ids=(store,), queries=queries, **rest)  # type: ignore[arg-type] - fields by name


async def test_a_store_is_made_shown_and_changed(library: Library) -> None:
    new = NewStore(
        name="docs", description="All", metadata={"team": "red"}, expires_days=2, file_ids=(), chunking=Chunking()
    )
    made = await library.stores.create(PROJECT, new)
    assert (made.status, made.totals.total, made.record.description) == ("completed", 0, "All")
    assert made.record.expires_at == made.record.created_at + 2 * DAY

    library.clock.now += DAY
    changed = await library.stores.update(PROJECT, made.record.id, StoreChange(name="papers"))
    assert (changed.record.name, msgspec.json.decode(changed.record.metadata)) == ("papers", {"team": "red"})
    assert changed.record.expires_at == changed.record.last_active_at + 2 * DAY
    changed = await library.stores.update(PROJECT, made.record.id, StoreChange(metadata={}, expires_days=None))
    assert (changed.record.name, changed.record.metadata, changed.record.expires_at) == ("papers", b"{}", None)
    assert await library.stores.get(PROJECT, made.record.id) == changed


async def test_files_are_searched_once_they_are_ingested(library: Library) -> None:
    file = await library.upload(b"whales sing\ncats purr")
    store = await _store(library, file.id)
    shown = await library.stores.get(PROJECT, store)
    assert (shown.status, shown.totals.in_progress) == ("in_progress", 1)
    assert await library.stores.search(PROJECT, _query(store, "whales")) == []

    assert await library.ingestion.work() == 1
    shown = await library.stores.get(PROJECT, store)
    assert (shown.status, shown.totals.completed) == ("completed", 1)
    assert shown.totals.usage_bytes == len("whales singcats purr") + 2 * 4
    hits = await library.stores.search(PROJECT, _query(store, "do whales sing", "cats purr", limit=2))
    assert [(hit.file_id, hit.text, hit.score) for hit in hits] == [
        (file.id, "cats purr", 1.0),
        (file.id, "whales sing", 2 / 3),
    ]
    assert [passage.text for passage in await library.store_files.passages(PROJECT, store, file.id)] == [
        "whales sing",
        "cats purr",
    ]


async def test_another_project_sees_nothing(library: Library) -> None:
    store, (file,) = await _filled(library, "whales")
    foreign = await library.upload(b"x", project="project-b")
    b = "project-b"
    for wait in (
        library.stores.get(b, store),
        library.stores.delete(b, store),
        library.stores.update(b, store, StoreChange(name="mine")),
        library.stores.check(b, [store]),
        library.stores.search(b, _query(store, "whales")),
        library.store_files.get(b, store, file),
        library.store_files.remove(b, store, file),
        library.store_files.describe(b, store, file, {}),
        library.store_files.passages(b, store, file),
        library.store_files.add(b, store, NewStoreFile(foreign.id, {}, Chunking())),
        library.store_files.add(PROJECT, store, NewStoreFile(foreign.id, {}, Chunking())),
    ):
        with pytest.raises(NotFound):
            await wait
    assert await library.stores.list(b, Page(10)) == ((), False)
    assert await library.store_files.list(b, store, Page(10)) == ([], False)
    assert len(await library.stores.search(PROJECT, _query(store, "whales"))) == 1


async def test_a_store_with_an_unknown_file_is_not_made(library: Library) -> None:
    file = await library.upload(b"x")
    with pytest.raises(NotFound, match="file-unknown"):
        await _store(library, file.id, "file-unknown")
    assert await library.stores.list(PROJECT, Page(10)) == ((), False)


async def test_attributes_filter_the_search_and_can_change(library: Library) -> None:
    store = await _store(library)
    for year, text in ((2024.0, b"whales old"), (2025.0, b"whales new")):
        file = await library.upload(text)
        await library.store_files.add(
            PROJECT, store, NewStoreFile(file.id, {"year": year, "draft": True}, Chunking(100, 20))
        )
    await library.ingestion.work()

    async def found(filters: object) -> set[str]:
        hits = await library.stores.search(
            PROJECT, _query(store, "whales", filters=msgspec.Raw(msgspec.json.encode(filters)))
        )
        return {hit.text for hit in hits}

    recent = {"type": "gt", "key": "year", "value": 2024}
    assert await found(recent) == {"whales new"}
    ((listed, _), _) = await library.store_files.list(PROJECT, store, Page(10, "asc"))
    assert (listed.chunk_size, listed.chunk_overlap) == (100, 20)
    await library.store_files.describe(PROJECT, store, listed.file_id, {"year": 2026.0})
    assert await found(recent) == {"whales old", "whales new"}
    with pytest.raises(InvalidRequest):
        await found({"type": "about", "key": "year", "value": 1})


async def test_attributes_that_change_during_ingestion_count(library: Library) -> None:
    file = await library.upload(b"whales")
    store = await _store(library, file.id)
    wanted: Attributes = {"topic": "sea"}
    await library.store_files.describe(PROJECT, store, file.id, wanted)
    await library.ingestion.work()
    assert (await library.stores.search(PROJECT, _query(store, "whales")))[0].attributes == wanted


async def test_what_is_taken_out_is_not_found_at_once_and_then_forgotten(library: Library) -> None:
    store, (first, second) = await _filled(library, "whales one", "whales two")
    await library.store_files.remove(PROJECT, store, first)

    assert [hit.file_id for hit in await library.stores.search(PROJECT, _query(store, "whales"))] == [second]
    with pytest.raises(NotFound):
        await library.store_files.get(PROJECT, store, first)
    assert (await library.stores.get(PROJECT, store)).totals.total == 1
    assert await library.ingestion.work() == 1
    assert set(library.index.files) == {(store, second)}
    assert await library.files.get(PROJECT, first)

    await library.files.delete(PROJECT, second)
    assert await library.stores.search(PROJECT, _query(store, "whales")) == []
    assert await library.ingestion.work() == 1
    assert library.index.files == {}


async def test_a_deleted_store_takes_its_passages_along(library: Library) -> None:
    store, _ = await _filled(library, "whales one", "whales two")
    await library.stores.delete(PROJECT, store)

    with pytest.raises(NotFound):
        await library.stores.search(PROJECT, _query(store, "whales"))
    with pytest.raises(NotFound):
        await library.stores.delete(PROJECT, store)
    assert await library.ingestion.work() == 2
    assert library.index.files == {}
    now = int(library.clock())
    assert [await library.stores.purge(now, 10), await library.stores.purge(now, 10)] == [1, 0]


async def test_a_store_expires_after_its_last_use(library: Library) -> None:
    file = await library.upload(b"whales")
    store = await _store(library, file.id, days=1)
    await library.ingestion.work()

    library.clock.now += DAY - 10
    assert len(await library.stores.search(PROJECT, _query(store, "whales"))) == 1
    library.clock.now += DAY - 10
    await library.stores.check(PROJECT, [store])
    library.clock.now += 20
    assert (await library.stores.get(PROJECT, store)).status == "expired"
    for wait in (
        library.stores.check(PROJECT, [store]),
        library.stores.search(PROJECT, _query(store, "whales")),
        library.stores.update(PROJECT, store, StoreChange(name="again")),
        library.store_files.add(PROJECT, store, NewStoreFile(file.id, {}, Chunking())),
    ):
        with pytest.raises(NotFound):
            await wait

    assert await library.stores.purge(int(library.clock()), 10) == 1
    assert await library.ingestion.work() == 1
    assert library.index.files == {}
    assert (await library.stores.get(PROJECT, store)).totals.total == 0
    library.clock.now += 31 * DAY
    assert await library.stores.purge(int(library.clock()), 10) == 1
    with pytest.raises(NotFound):
        await library.stores.get(PROJECT, store)


async def test_lists_in_pages(library: Library) -> None:
    stores = [await _store(library) for _ in range(3)]
    page, more = await library.stores.list(PROJECT, Page(2))
    assert ([one.record.id for one in page], more) == (stores[:0:-1], True)
    page, more = await library.stores.list(PROJECT, Page(2, after=stores[1]))
    assert ([one.record.id for one in page], more) == ([stores[0]], False)

    store, files = await _filled(library, "a", "b", "c")
    shown, more = await library.store_files.list(PROJECT, store, Page(2, "asc"))
    assert ([one.file_id for one in shown], more) == (files[:2], True)
    shown, more = await library.store_files.list(PROJECT, store, Page(2, "asc", after=files[1]), status="completed")
    assert ([one.file_id for one in shown], more) == (files[2:], False)
    shown, more = await library.store_files.list(PROJECT, store, Page(1, "asc", before=files[2]))
    assert ([one.file_id for one in shown], more) == ([files[1]], True)
    assert await library.store_files.list(PROJECT, store, Page(2), status="failed") == ([], False)
    with pytest.raises(InvalidRequest, match="after"):
        await library.store_files.list(PROJECT, store, Page(2, after="file-unknown"))


async def test_a_batch_is_counted_and_cancelled(library: Library) -> None:
    store = await _store(library)
    files = [(await library.upload(text)).id for text in (b"a", b"b", b"c")]
    batch = await library.store_files.add_batch(
        PROJECT, store, [NewStoreFile(file, {}, Chunking()) for file in [*files, files[0]]]
    )
    assert (batch.status, batch.totals.in_progress) == ("in_progress", 3)
    with pytest.raises(NotFound):
        await library.store_files.batch("project-b", store, batch.record.id)
    with pytest.raises(NotFound):
        await library.store_files.cancel("project-b", store, batch.record.id)

    cancelled = await library.store_files.cancel(PROJECT, store, batch.record.id)
    assert (cancelled.status, cancelled.totals.cancelled) == ("cancelled", 3)
    await library.ingestion.work()
    assert (library.index.replaced, library.embedder.calls) == (0, 0)
    shown, _ = await library.store_files.list(
        PROJECT, store, Page(10, "asc"), batch_id=batch.record.id, status="cancelled"
    )
    assert [one.file_id for one in shown] == files

    again = await library.store_files.add_batch(PROJECT, store, [NewStoreFile(file, {}, Chunking()) for file in files])
    await library.ingestion.work()
    done = await library.store_files.batch(PROJECT, store, again.record.id)
    assert (done.status, done.totals.completed) == ("completed", 3)


async def test_a_batch_with_an_unknown_file_adds_nothing(library: Library) -> None:
    store, known = await _store(library), await library.upload(b"a")
    with pytest.raises(NotFound, match="file-unknown"):
        await library.store_files.add_batch(
            PROJECT, store, [NewStoreFile(id_, {}, Chunking()) for id_ in (known.id, "file-unknown")]
        )
    assert (await library.stores.get(PROJECT, store)).totals.total == 0


async def test_a_search_without_its_model_is_said(library: Library) -> None:
    store, _ = await _filled(library, "whales")
    library.embedder.failing = True
    with pytest.raises(Unavailable, match="embedding"):
        await library.stores.search(PROJECT, _query(store, "whales"))


async def test_too_many_questions_of_a_project_are_refused_and_anothers_are_not(library: Library) -> None:
    store, _ = await _filled(library, "whales sing")
    library.embedder.busy = {PROJECT}
    with pytest.raises(RateLimited) as refused:
        await library.stores.search(PROJECT, _query(store, "whales"))
    assert (refused.value.code, refused.value.retry_after) == ("searches_busy", 5.0)
    library.embedder.busy = {"another"}
    assert len(await library.stores.search(PROJECT, _query(store, "whales"))) == 1


async def test_stores_keep_the_models_they_were_filled_with(library: Library) -> None:
    earlier, _ = await _filled(library, "whales sing")
    later, _ = await _filled(library, "whales dive")
    library.index.model_of[earlier] = "earlier"
    library.embedder.models.clear()
    more = NewStoreFile((await library.upload(b"whales eat")).id, {}, Chunking())
    await library.store_files.add(PROJECT, earlier, more)
    await library.ingestion.work()
    assert library.embedder.models == ["earlier"]

    library.embedder.models.clear()
    found = await library.stores.search(PROJECT, FileQuery(vector_store_ids=(earlier, later), queries=("whales",)))
    assert sorted(hit.text for hit in found) == ["whales dive", "whales eat", "whales sing"]
    assert sorted(map(str, library.embedder.models)) == ["earlier", "words"]
