"""The group writer's connection to SQLite: a thread of its own, so that no fsync ever stops the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal

from sqlalchemy import Table

from app.db.writer import DatabaseUnavailable, RowRefused, Rows

Synchronous = Literal["NORMAL", "FULL"]

BUSY_SECONDS = 5.0
"""How long a statement waits for another process's write lock."""

# How sqlite3 says that a value fits no column: wrong type, integer beyond 64 bits, lone surrogate, used key.
_REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError, UnicodeError)


def pragmas(synchronous: Synchronous) -> tuple[str, ...]:
    """What every connection says first: readers beside one writer, and foreign keys enforced."""
    return (
        f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}",
        "PRAGMA journal_mode = WAL",
        f"PRAGMA synchronous = {synchronous}",
        "PRAGMA foreign_keys = ON",
    )


class SqliteSink:
    """Inserts through one connection that lives in one thread."""

    def __init__(self, path: str, synchronous: Synchronous) -> None:
        self._path = path
        self._synchronous: Synchronous = synchronous
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite-writer")
        self._connection: sqlite3.Connection | None = None

    async def write(self, rows: Rows) -> None:
        """Insert all rows in one transaction."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, rows)

    async def aclose(self) -> None:
        """Close the connection in its thread, then end the thread."""
        if self._connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
            self._connection = None
        self._thread.shutdown(wait=False)

    def _write(self, rows: Rows) -> None:
        try:
            connection = self._connection or self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                for table, values in rows.items():
                    connection.executemany(_insert(table), values)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except _REFUSALS as error:
            raise RowRefused(str(error)) from error
        except sqlite3.Error as error:
            raise DatabaseUnavailable(str(error)) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        for pragma in pragmas(self._synchronous):
            connection.execute(pragma)
        self._connection = connection
        return connection


@cache
def _insert(table: Table) -> str:
    columns = ", ".join(column.name for column in table.columns)
    places = ", ".join("?" * len(table.columns))
    return f"INSERT INTO {table.name} ({columns}) VALUES ({places})"  # noqa: S608 - names from our own metadata
