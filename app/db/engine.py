"""One database: from its URL, an engine for reads and transactions, and the group writer."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Engine, Executable, RowMapping, Text, column, create_engine, event, select, table
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from app.db.sqlite import SqliteSink, Synchronous, pragmas
from app.db.sqlite_reader import THREADS, SqliteReader
from app.db.write_check import WriteCheck
from app.db.writer import REFUSALS, DatabaseUnavailable, GroupWriter, RowRefused, Sink

Dialect = Literal["sqlite", "postgresql"]

_DRIVERS: Mapping[str, str] = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}

# Options that SQLAlchemy's adapter consumes itself; all others are passed to asyncpg.
_ADAPTER_OPTIONS = ("prepared_statement_cache_size", "prepared_statement_name_func", "async_creator_fn")

_CONNECT_SECONDS = 5
_COMMAND_SECONDS = 15
_PAUSE_SECONDS = 0.05
_TOO_MANY_CONNECTIONS = "53300"
"""SQLSTATE of Postgres when it has no free connection slots."""
_VERSION = select(column("version_num", Text)).select_from(table("alembic_version"))


class Pool(NamedTuple):
    """The connections of one process, in addition to the group writer's own."""

    size: int = 20
    wait_seconds: float = 30.0
    """How long a caller waits for a connection if all are in use or the server has none left."""


