"""One writer per database: the rows and changes of all waiting callers go into one transaction, without a timer.

While one group is being written the next one collects, so groups grow with the load and a single row is written at
once. See `docs/adr/0004-group-writer.md` for the figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Delete, Insert, Table

Row = tuple[Table, tuple[Any, ...]]
"""A table and the values of all its columns, in the table's order."""

Rows = Mapping[Table, Sequence[tuple[Any, ...]]]
"""The rows of a group, parents before children."""


class Change(NamedTuple):
    """A statement that changes one row, or none if its condition is not met; and rows that are inserted if it did."""

    key: str
    """Of the row. Whoever locks several rows does so in the order of their keys, so that nobody waits in a circle."""
    statement: Insert | Delete
    parameters: Mapping[str, Any]
    rows: Sequence[Row] = ()


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
    """One connection that only writes."""

    async def write(self, rows: Rows, changes: Sequence[Change] = (), *, again: bool = False) -> Sequence[bool]:
        """Insert the rows and make the changes in one transaction, or nothing; whether each change was made.

        `again`: rows may be there from an earlier try. That is no refusal, unless they differ; a change that was made
        then is not made again. Raises RowRefused and DatabaseUnavailable.
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

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: Exception | bool = True) -> None:  # noqa: FBT001, FBT002 - an outcome, not a flag
        if self.done.done():  # the caller was cancelled
            return
        if isinstance(outcome, Exception):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)


class _Changing(_Waiting):
    """A change and the caller waiting for it."""

    __slots__ = ("change",)

    def __init__(self, change: Change) -> None:
        super().__init__(())
        self.change = change


_KEY = attrgetter("change.key")


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
        await self._gather(_Waiting(rows))

    async def insert_each(self, rows: Sequence[Row]) -> Sequence[BaseException | None]:
        """Insert rows that do not belong together; the outcome of each: None, or what `insert` would have raised.

        All at once, and one by one only if the database refuses any of them.
        """
        try:
            await self.insert(*rows)
        except DatabaseUnavailable as error:
            return [error] * len(rows)
        except RowRefused as refusal:
            if len(rows) == 1:
                return [refusal]
        else:
            return [None] * len(rows)
        outcomes = await asyncio.gather(*(self.insert(row) for row in rows), return_exceptions=True)
        return [outcome if isinstance(outcome, BaseException) else None for outcome in outcomes]

    async def change(self, change: Change) -> bool:
        """Make the change, if its condition is met; committed when this returns. False: nothing was written.

        After a lost connection it is tried again, so that False may also mean that it was made.
        Raises as `insert` does.
        """
        return await self._gather(_Changing(change))

    async def aclose(self) -> None:
        """Write what is pending, then close."""
        self._closed = True
        if self._flusher is not None:
            await self._flusher
        await self._sink.aclose()

    def _gather(self, waiting: _Waiting) -> asyncio.Future[bool]:
        """Add it to the next group."""
        if self._closed:
            waiting.settle(DatabaseUnavailable("the database is closed"))
            return waiting.done
        self._gathering.append(waiting)
        if self._flusher is None:
            # A task, since a group belongs to many callers: awaited by one of them it would be cancelled together with
            # that one.
            self._flusher = asyncio.create_task(self._flush())  # noqa: TID251 - the reason is above
        return waiting.done

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
        changing = [one for one in group if isinstance(one, _Changing)]
        changing.sort(key=_KEY)
        try:
            made = await self._sink.write(by_table(group), [one.change for one in changing], again=again)
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
            for one, outcome in zip(changing, made, strict=True):
                one.settle(outcome)
            for one in group:  # the others
                one.settle()


def by_table(units: Iterable[_Waiting | Change]) -> dict[Table, list[tuple[Any, ...]]]:
    """The rows of all units, in the order in which they come."""
    rows: dict[Table, list[tuple[Any, ...]]] = {}
    for unit in units:
        for table, values in unit.rows:
            if table in rows:
                rows[table].append(values)
            else:
                rows[table] = [values]
    return rows
