"""The group writer's connection to SQLite: in its own thread, so that no fsync ever blocks the event loop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Literal, NamedTuple

from sqlalchemy import Table

from app.db.writer import DatabaseUnavailable, RowRefused, Rows

Synchronous = Literal["NORMAL", "FULL"]

_OWNER_ONLY = 0o600

BUSY_SECONDS = 5.0
"""How long a statement waits for another process's write lock."""

# Errors of sqlite3 for a value that fits no column: wrong type, integer beyond 64 bits, lone surrogate, duplicate key.
_REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError, UnicodeError)


def pragmas(synchronous: Synchronous) -> tuple[str, ...]:
    """The pragmas of every connection: readers beside one writer, and enforced foreign keys."""
    return (
        f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}",
        "PRAGMA journal_mode = WAL",
        f"PRAGMA synchronous = {synchronous}",
        "PRAGMA foreign_keys = ON",
        "PRAGMA secure_delete = ON",  # deleted data is overwritten, whatever the library's build options
    )


def make_private(path: str) -> None:
    """Create the file if missing, and make it accessible to its owner only. SQLite gives its WAL and shm files the same mode."""
    with suppress(FileExistsError):  # an existing one is not opened: closing it would release this process's locks on it
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY))
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(FileNotFoundError, PermissionError):
            Path(name).chmod(_OWNER_ONLY)


class _Job(NamedTuple):
    """Work for the thread, and the future to resolve."""

    run: Callable[[], None]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]

    def settle(self, failure: Exception | None) -> None:
        """Report the outcome; nobody may be waiting for it if the loop is being shut down."""
        if self.done.done():
            return
        if failure is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(failure)


class SqliteSink:
    """Inserts through one connection that lives in its own thread.

    The thread loops over a queue: an executor's futures and work items cost a third of a single row's CPU time.
    """

    def __init__(self, path: str, synchronous: Synchronous) -> None:
        self._path = path
        self._synchronous: Synchronous = synchronous
        self._connection: sqlite3.Connection | None = None
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._thread: Thread | None = None

    @property
    def lost(self) -> bool:
        """Never: a file has no connection that could be lost."""
        return False

    async def write(self, rows: Rows, *, again: bool = False) -> None:
        """Insert all rows in one transaction."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="sqlite-writer", daemon=True)
            self._thread.start()
        await self._do(lambda: self._write(rows))

    async def aclose(self) -> None:
        """Close the connection and end the thread."""
        if self._thread is not None:
            await self._do(self._close)
            self._thread.join()
            self._thread = None

    async def _do(self, job: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._jobs.put(_Job(job, loop, done))
        await done

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            failure: Exception | None = None
            try:
                job.run()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised in the caller
                failure = error
            job.loop.call_soon_threadsafe(job.settle, failure)
            if job.run == self._close:
                return

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

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
