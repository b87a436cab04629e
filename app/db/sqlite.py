"""The group writer's connection to SQLite: in its own thread, so that no fsync ever blocks the event loop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from itertools import compress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Literal, NamedTuple

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite

from app.db.statements import compiled
from app.db.writer import Change, DatabaseUnavailable, RowRefused, Rows, by_table

_DIALECT = sqlite.dialect()
Synchronous = Literal["NORMAL", "FULL"]

_OWNER_ONLY = 0o600

BUSY_SECONDS = 5.0
"""How long a statement waits for another process's write lock."""

# Errors of sqlite3 for a value that fits no column: wrong type, integer beyond 64 bits, lone surrogate, duplicate key.
_REFUSALS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeError,
)


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
    """Create the file if missing, and make it accessible to its owner only.

    SQLite gives its WAL and shm files the same mode.
    """
    with suppress(FileExistsError):
        # an existing one is not opened: closing it would release this process's locks on it
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY))
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with suppress(FileNotFoundError, PermissionError):
            Path(name).chmod(_OWNER_ONLY)


class _Job(NamedTuple):
    """Work for the thread, and the future to resolve."""

    run: Callable[[], Sequence[bool]]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Sequence[bool]]

    def settle(self, outcome: Sequence[bool] | Exception) -> None:
        """Report the outcome; nobody may be waiting for it if the loop is being shut down."""
        if self.done.done():
            return
        if isinstance(outcome, Exception):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)


class SqliteSink:
    """Writes through one connection that lives in its own thread.

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

    async def write(self, rows: Rows, changes: Sequence[Change] = (), *, again: bool = False) -> Sequence[bool]:
        """Insert the rows and make the changes in one transaction."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="sqlite-writer", daemon=True)
            self._thread.start()
        return await self._do(lambda: self._write(rows, changes))

    async def aclose(self) -> None:
        """Close the connection and end the thread."""
        if self._thread is not None:
            await self._do(self._close)
            self._thread.join()
            self._thread = None

    async def _do(self, job: Callable[[], Sequence[bool]]) -> Sequence[bool]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Sequence[bool]] = loop.create_future()
        self._jobs.put(_Job(job, loop, done))
        return await done

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                outcome = job.run()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised in the caller
                outcome = error
            job.loop.call_soon_threadsafe(job.settle, outcome)
            if job.run == self._close:
                return

    def _close(self) -> Sequence[bool]:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        return ()

    def _write(self, rows: Rows, changes: Sequence[Change]) -> Sequence[bool]:
        try:
            connection = self._connection or self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                made = [_make(connection, change) for change in changes]
                _insert_all(connection, rows)
                _insert_all(connection, by_table(compress(changes, made)))
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except _REFUSALS as error:
            raise RowRefused(str(error)) from error
        except sqlite3.Error as error:
            raise DatabaseUnavailable(str(error)) from error
        return made

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        for pragma in pragmas(self._synchronous):
            connection.execute(pragma)
        self._connection = connection
        return connection


def _make(connection: sqlite3.Connection, change: Change) -> bool:
    return connection.execute(*compiled(change, _DIALECT)).rowcount > 0


def _insert_all(connection: sqlite3.Connection, rows: Rows) -> None:
    for table, values in rows.items():
        connection.executemany(_insert(table), values)


@cache
def _insert(table: Table) -> str:
    columns = ", ".join(column.name for column in table.columns)
    places = ", ".join("?" * len(table.columns))
    return f"INSERT INTO {table.name} ({columns}) VALUES ({places})"  # noqa: S608 - names from our own metadata
