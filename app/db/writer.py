"""One writer per database: the rows of all waiting callers go into one transaction, without a timer.

While one group is being written the next one collects, so groups grow with the load and a single row is written at once.
See `docs/adr/0004-group-writer.md` for the figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Table

Row = tuple[Table, tuple[Any, ...]]
"""A table and the values of all its columns, in the table's order."""

Rows = Mapping[Table, Sequence[tuple[Any, ...]]]
"""The rows of a group, parents before children."""


REFUSALS = ("22", "23", "54")
"""SQLSTATE classes of errors that would recur on every retry: data, integrity, a server limit (index row too large)."""


class DatabaseUnavailable(Exception):
    """The database cannot be reached or does not work; the same call may succeed later."""


class RowRefused(Exception):
    """The database will never accept this row: its key exists, or a value does not fit its column."""

    def __init__(self, why: str, *, again: bool = False) -> None:
        """`again`: it was a second try, so that other rows of the group may be there from the first one."""
        super().__init__(why)
        self.again = again


class Sink(Protocol):
    """One connection that only inserts."""

    async def write(self, rows: Rows, *, again: bool = False) -> None:
        """Insert all rows in one transaction, or none. Raises RowRefused and DatabaseUnavailable.

        `again`: they may be there from an earlier try. That is no refusal, unless they differ.
        """
        ...

    @property
    def lost(self) -> bool:
        """The connection has been closed by the server."""
        ...

    async def aclose(self) -> None:
        """Close the connection."""
        ...


class _Waiting:
    """Rows that belong together and the caller waiting for them."""

    __slots__ = ("done", "rows")

    def __init__(self, rows: Sequence[Row], done: asyncio.Future[None]) -> None:
        self.rows = rows
        self.done = done

    def settle(self, error: Exception | None = None) -> None:
        if self.done.done():  # the caller was cancelled
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class GroupWriter:
    """Collects rows into groups and hands them to the sink, one group at a time."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._gathering: list[_Waiting] = []
        self._flusher: asyncio.Task[None] | None = None
        self._closed = False
        self._failed = False

    @property
    def doubtful(self) -> bool:
        """The last group was not written, or the connection has been lost since: the next write may fail, too."""
        return self._failed or self._sink.lost

    async def insert(self, *rows: Row) -> None:
        """Insert the rows, all or none; committed when this returns.

        Raises RowRefused, and DatabaseUnavailable. A cancelled caller's rows may or may not be written.
        """
        await self._gather(rows)

    async def insert_each(self, rows: Sequence[Row]) -> Sequence[BaseException | None]:
        """Insert rows that do not belong together, in one group; the outcome of each: None, or what `insert` would have raised."""
        return await asyncio.gather(*(self._gather((row,)) for row in rows), return_exceptions=True)

    async def aclose(self) -> None:
        """Write what is pending, then close."""
        self._closed = True
        if self._flusher is not None:
            await self._flusher
        await self._sink.aclose()

    def _gather(self, rows: Sequence[Row]) -> asyncio.Future[None]:
        """Add the rows to the next group."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed:
            done.set_exception(DatabaseUnavailable("the database is closed"))
            return done
        self._gathering.append(_Waiting(rows, done))
        if self._flusher is None:
            # A task, since a group belongs to many callers: awaited by one of them it would be cancelled together with that one.
            self._flusher = asyncio.create_task(self._flush())  # noqa: TID251 - the reason is above
        return done

    async def _flush(self) -> None:
        group: list[_Waiting] = []
        try:
            while self._gathering:
                group, self._gathering = self._gathering, []
                await self._write(group)
        finally:
            self._flusher = None
            for one in (*group, *self._gathering):  # empty unless this task was cancelled or failed
                one.settle(DatabaseUnavailable("the writer was stopped"))
            self._gathering = []

    async def _write(self, group: Sequence[_Waiting], *, again: bool = False) -> None:
        try:
            await self._sink.write(_by_table(group), again=again)
        except RowRefused as refusal:
            if len(group) == 1:
                group[0].settle(refusal)
                return
            for one in group:  # one row is bad: write each separately, so that the others are kept
                await self._write([one], again=refusal.again)
        except DatabaseUnavailable as error:
            self._failed = True
            for one in group:
                one.settle(DatabaseUnavailable(str(error)))
        else:
            self._failed = False
            for one in group:
                one.settle()


def _by_table(group: Sequence[_Waiting]) -> Rows:
    rows: dict[Table, list[tuple[Any, ...]]] = {}
    for one in group:
        for table, values in one.rows:
            if table in rows:
                rows[table].append(values)
            else:
                rows[table] = [values]
    return rows
