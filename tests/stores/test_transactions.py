"""Transactions of one process on SQLite, which has one writer."""

from __future__ import annotations

import asyncio

import pytest

from app.db.engine import Database, Pool
from app.stores.ports.errors import StoreUnavailable
from app.stores.sql import SqlResponseStore
from tests.stores.records import LIFE, PROJECT, turn


async def test_transactions_on_sqlite_take_turns(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    store, done = SqlResponseStore(database, retention_seconds=LIFE), list[int]()

    async def delete(number: int) -> None:
        record = turn(str(number))
        await store.save(record)
        assert await store.delete(PROJECT, record.id, now=1)
        done.append(number)

    await asyncio.gather(*(delete(number) for number in range(100)))
    assert done == list(range(100))  # nobody was overtaken, as happens to those who poll for the lock
    await database.aclose()


async def test_who_waits_too_long_for_a_turn_is_told(sqlite_url: str) -> None:
    database = Database(sqlite_url, pool=Pool(wait_seconds=0.01))
    store, record = SqlResponseStore(database, retention_seconds=LIFE), turn("deleted")
    await store.save(record)
    async with database.transaction():
        with pytest.raises(StoreUnavailable, match="busy"):
            await store.delete(PROJECT, record.id, now=1)
    assert await store.delete(PROJECT, record.id, now=1)
    await database.aclose()
