"""Transactions of one process on SQLite, which has one writer."""

from __future__ import annotations

import asyncio

import pytest

from app.db.engine import Database, Pool
from app.stores.ports.errors import StoreUnavailable
from app.stores.sql_runs import SqlRunStore
from tests.stores.records import LEASE, run


async def test_transactions_on_sqlite_take_turns(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    runs, done = SqlRunStore(database), list[int]()

    async def create(number: int) -> None:
        await runs.create(run(), None, LEASE)
        done.append(number)

    await asyncio.gather(*(create(number) for number in range(100)))
    assert done == list(range(100))  # nobody was overtaken, as happens to those who poll for the lock
    await database.aclose()


async def test_who_waits_too_long_for_a_turn_is_told(sqlite_url: str) -> None:
    database = Database(sqlite_url, pool=Pool(wait_seconds=0.01))
    runs = SqlRunStore(database)
    async with database.transaction():
        with pytest.raises(StoreUnavailable, match="busy"):
            await runs.create(run(), None, LEASE)
    await runs.create(run(), None, LEASE)
    await database.aclose()
