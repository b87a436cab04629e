"""Purging with several replicas, and what it costs with many rows."""

from __future__ import annotations

import asyncio

import msgspec
from sqlalchemy import text

from app.db.engine import Database
from app.stores.sql import SqlResponseStore
from tests.stores.records import LIFE, PROJECT, turn


async def test_two_replicas_remove_each_record_once(database_url: str) -> None:
    one, two = Database(database_url), Database(database_url)
    stores = [SqlResponseStore(database, retention_seconds=LIFE) for database in (one, two)]
    expired = [turn(str(number)) for number in range(60)]
    living = [turn("child", after=parent, at=10) for parent in expired]
    await asyncio.gather(*(stores[0].save(record) for record in [*expired, *living]))
    removed = 0
    while await stores[0].count_expired(LIFE):
        removed += sum(await asyncio.gather(*(store.purge(LIFE, limit=7) for store in stores)))
    assert removed == 60
    for parent, child in zip(expired, living, strict=True):
        chain = await stores[1].chain(PROJECT, child.id, LIFE)
        assert chain is not None
        assert len(chain) == 1
        inherited = [*msgspec.json.decode(parent.input), *msgspec.json.decode(parent.response)["output"]]
        assert msgspec.json.decode(chain[0].inherited or b"") == inherited
    await one.aclose()
    await two.aclose()


async def test_a_replica_that_finds_another_at_work_does_nothing(postgres_url: str) -> None:
    one, two = Database(postgres_url), Database(postgres_url)
    store = SqlResponseStore(one, retention_seconds=LIFE)
    await store.save(turn("old"))
    await store.purge(0, limit=1)
    async with two.transaction() as working:
        await working.execute(text("SELECT pg_advisory_xact_lock(7305112905)"))
        assert await store.purge(LIFE, limit=10) == 0
    assert await store.purge(LIFE, limit=10) == 1
    await one.aclose()
    await two.aclose()


async def test_a_parent_is_kept_for_runs_that_began_while_it_lived(database: Database) -> None:
    store = SqlResponseStore(database, retention_seconds=LIFE, grace_seconds=100)
    parent = turn("parent")
    await store.save(parent)
    assert await store.purge(LIFE + 99, limit=10) == 0
    assert await store.get(PROJECT, parent.id, LIFE + 99) is None
    child = turn("child", after=parent, at=LIFE - 1)
    await store.save(child)
    assert await store.purge(LIFE + 100, limit=10) == 1
    chain = await store.chain(PROJECT, child.id, LIFE + 100)
    assert chain is not None
    assert b"parent" in (chain[0].inherited or b"")


async def test_purging_reads_only_what_it_removes(postgres_url: str) -> None:
    database = Database(postgres_url)
    store = SqlResponseStore(database, retention_seconds=LIFE)
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO responses SELECT lpad(i::text, 36, '0'), 'p', lpad((i - 1)::text, 36, '0'), i, i + 10, "
                "NULL, 'completed', 'qwen', '{\"output\":[]}', '[]', NULL, NULL FROM generate_series(1, 20000) i"
            )
        )
    async with database.transaction() as connection:
        await connection.execute(text("ANALYZE responses"))
    assert await store.purge(100_000, limit=500) == 500
    assert await _scanned(database) == 0
    await database.fetch(text("SELECT max(model) FROM responses"))
    assert await _scanned(database) == 19_500
    await database.aclose()


async def _scanned(database: Database) -> int:
    """Rows of `responses` read without an index so far."""
    await database.fetch(text("SELECT pg_stat_force_next_flush()"))
    return (
        await database.fetch(text("SELECT seq_tup_read AS rows FROM pg_stat_user_tables WHERE relname = 'responses'"))
    )[0]["rows"]
