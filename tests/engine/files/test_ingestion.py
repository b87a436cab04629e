"""Ingestion: what becomes of files, of workers that die, and of changes in between."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import RowMapping, bindparam, select, update

from app.db.clock import now_ms
from app.db.engine import Database
from app.db.tables import vector_store_files
from app.db.writer import DatabaseUnavailable
from app.documents import reading
from app.engine.files.store_files import Chunking, NewStoreFile
from app.engine.files.vector_stores import NewStore
from app.knowledge.ports.errors import KnowledgeUnavailable
from app.knowledge.ports.files import FileRecord
from app.knowledge.ports.stores import Attachment
from app.offload.protocol import Limits
from app.offload.workers import Workers
from app.tools.ports.files import FileQuery
from tests.engine.library import LEASE, PROJECT, READ_BYTES, Killed, Library, build


@pytest.fixture
def library(database: Database, tmp_path: Path) -> Library:
    return build(database, tmp_path / "files")


@pytest.fixture
def replica(library: Library, database: Database, tmp_path: Path) -> Library:
    """Another process on the same database, storage and index."""
    return build(database, tmp_path / "files", shared=library)


async def _stored(library: Library, *files: FileRecord, project: str = PROJECT) -> str:
    new = NewStore(
        name="",
        description=None,
        metadata={},
        expires_days=None,
        file_ids=[file.id for file in files],
        chunking=Chunking(),
    )
    return (await library.stores.create(project, new)).record.id


_LEFT = select((vector_store_files.c.due_at - now_ms()).label("left"))
_EARLIER = update(vector_store_files).values(due_at=vector_store_files.c.due_at - bindparam("passed"))


async def _later(library: Library, database: Database, seconds: float = LEASE + 1) -> None:
    """Time passes, also as far as the database can tell."""
    library.clock.now += seconds
    async with database.transaction() as connection:
        await connection.execute(_EARLIER, {"passed": int(seconds * 1000)})


async def _renewed(database: Database) -> None:
    """The worker has moved its lease on."""
    async with asyncio.timeout(10):
        while (await database.fetch(_LEFT))[0]["left"] < LEASE * 500:  # noqa: ASYNC110 - the database signals nothing
            await asyncio.sleep(0.02)  # between two looks; nothing depends on its length


async def _killed(library: Library) -> None:
    """A worker takes a job and dies of it."""
    library.embedder.deadly = True
    with pytest.raises(BaseExceptionGroup) as ended:
        await library.ingestion.work()
    assert ended.group_contains(Killed)
    library.embedder.deadly = False


async def _away(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is away when this worker looks for jobs."""

    async def fail(*_: Any) -> Sequence[RowMapping]:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "fetch", fail)
        with pytest.raises(KnowledgeUnavailable):
            await library.ingestion.work()


async def _shown(library: Library, store: str, file: FileRecord) -> Attachment:
    return await library.store_files.get(PROJECT, store, file.id)


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("cat.png", b"\x89PNG", "unsupported_file", "not supported"),
        ("empty.txt", b"", "invalid_file", "no text"),
        ("huge.txt", b"a" * (READ_BYTES + 1), "invalid_file", "too large"),
        ("other.txt", b"another model", "server_error", "another model"),
    ],
)
async def test_a_file_that_cannot_be_read_says_why(
    library: Library, name: str, content: bytes, code: str, words: str
) -> None:
    bad, good = await library.upload(content, name), await library.upload(b"good")
    store = await _stored(library, bad, good)
    assert await library.ingestion.work() == 2

    shown = await _shown(library, store, bad)
    assert (shown.status, shown.error_code) == ("failed", code)
    assert words in (shown.error_message or "")
    assert (await _shown(library, store, good)).status == "completed"
    totals = (await library.stores.get(PROJECT, store)).totals
    assert (totals.failed, totals.completed, totals.in_progress) == (1, 1, 0)


async def test_what_is_not_in_a_files_text_is_in_its_status(library: Library) -> None:
    note = "page 2 (an image; no text)"
    partly, whole = (
        await library.upload(f"whales\n\n[Not in this text: {note}]".encode()),
        await library.upload(b"bread"),
    )
    store = await _stored(library, partly, whole)
    await library.ingestion.work()

    shown = [await _shown(library, store, file) for file in (partly, whole)]
    assert [(file.status, file.error_code, file.error_message) for file in shown] == [
        ("completed", None, note),
        ("completed", None, None),
    ]


