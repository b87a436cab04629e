"""The group writer, seen through the database."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import func, select, text

from app.db.engine import Database
from app.db.migrate import upgrade_apart
from app.db.tables import event_batches, responses
from app.eventlog.base import Batch, FencedOff
from app.eventlog.sql import SqlEventLog
from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.responses import RecordRefused
from app.stores.sql import SqlResponseStore
from tests.stores.records import LIFE, PROJECT, turn
from tests.support.services import Postgres

_COUNT = select(func.count().label("rows")).select_from(responses)
_CUT = text(
    "SELECT pg_terminate_backend(pid) AS cut FROM pg_stat_activity WHERE datname = current_database() AND "
    "wait_event_type = 'Lock'"
)

_SAVE_AND_DIE = """
import asyncio, os, sys
from app.db.engine import Database
from app.stores.sql import SqlResponseStore
from tests.stores.records import turn

async def main():
    record = turn("last words")
    await SqlResponseStore(Database(sys.argv[1]), retention_seconds=1).save(record)
    os.write(1, record.id.encode())
    os._exit(9)

asyncio.run(main())
"""


@pytest.fixture
def store(database: Database) -> SqlResponseStore:
    """An empty store."""
    return SqlResponseStore(database, retention_seconds=LIFE)


async def _rows(database: Database) -> int:
    return (await database.fetch(_COUNT))[0]["rows"]


async def _transactions(database: Database) -> list[int]:
    """How many rows each transaction has left, on Postgres."""
    rows = await database.fetch(text("SELECT count(*) AS rows FROM responses GROUP BY xmin::text ORDER BY 1"))
    return [row["rows"] for row in rows]


async def test_waiting_callers_share_one_transaction(postgres_url: str) -> None:
    database = Database(postgres_url)
    store = SqlResponseStore(database, retention_seconds=LIFE)
    await store.save(turn("alone"))
    async with asyncio.TaskGroup() as saving, database.transaction() as blocking:
        await blocking.execute(text("LOCK TABLE responses IN SHARE MODE"))
        saving.create_task(store.save(turn("first")))  # a group of its own, held up by the lock
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for number in range(50):  # these gather behind it
            saving.create_task(store.save(turn(str(number))))
        await asyncio.sleep(0)
    assert await _transactions(database) == [1, 1, 50]
    await database.aclose()


async def test_a_bad_row_fails_alone(database: Database, store: SqlResponseStore) -> None:
    taken = turn("taken")
    await store.save(taken)
    good = [turn(str(number)) for number in range(10)]
    bad = [taken, msgspec.structs.replace(turn("too late"), created_at=2**70)]
    outcomes = await asyncio.gather(
        *(store.save(record) for record in [*good[:5], *bad, *good[5:]]), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes[5:7]] == [RecordRefused, RecordRefused]
    assert [outcome for outcome in outcomes if not isinstance(outcome, RecordRefused)] == [None] * 10
    assert await _rows(database) == 11


async def test_rows_of_one_record_go_together_or_not_at_all(database: Database, store: SqlResponseStore) -> None:
    refused = msgspec.structs.replace(turn("refused", items=("item",)), created_at=2**70)
    with pytest.raises(RecordRefused):
        await store.save(refused)
    assert (await database.fetch(text("SELECT * FROM foreign_items"))) == []


async def test_a_caller_who_leaves_takes_no_one_along(database: Database, store: SqlResponseStore) -> None:
    leaving, *staying = (asyncio.ensure_future(store.save(turn(str(number)))) for number in range(5))  # noqa: TID251 - a test's own tasks
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(*staying)
    await asyncio.wait([leaving])
    assert leaving.cancelled()
    assert await _rows(database) >= 4


async def test_closing_writes_what_waits(database_url: str) -> None:
    database = Database(database_url)
    store = SqlResponseStore(database, retention_seconds=LIFE)
    saving = [asyncio.ensure_future(store.save(turn(str(number)))) for number in range(5)]  # noqa: TID251 - a test's own tasks
    await asyncio.sleep(0)
    await database.aclose()
    await asyncio.gather(*saving)
    with pytest.raises(StoreUnavailable):
        await store.save(turn("too late"))


async def test_what_was_saved_survives_the_process(database_url: str, store: SqlResponseStore) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SAVE_AND_DIE, database_url, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 9
    assert await store.get(PROJECT, output.decode(), now=1) is not None


async def test_postgres_may_restart() -> None:
    with Postgres() as server:
        upgrade_apart(server.url())
        database = Database(server.url())
        store = SqlResponseStore(database, retention_seconds=LIFE)
        before, after = turn("before"), turn("after")
        await store.save(before)
        assert await store.get(PROJECT, before.id, now=1) == before
        server.crash()
        for attempt in (
            store.save(turn("meanwhile")),
            store.get(PROJECT, before.id, now=1),
            store.delete(PROJECT, before.id, now=1),
        ):
            with pytest.raises(StoreUnavailable):
                await attempt
        server.start()
        await store.save(after)
        assert await store.get(PROJECT, before.id, now=1) == before
        assert await store.get(PROJECT, after.id, now=1) == after
        await database.aclose()


async def test_a_writer_whose_connection_was_cut_goes_on(postgres_url: str) -> None:
    database = Database(postgres_url)
    store = SqlResponseStore(database, retention_seconds=LIFE)
    await store.save(turn("before"))
    others = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
        "pg_backend_pid()"
    )
    await database.fetch(others)
    await asyncio.gather(*(store.save(turn(str(number))) for number in range(5)))
    assert await _rows(database) == 6
    await database.aclose()


async def test_a_group_whose_connection_is_cut_under_way_is_written_once(postgres_url: str) -> None:
    database = Database(postgres_url)
    store = SqlResponseStore(database, retention_seconds=LIFE)
    await store.save(turn("before"))
    async with asyncio.TaskGroup() as saving, database.transaction() as blocking:
        await blocking.execute(text("LOCK TABLE responses IN SHARE MODE"))
        for number in range(5):
            saving.create_task(store.save(turn(str(number))))
        while not await database.fetch(_CUT):
            continue
    assert await _rows(database) == 6
    await database.aclose()


async def test_after_a_cut_connection_a_row_of_another_owner_is_refused_and_an_equal_one_is_not(
    postgres_url: str,
) -> None:
    database = Database(postgres_url)
    store = SqlResponseStore(database, retention_seconds=LIFE)
    await store.save(turn("before"))
    fresh, committed, taken = turn("fresh"), turn("committed"), turn("taken")
    async with asyncio.TaskGroup() as saving, database.transaction() as blocking:
        await blocking.execute(text("LOCK TABLE responses IN SHARE MODE"))
        saves = [saving.create_task(_outcome(store.save(record))) for record in (fresh, committed, taken)]
        while not await database.fetch(_CUT):
            continue
        for record in (committed, msgspec.structs.replace(taken, model="of another owner")):
            await blocking.execute(responses.insert(), msgspec.structs.asdict(record))
    assert [type(save.result()) for save in saves] == [type(None), type(None), RecordRefused]
    assert await store.get(PROJECT, fresh.id, now=1) == fresh
    assert await store.get(PROJECT, committed.id, now=1) == committed
    await database.aclose()


async def test_after_a_cut_connection_the_frames_of_another_owner_are_not_taken_for_ones_own(postgres_url: str) -> None:
    database = Database(postgres_url)
    log = SqlEventLog(database)
    await log.append(PROJECT, "run", Batch(0, (b"0",)))
    row = {"response_id": "run", "first_sequence": 1, "project_id": PROJECT, "final": False, "expires_at": 2**40}
    async with asyncio.TaskGroup() as appending, database.transaction() as blocking:
        await blocking.execute(text("LOCK TABLE event_batches IN SHARE MODE"))
        append = appending.create_task(_outcome(log.append(PROJECT, "run", Batch(1, (b"mine",), fence=2))))
        while not await database.fetch(_CUT):
            continue
        await blocking.execute(event_batches.insert(), {**row, "frames": msgspec.msgpack.encode([b"of another owner"])})
    assert isinstance(append.result(), FencedOff)
    assert [*await log.frames(PROJECT, "run")] == [b"0", b"of another owner"]
    await database.aclose()


async def _outcome(work: Awaitable[None]) -> Exception | None:
    try:
        await work
    except (RecordRefused, FencedOff) as refusal:
        return refusal
    return None


async def test_a_missing_sqlite_file_is_reported(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/no-such-folder/gateway.db")
    store = SqlResponseStore(database, retention_seconds=LIFE)
    with pytest.raises(StoreUnavailable):
        await store.save(turn("nowhere"))
    with pytest.raises(StoreUnavailable):
        await store.get(PROJECT, "anything", now=1)
    await database.aclose()


async def test_a_read_does_not_create_a_missing_sqlite_file(tmp_path: Path) -> None:
    """An empty one would hide that the database is gone."""
    file = tmp_path / "number #1, 100% ours.db"
    upgrade_apart(f"sqlite+aiosqlite:///{file}")
    database = Database(f"sqlite+aiosqlite:///{file}")
    store = SqlResponseStore(database, retention_seconds=LIFE)
    file.rename(tmp_path / "moved.db")
    with pytest.raises(StoreUnavailable):
        await store.get(PROJECT, "anything", now=1)
    assert not file.exists()
    (tmp_path / "moved.db").rename(file)
    assert await store.get(PROJECT, "anything", now=1) is None
    await database.aclose()


@pytest.mark.parametrize("url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "mysql://host/db", "not a url"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"SQLite needs a file|unsupported database|must have the form"):
        Database(url)
