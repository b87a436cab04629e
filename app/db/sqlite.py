"""The group writer's connection to SQLite: a thread of its own, so that no fsync ever stops the event loop."""

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

# How sqlite3 says that a value fits no column: wrong type, integer beyond 64 bits, lone surrogate, used key.
_REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError, UnicodeError)


def pragmas(synchronous: Synchronous) -> tuple[str, ...]:
    """What every connection says first: readers beside one writer, and foreign keys enforced."""
    return (
        f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}",
        "PRAGMA journal_mode = WAL",
        f"PRAGMA synchronous = {synchronous}",
        "PRAGMA foreign_keys = ON",
        "PRAGMA secure_delete = ON",  # what is deleted is overwritten, however the library was built
    )


def make_private(path: str) -> None:
    """Make the file where there is none, and take it from everybody but its owner. SQLite gives its log and index the same mode."""
    with suppress(FileExistsError):  # one that is there is not opened: closing it would end this process's locks on it
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY))
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(FileNotFoundError, PermissionError):
            Path(name).chmod(_OWNER_ONLY)


class _Job(NamedTuple):
    """What the thread shall do, and whom to tell."""

    run: Callable[[], None]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]

    def settle(self, failure: Exception | None) -> None:
        """Say how it went; nobody may be left to hear it, when the loop is being shut down."""
        if self.done.done():
            return
        if failure is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(failure)


class SqliteSink:
    """Inserts through one connection that lives in one thread.

    The thread is a loop over a queue: an executor's futures and work items cost a third of a lone row's CPU.
    """

    def __init__(self, path: str, synchronous: Synchronous) -> None:
        self._path = path
        self._synchronous: Synchronous = synchronous
        self._connection: sqlite3.Connection | None = None
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._thread: Thread | None = None

    @property
    def lost(self) -> bool:
        """Never: a file has no connection to lose."""
        return False

    async def write(self, rows: Rows) -> None:
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
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the job came from
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