async def test_what_may_pass_is_tried_again_and_then_given_up(library: Library, database: Database) -> None:
    library.embedder.failing = True
    file = await library.upload(b"whales")
    store = await _stored(library, file)
    for _ in range(3):
        assert await library.ingestion.work() == 1
        assert await library.ingestion.work() == 0  # not at once
        assert (await _shown(library, store, file)).status == "in_progress"
        await _later(library, database, 60)
    assert await library.ingestion.work() == 1

    shown = await _shown(library, store, file)
    assert (shown.status, shown.error_code, shown.error_message) == (
        "failed",
        "server_error",
        "The embedding server is away.",
    )
    assert await library.ingestion.work() == 0

    library.embedder.failing = False
    await library.store_files.add(PROJECT, store, NewStoreFile(file.id, {}, Chunking()))
    await library.ingestion.work()
    shown = await _shown(library, store, file)
    assert (shown.status, shown.error_code) == ("completed", None)


async def test_two_workers_never_do_the_same(library: Library, replica: Library) -> None:
    files = [await library.upload(b"text %d" % number) for number in range(6)]
    await _stored(library, *files)

    done = await asyncio.gather(library.ingestion.work(), replica.ingestion.work(), library.ingestion.work())
    assert sum(done) == 6
    assert library.index.replaced == 6


async def test_the_job_of_a_dead_worker_is_taken_over_after_its_lease(
    library: Library, replica: Library, database: Database
) -> None:
    file = await library.upload(b"whales")
    store = await _stored(library, file)
    await _killed(library)

    assert await replica.ingestion.work() == 0
    await _later(library, database)
    assert await replica.ingestion.work() == 1
    assert (await _shown(library, store, file)).status == "completed"


async def test_nothing_is_taken_over_right_after_an_outage_of_the_database(
    library: Library, replica: Library, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could renew meanwhile, so that the leases of healthy workers are over, too."""
    file = await library.upload(b"whales")
    store = await _stored(library, file)
    await replica.ingestion.work()
    await _later(library, database)  # it has seen the database for the time of a lease
    await library.store_files.add(PROJECT, store, NewStoreFile(file.id, {}, Chunking()))
    library.embedder.open.clear()
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(library.ingestion.work())
        await library.embedder.asked.wait()
        await _away(replica, monkeypatch)
        await _later(library, database)
        for _ in range(2):
            assert await replica.ingestion.work() == 0
        library.embedder.open.set()
    assert slow.result() == 1
    assert (await _shown(library, store, file)).status == "completed"

    await library.store_files.add(PROJECT, store, NewStoreFile(file.id, {}, Chunking()))
    await _killed(library)
    await _later(library, database)
    assert await replica.ingestion.work() == 1


async def test_a_slow_answer_is_an_outage(
    library: Library, replica: Library, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database that was stopped for a while answers in the end, but nobody could renew meanwhile."""
    await replica.ingestion.work()
    await _later(library, database)
    await _stored(library, await library.upload(b"whales"))
    await _killed(library)
    fetch = database.fetch

    async def slow(*query: Any) -> Sequence[RowMapping]:
        monkeypatch.undo()
        await _later(library, database)
        return await fetch(*query)

    monkeypatch.setattr(database, "fetch", slow)
    assert await replica.ingestion.work() == 0
    await _later(library, database)
    assert await replica.ingestion.work() == 1


async def test_a_worker_that_is_asked_to_stop_gives_its_job_back(library: Library, replica: Library) -> None:
    file = await library.upload(b"whales")
    store = await _stored(library, file)
    library.embedder.open.clear()
    for _ in range(6):  # more often than a job is tried
        library.embedder.asked.clear()
        async with asyncio.TaskGroup() as group:
            stopped = group.create_task(library.ingestion.work())
            await library.embedder.asked.wait()
            stopped.cancel()

    assert await replica.ingestion.work() == 1
    assert (await _shown(library, store, file)).status == "completed"


async def test_a_lease_is_renewed_while_the_work_takes_long(
    library: Library, replica: Library, database: Database
) -> None:
    file = await library.upload(b"whales")
    store = await _stored(library, file)
    library.embedder.open.clear()
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(library.ingestion.work())
        await library.embedder.asked.wait()
        for _ in range(3):
            await _later(library, database, LEASE - 1)
            await _renewed(database)
            assert await replica.ingestion.work() == 0
        library.embedder.open.set()
    assert slow.result() == 1
    assert (await _shown(library, store, file)).status == "completed"


async def test_a_worker_whose_file_is_taken_out_stops(library: Library) -> None:
    file = await library.upload(b"whales")
    store = await _stored(library, file)
    library.embedder.open.clear()
    async with asyncio.TaskGroup() as group:
        working = group.create_task(library.ingestion.work())
        await library.embedder.asked.wait()
        await library.store_files.remove(PROJECT, store, file.id)
        # it is told when it renews its lease, and goes on with the removal
        assert await asyncio.wait_for(asyncio.shield(working), 10) == 2
    assert library.index.files == {}
    assert (await library.stores.get(PROJECT, store)).totals.total == 0


async def test_a_removed_file_is_gone_though_its_worker_was_done_in_the_same_moment(library: Library) -> None:
    file = await library.upload(b"whales")
    store = await _stored(library, file)
    library.embedder.open.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(library.ingestion.work())
        await library.embedder.asked.wait()
        await library.store_files.remove(PROJECT, store, file.id)
        library.embedder.open.set()  # before it has noticed
    assert library.index.replaced == 0
    assert await library.stores.search(PROJECT, FileQuery(vector_store_ids=(store,), queries=("whales",))) == []


async def test_a_file_that_kills_every_worker_is_given_up(library: Library, database: Database) -> None:
    file = await library.upload(b"poison")
    store = await _stored(library, file)
    for _ in range(4):
        await _killed(library)
        await _later(library, database)
    assert await library.ingestion.work() == 1
    assert (await _shown(library, store, file)).error_code == "server_error"
    assert library.embedder.calls == 4


async def test_a_new_file_wakes_the_worker(library: Library) -> None:
    waiting = asyncio.Event()

    async def worker() -> None:
        waiting.set()
        await library.ingestion.run()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker())
        await waiting.wait()
        file = await library.upload(b"whales")
        store = await _stored(library, file)
        await asyncio.wait_for(asyncio.shield(task), 4)  # less than it would sleep
    assert (await _shown(library, store, file)).status == "completed"


