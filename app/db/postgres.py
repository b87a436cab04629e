"""The group writer's connection to Postgres: asyncpg without SQLAlchemy, one prepared statement per table and group.

Each change is a statement of its own: its outcome decides what is inserted.

A row costs 6-10 µs of our CPU this way, compared with about 200 µs for a Core insert and 580 µs for an ORM session.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from itertools import compress
from typing import Any, Protocol, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it ships none; `_Connection` declares what is used
from sqlalchemy import Table
from sqlalchemy.dialects.postgresql.asyncpg import dialect as postgresql

from app.db.statements import compiled
from app.db.writer import REFUSALS, Change, DatabaseUnavailable, RowRefused, Rows, by_table

_DIALECT = postgresql()
CONNECT_SECONDS = 5.0
PAUSE_SECONDS = 0.1
"""Between two attempts to connect to a server that has no free connection."""
COMMAND_SECONDS = 15.0
"""After this time a statement is considered lost and the connection is replaced."""

_FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class _Connection(Protocol):
    async def execute(self, query: str, *args: Any) -> str: ...
    async def fetchval(self, query: str, *args: Any) -> Any: ...
    def transaction(self) -> AbstractAsyncContextManager[object]: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...
    async def close(self, *, timeout: float) -> None: ...  # noqa: ASYNC109 - asyncpg's signature


class PostgresSink:
    """Writes through one connection, opened when needed and replaced if lost."""

    def __init__(self, options: Mapping[str, Any], wait_seconds: float) -> None:
        """`options` are keyword arguments of `asyncpg.connect`.

        `wait_seconds`: how long to wait for a server without a free connection.
        """
        self._options = options
        self._wait = wait_seconds
        self._connection: _Connection | None = None

    @property
    def lost(self) -> bool:
        """The connection to the server is lost; asyncpg notices as soon as the socket closes."""
        return self._connection is not None and self._connection.is_closed()

    async def write(self, rows: Rows, changes: Sequence[Change] = (), *, again: bool = False) -> Sequence[bool]:
        """Write everything in one transaction; once more on a new connection if the first was lost."""
        if again:
            return await self._write_again(rows, changes)
        try:
            connection = await self._connected()
        except _FAILURES as error:
            raise DatabaseUnavailable(_words(error)) from error
        try:
            return await _write_all(connection, rows, changes)
        except _FAILURES as error:
            if _is_refusal(error):
                raise RowRefused(str(error)) from error
            connection.terminate()
            return await self._write_again(rows, changes)

    async def aclose(self) -> None:
        """Close the connection gracefully, or at once if the server does not respond."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=CONNECT_SECONDS)
        except _FAILURES:
            connection.terminate()

    async def _write_again(self, rows: Rows, changes: Sequence[Change]) -> Sequence[bool]:
        """After a lost connection it is unknown whether the rows were committed: what is there is ours if it is the
        same.
        """
        try:
            connection = await self._connected()
            async with connection.transaction():
                made = await _make_all(connection, changes)
                await _insert_missing(connection, _with_changes(rows, changes, made))
                return made
        except _FAILURES as error:
            if _is_refusal(error):
                raise RowRefused(str(error), again=True) from error
            if self._connection is not None:
                self._connection.terminate()
            raise DatabaseUnavailable(_words(error)) from error

    async def _connected(self) -> _Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        return self._connection

    async def _connect(self) -> _Connection:
        connect = cast("Callable[..., Awaitable[_Connection]]", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType] - as above
        deadline = time.monotonic() + self._wait
        while True:
            try:
                return await connect(**self._options, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS)
            except asyncpg.TooManyConnectionsError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(PAUSE_SECONDS)


async def _write_all(connection: _Connection, rows: Rows, changes: Sequence[Change]) -> Sequence[bool]:
    if _is_single(rows, changes):  # a single statement is a transaction; this saves two round trips
        return await _write_in(connection, rows, changes)
    async with connection.transaction():
        return await _write_in(connection, rows, changes)


async def _write_in(connection: _Connection, rows: Rows, changes: Sequence[Change]) -> Sequence[bool]:
    made = await _make_all(connection, changes)
    for table, values in _with_changes(rows, changes, made).items():
        await connection.execute(_insert(table), *zip(*values, strict=True))
    return made


async def _make_all(connection: _Connection, changes: Sequence[Change]) -> Sequence[bool]:
    """Make the changes; the server answers each with what it did and the number of rows."""
    statements = [compiled(change, _DIALECT) for change in changes]
    answers = [await connection.execute(text, *values) for text, values in statements]
    return [not answer.endswith(" 0") for answer in answers]


def _with_changes(rows: Rows, changes: Sequence[Change], made: Sequence[bool]) -> Rows:
    """The rows, and those of the changes that were made."""
    more = by_table(compress(changes, made))
    return {table: (*rows.get(table, ()), *more.get(table, ())) for table in (*rows, *more)} if more else rows


def _is_single(rows: Rows, changes: Sequence[Change]) -> bool:
    return len(rows) + sum(1 + len(change.rows) for change in changes) == 1


async def _insert_missing(connection: _Connection, rows: Rows) -> None:
    """Insert the rows that are not there. Raises RowRefused if one is there and differs."""
    for table, values in rows.items():
        columns = tuple(zip(*values, strict=True))
        await connection.execute(f"{_insert(table)} ON CONFLICT DO NOTHING", *columns)
        if await connection.fetchval(_differs(table), *columns):
            raise RowRefused(f"{table.name}: there is another row with the same key", again=True)


@cache
def _insert(table: Table) -> str:
    names = ", ".join(column.name for column in table.columns)
    return f"INSERT INTO {table.name} ({names}) SELECT * FROM {_sent(table)}"  # noqa: S608 - names from our own metadata


@cache
def _differs(table: Table) -> str:
    """Whether one of the rows is not in the table as it was sent."""
    names = [column.name for column in table.columns]
    keys = " AND ".join(f"there.{column.name} = sent.{column.name}" for column in table.primary_key)
    sent, there = (", ".join(f"{row}.{name}" for name in names) for row in ("sent", "there"))
    same = f"SELECT FROM {table.name} AS there WHERE {keys} AND ({there}) IS NOT DISTINCT FROM ({sent})"  # noqa: S608 - as above
    return f"SELECT EXISTS (SELECT FROM {_sent(table)} AS sent ({', '.join(names)}) WHERE NOT EXISTS ({same}))"  # noqa: S608 - as above


def _sent(table: Table) -> str:
    """The rows that are sent, one array per column."""
    kinds = [column.type.compile(_DIALECT) for column in table.columns]
    arrays = ", ".join(f"${number}::{kind.split('(')[0]}[]" for number, kind in enumerate(kinds, 1))
    return f"unnest({arrays})"


def _is_refusal(error: BaseException) -> bool:
    state = getattr(error, "sqlstate", None)
    return isinstance(error, ValueError | OverflowError) or (isinstance(state, str) and state.startswith(REFUSALS))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
