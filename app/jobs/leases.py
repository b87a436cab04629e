"""Rows that belong to a worker for a time: how they are claimed, renewed and released, whatever the work is.

A table of such rows has two columns. `owner` is who works on the row; null: nobody does. `due_at`, in milliseconds of
the database's own clock, is until when it belongs to its owner; without one, from when on it can be claimed (null:
never). A worker may sleep longer than its lease without knowing. So whatever it writes is conditional on its claim, in
the same transaction: on the owner, if each claim has a name of its own, or on a fence, a number that grows with each.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, ColumnElement, Select, Table, Update, bindparam, or_, select, tuple_, update

from app.db.clock import now_ms


class Leases:
    """The statements for one table. Parameters: `new_owner` and `lease` (see `lease`), `takeover`, `pause` (ms)."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.queue = table.alias("queue").c
        """The rows from which to choose what to claim."""
        self.is_due = (
            self.queue.due_at <= now_ms(),
            or_(self.queue.owner.is_(None), bindparam("takeover", type_=Boolean)),
        )
        """Can be claimed: waits, or, if `takeover`, belonged to an owner whose lease is over."""
        self.owned: dict[str, Any] = {
            "owner": bindparam("new_owner"),
            "due_at": now_ms() + bindparam("lease", type_=BigInteger),
        }
        """The values of a row that has been claimed."""

    def claim(self, chosen: Select[*tuple[Any, ...]], **values: Any) -> Update:
        """Own the rows whose keys are chosen from the queue, except those that others are claiming just now."""
        # SQLite has no row locks and needs none: it has one writer. Postgres may evaluate a plain subquery several
        # times, locking other rows each time.
        keys = chosen.with_for_update(skip_locked=True).cte("next")
        return self.take(tuple_(*self._table.primary_key).in_(select(keys)), **values)

    def take(self, *which: ColumnElement[bool], **values: Any) -> Update:
        """Own these rows, whoever had them."""
        return update(self._table).where(*which).values(**self.owned, **values)

    def renew(self, *which: ColumnElement[bool]) -> Update:
        """Extend the lease of these rows."""
        return update(self._table).where(*which).values(due_at=self.owned["due_at"])

    def release(self, *which: ColumnElement[bool], **values: Any) -> Update:
        """Give these rows back: anybody may claim them after the pause."""
        due_at = now_ms() + bindparam("pause", type_=BigInteger)
        return update(self._table).where(*which).values(owner=None, due_at=due_at, **values)


def lease(owner: str, seconds: float) -> dict[str, Any]:
    """The parameters of a claim."""
    return {"new_owner": owner, "lease": milliseconds(seconds)}


def milliseconds(seconds: float) -> int:
    """As the database's clock counts."""
    return int(seconds * 1000)