async def test_a_file_deleted_before_its_turn_is_only_removed(library: Library) -> None:
    file = await library.upload(b"whales")
    store = await _stored(library, file)
    await library.files.delete(PROJECT, file.id)
    assert await library.ingestion.work() == 1
    assert library.embedder.calls == 0
    assert (await library.stores.get(PROJECT, store)).totals.total == 0


async def test_the_file_of_a_project_does_not_wait_for_the_many_of_another(library: Library) -> None:
    many = [await library.upload(b"text %d" % number, project="greedy") for number in range(8)]
    await _stored(library, *many, project="greedy")
    library.embedder.open.clear()
    async with asyncio.TaskGroup() as group:
        working = [group.create_task(library.ingestion.work()) for _ in range(4)]
        for done in itertools.islice(asyncio.as_completed(working), 2):  # they find no job that they may take
            assert await done == 0

        file = await library.upload(b"whales")
        store = await _stored(library, file)
        other = group.create_task(library.ingestion.work())
        async with asyncio.timeout(30):
            while library.embedder.calls < 3:  # noqa: ASYNC110 - two of the greedy project, and this one
                await asyncio.sleep(0.01)
        library.embedder.open.set()
    assert (await _shown(library, store, file)).status == "completed"
    assert sum(task.result() for task in [*working, other]) == 9


async def test_projects_take_turns_where_jobs_are_done_one_by_one(library: Library) -> None:
    for project, count in (("a", 4), ("b", 2), ("c", 1)):
        files = [
            await library.upload(b"%d" % number, f"{project}{number}.txt", project=project) for number in range(count)
        ]
        await _stored(library, *files, project=project)
    assert await library.ingestion.work() == 7
    order = "".join(filename[0] for filename, _, _ in library.index.files.values())
    assert [sorted(order[:3]), sorted(order[3:5]), order[5:]] == [["a", "b", "c"], ["a", "b"], "aa"]


async def test_a_job_that_may_not_be_read_now_waits_and_is_not_counted(
    library: Library, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await library.upload(b"whales")
    store = await _stored(library, file)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "_readers", Workers(Limits(seconds=60), waiting=0))
        reads = msgspec.structs.replace(library.ingestion._pipeline, read=reading.text)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        patch.setattr(library.ingestion, "_pipeline", reads)
        for _ in range(6):  # more often than a job is tried
            assert await library.ingestion.work() == 1
            assert await library.ingestion.work() == 0
            await _later(library, database, 60)
    assert await library.ingestion.work() == 1
    assert (await _shown(library, store, file)).status == "completed"
