"""Runs with several replicas at once, and with a database that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable

import msgspec
import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.db.migrate import upgrade_apart
from app.db.tables import responses
from app.db.tables import runs as runs_table
from app.stores.measured import MeasuredRuns
from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.responses import RecordRefused
from app.stores.ports.runs import Held, RunStore, StoredRun
from app.stores.sql_runs import SqlRunStore
from tests.stores.records import LEASE, OVER, PROJECT, record_of, run
from tests.support.services import Postgres

_CUT = text(
    """SELECT pg_terminate_backend(pid) AS cut FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'"""
)


@pytest.fixture
def noted() -> list[tuple[str, bool]]:
    """Measured operations, and whether they failed."""
    return []


@pytest.fixture
async def runs_away(noted: list[tuple[str, bool]]) -> AsyncGenerator[tuple[Postgres, RunStore]]:
    """A measured store on a server of its own."""
    with Postgres() as server:
        upgrade_apart(server.url())
        database = Database(server.url())

        def note(operation: str, seconds: float, *, failed: bool) -> None:
            assert seconds >= 0
            noted.append((operation, failed))

        yield server, MeasuredRuns(SqlRunStore(database), note)
        await database.aclose()


async def test_claimers_never_get_the_same_run(database_url: str) -> None:
    replicas = [Database(database_url) for _ in range(2)]
    stores = [SqlRunStore(database) for database in replicas]
    half = [[run(at=number, lane=number % 3) for number in range(100)] for _ in range(2)]
    await asyncio.gather(*(stores[0].create(one, None, LEASE) for one in half[0]))
    await asyncio.gather(*(stores[1].create(one, "dead", OVER) for one in half[1]))

    async def work(number: int) -> list[str]:
        taken: list[str] = []
        while claims := await stores[number % 2].claim(f"owner-{number}", LEASE, 7, takeover=True):
            taken += [claim.run.id for claim in claims]
        return taken

    taken = await asyncio.gather(*(work(number) for number in range(6)))
    for number, ids in enumerate(taken):
        assert set(await stores[0].renew(f"owner-{number}", ids, LEASE)) == set(ids)
    assert sorted(one for ids in taken for one in ids) == sorted(one.id for one in (*half[0], *half[1]))
    for database in replicas:
        await database.aclose()


async def test_a_run_is_either_settled_or_seized(database_url: str) -> None:
    replicas = [Database(database_url) for _ in range(2)]
    one, two = (SqlRunStore(database) for database in replicas)
    contested = [run() for _ in range(60)]
    await asyncio.gather(*(one.create(each, "one", LEASE) for each in contested))

    async def contest(each: StoredRun) -> None:
        settled, seized = await asyncio.gather(
            one.settle(record_of(each), fence=1), two.seize(each.id, 1, "two", LEASE)
        )
        assert settled == (seized is None)
        assert (await two.get(PROJECT, each.id) is None) == settled

    await asyncio.gather(*(contest(each) for each in contested))
    for database in replicas:
        await database.aclose()


async def test_renewals_and_settlements_never_wait_for_each_other_in_a_circle(database_url: str) -> None:
    database = Database(database_url)
    runs, running = SqlRunStore(database), [run() for _ in range(300)]
    await asyncio.gather(*(runs.create(one, "one", LEASE) for one in running))
    renewing = [runs.renew("one", [one.id for one in running], LEASE) for _ in range(5)]
    settling = [runs.settle(record_of(one), fence=1) for one in running]
    await asyncio.gather(*renewing, *settling)
    assert await runs.renew("one", [one.id for one in running], LEASE) == {}
    await database.aclose()


async def test_the_database_may_be_away(runs_away: tuple[Postgres, RunStore], noted: list[tuple[str, bool]]) -> None:
    server, runs = runs_away
    running = run()
    await runs.create(running, "one", LEASE)
    server.crash()
    for attempt in (
        runs.create(run(), None, LEASE),
        runs.claim("one", LEASE, 1, takeover=True),
        runs.renew("one", [running.id], LEASE),
        runs.request_cancel(PROJECT, running.id),
        runs.seize(running.id, 1, "two", LEASE),
        runs.release("one", running.id, 1),
        runs.settle(record_of(running), fence=1),
        runs.get(PROJECT, running.id),
        runs.waiting(),
    ):
        with pytest.raises(StoreUnavailable):
            await attempt
    names = ["create", "claim", "renew", "request_cancel", "seize", "release", "settle", "get", "waiting"]
    assert noted == [("run_create", False), *((f"run_{name}", True) for name in names)]
    server.start()
    assert await runs.renew("one", [running.id], LEASE) == {running.id: Held(1, cancelled=False)}
    assert await runs.settle(record_of(running), fence=1)


async def test_a_store_whose_connection_was_cut_goes_on(postgres_url: str) -> None:
    database, other = Database(postgres_url), Database(postgres_url)
    runs, running = SqlRunStore(database), run()
    await runs.create(running, "one", LEASE)
    cut = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
        "pg_backend_pid()"
    )
    await other.fetch(cut)
    await runs.create(run(), None, LEASE)
    await other.fetch(cut)
    assert await runs.settle(record_of(running), fence=1)
    await database.aclose()
    await other.aclose()


async def test_what_a_cut_connection_had_done_is_done_once(postgres_url: str) -> None:
    """The first try was committed or not, and others may have taken the run meanwhile: what is there decides."""
    database, other = Database(postgres_url), Database(postgres_url)
    runs = SqlRunStore(database)
    undone, done, lost, made, taken, fresh = (run() for _ in range(6))
    await asyncio.gather(*(runs.create(one, "one", LEASE) for one in (undone, done, lost)))
    theirs = msgspec.structs.replace(taken, request=b"theirs")
    async with asyncio.TaskGroup() as working, other.transaction() as blocking:
        await blocking.execute(text("LOCK TABLE runs IN SHARE MODE"))
        settling = [working.create_task(runs.settle(record_of(one), fence=1)) for one in (undone, done, lost)]
        creating = [working.create_task(_is_refused(runs.create(one, "one", LEASE))) for one in (made, taken, fresh)]
        while not await other.fetch(_CUT):
            continue
        await blocking.execute(runs_table.delete().where(runs_table.c.id == done.id))
        await blocking.execute(responses.insert(), msgspec.structs.asdict(record_of(done)))
        await blocking.execute(runs_table.update().where(runs_table.c.id == lost.id).values(fence=2, owner="two"))
        for one in (made, theirs):
            owned = {"due_at": 2**50, "owner": "one", "fence": 1, "cancelled": False}
            await blocking.execute(runs_table.insert(), {**msgspec.structs.asdict(one), **owned})
    assert [settle.result() for settle in settling] == [True, True, False]
    assert [create.result() for create in creating] == [False, True, False]
    assert set(await runs.renew("one", [one.id for one in (undone, done, made, fresh)], LEASE)) == {made.id, fresh.id}
    await database.aclose()
    await other.aclose()


async def _is_refused(work: Awaitable[None]) -> bool:
    try:
        await work
    except RecordRefused:
        return True
    return False