class Database:
    """Safe to use concurrently. Connections are opened when first needed."""

    def __init__(self, url: str, *, synchronous: Synchronous = "NORMAL", pool: Pool = Pool()) -> None:  # noqa: B008 - immutable
        """Raises ValueError for a URL that is neither a SQLite file nor Postgres."""
        self.url = parse_url(url)
        self.dialect: Dialect = "sqlite" if self.url.drivername.startswith("sqlite") else "postgresql"
        self._wait = pool.wait_seconds
        self._engine = _engine(self.url, self.dialect, synchronous, pool)
        self._reader = _reader(self.url, synchronous) if self.dialect == "sqlite" else None
        level = "SERIALIZABLE" if self.dialect == "sqlite" else "READ COMMITTED"
        self._transactions = self._engine.execution_options(isolation_level=level)
        self._turn = asyncio.Lock()
        self.writer = GroupWriter(_sink(self.url, self._engine, synchronous, pool.wait_seconds))
        self.check_write = WriteCheck(self.writer, self.url.database if self.embedded else None)
        """Raises DatabaseUnavailable if nothing can be written."""

    async def fetch(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Sequence[RowMapping]:
        """All rows of a read, in autocommit; retried if a pooled connection turns out to be dead.

        Text that contains NUL, which Postgres cannot store, matches nothing. A change may be fetched, too, if it does
        no harm when made twice. Raises DatabaseUnavailable, and RowRefused for a value that fits no column.
        """
        if parameters is not None and any(isinstance(value, str) and "\0" in value for value in parameters.values()):
            return ()
        with _failures():
            try:
                return await self._fetch(statement, parameters)
            except DBAPIError as error:
                if not (error.connection_invalidated or _is_full(error)):
                    raise
            async with AsyncExitStack() as stack:
                connection = await self._connect(stack, self._engine)
                return (await connection.execute(statement, parameters)).mappings().all()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction, committed at the end of the block. On SQLite it holds the write lock from the beginning.

        Transactions of this process on SQLite take turns. Raises DatabaseUnavailable, and RowRefused for a row that is
        never accepted.
        """
        with _failures():
            async with AsyncExitStack() as stack:
                if self.embedded:
                    await self._take_turn(stack)
                connection = await self._connect(stack, self._transactions)
                await stack.enter_async_context(connection.begin())
                yield connection

    @property
    def connections(self) -> tuple[int, int]:
        """The number of connections in use, and the number of open idle ones."""
        pool = self._engine.pool
        return (pool.checkedout(), pool.checkedin()) if isinstance(pool, QueuePool) else (0, 0)

    @property
    def embedded(self) -> bool:
        """The database is a local file, not a server."""
        return self.dialect == "sqlite"

    async def revision(self) -> str | None:
        """The database's migration revision; None if it has no schema. Raises DatabaseUnavailable."""
        if self.embedded and not os.path.exists(self.url.database or ""):  # noqa: ASYNC240, PTH110 - checked once, before there is any load
            return None
        with _failures():
            async with self._engine.connect() as connection:
                return await connection.run_sync(_revision)

    async def aclose(self) -> None:
        """Write what is pending, then close every connection."""
        await self.writer.aclose()
        if self._reader is not None:
            self._reader.close()
        await self._engine.dispose()

    async def _take_turn(self, stack: AsyncExitStack) -> None:
        """Wait here for SQLite's only write lock: in the driver many waiters would poll for it, and so starve the group
        writer.
        """
        try:
            async with asyncio.timeout(self._wait):
                await stack.enter_async_context(self._turn)
        except TimeoutError as error:
            raise DatabaseUnavailable("the database is busy") from error

    async def _connect(self, stack: AsyncExitStack, engine: AsyncEngine) -> AsyncConnection:
        """A connection that is returned with the stack; waits for a server that has no free connection."""
        deadline = time.monotonic() + self._wait
        while True:
            try:
                return await stack.enter_async_context(engine.connect())
            except DBAPIError as error:
                if not _is_full(error) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _fetch(self, statement: Executable, parameters: Mapping[str, Any] | None) -> Sequence[RowMapping]:
        if self._reader is not None:
            return await self._reader.fetch(statement, parameters)
        async with self._engine.connect() as connection:
            return (await connection.execute(statement, parameters)).mappings().all()


def parse_url(url: str) -> URL:
    """The URL with the driver that the gateway uses. Raises ValueError."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError(
            "the database URL must have the form `sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`"
        ) from error
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ValueError(
            f"unsupported database: {parsed.drivername}; use `sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`"
        )
    if driver.startswith("sqlite") and parsed.database in {None, "", ":memory:"}:
        raise ValueError("SQLite needs a file: its connections share no data otherwise")
    return parsed.set(drivername=driver)


def _engine(url: URL, dialect: Dialect, synchronous: Synchronous, pool: Pool) -> AsyncEngine:
    # A server that hangs must cause an error, not a request that waits forever.
    limits = {} if dialect == "sqlite" else {"timeout": _CONNECT_SECONDS, "command_timeout": _COMMAND_SECONDS}
    engine = create_async_engine(
        url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,
        pool_size=pool.size,
        max_overflow=0,
        pool_timeout=pool.wait_seconds,
        connect_args=limits,
    )
    if dialect == "sqlite":
        _set_pragmas(engine.sync_engine, synchronous)
        event.listen(engine.sync_engine, "begin", _lock_at_begin)
    return engine


def _reader(url: URL, synchronous: Synchronous) -> SqliteReader:
    file = Path(str(url.database)).absolute().as_uri()
    engine = create_engine(
        url.set(drivername="sqlite"),
        # A file that was deleted must not come back, empty: it would hide the loss.
        creator=lambda: sqlite3.connect(f"{file}?mode=rw", uri=True, check_same_thread=False),
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,
        pool_size=THREADS,
        max_overflow=0,
    )
    _set_pragmas(engine, synchronous)
    return SqliteReader(engine)


def _set_pragmas(engine: Engine, synchronous: Synchronous) -> None:
    def set_pragmas(connection: DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        for pragma in pragmas(synchronous):
            cursor.execute(pragma)
        cursor.close()

    event.listen(engine, "connect", set_pragmas)


def _lock_at_begin(connection: Connection) -> None:
    """Take SQLite's write lock first: a read that is upgraded to a write later would fail instead of waiting.

    Autocommit reads pass.
    """
    if "isolation_level" in connection.get_execution_options():
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _revision(connection: Connection) -> str | None:
    known = connection.dialect.has_table(connection, "alembic_version")
    return connection.execute(_VERSION).scalar() if known else None


@contextmanager
def _failures() -> Generator[None]:
    """Convert all database errors to one; without the statement, whose values are client data."""
    try:
        yield
    except DBAPIError as error:
        raise (RowRefused if _is_refused(error) else DatabaseUnavailable)(str(error.orig)) from error
    except (OverflowError, UnicodeError) as error:  # from sqlite3, for a value that fits no column
        raise RowRefused(str(error)) from error
    except (SQLAlchemyError, OSError) as error:
        raise DatabaseUnavailable(str(error)) from error


def _is_refused(error: DBAPIError) -> bool:
    """Whether it would recur on every retry.

    Asyncpg reports a value that fits no column by a ValueError, without asking the server.
    """
    state = getattr(error.orig, "sqlstate", None)
    refused = isinstance(error, IntegrityError) or isinstance(getattr(error.orig, "__cause__", None), ValueError)
    return refused or (isinstance(state, str) and state.startswith(REFUSALS))


def _is_full(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == _TOO_MANY_CONNECTIONS


def _sink(url: URL, engine: AsyncEngine, synchronous: Synchronous, wait_seconds: float) -> Sink:
    if url.drivername.startswith("sqlite"):
        return SqliteSink(str(url.database), synchronous)
    from app.db.postgres import PostgresSink  # noqa: PLC0415 - asyncpg uses memory; imported only where it is used

    options = engine.dialect.create_connect_args(url)[1]
    return PostgresSink({name: value for name, value in options.items() if name not in _ADAPTER_OPTIONS}, wait_seconds)
