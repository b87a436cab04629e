"""Responses in SQLite or Postgres: one row per turn, written in groups, read with Core statements that are built
once.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    RowMapping,
    and_,
    bindparam,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.tables import event_batches, foreign_items, responses, runs
from app.db.writer import Change, DatabaseUnavailable, Row, RowRefused
from app.stores.lineage import concatenate, items_of, merged, purged_above
from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.responses import AncestorDeleted, Lineage, RecordRefused, ResponseRecord, Turn
from app.stores.turns import UNLOCK, rows_of_turn

# A longer id does not fit Postgres' index and is not worth one; such an item just cannot be referenced.
_MAX_ITEM_ID = 512

# An arbitrary number that nothing else uses: one replica purges at a time.
_PURGE_LOCK = 7_305_112_905

_r = responses.c
_OWN = (_r.id == bindparam("wanted"), _r.project_id == bindparam("owner"))
_ALIVE = (_r.expires_at > bindparam("now"), _r.deleted_at.is_(None))

_GET = select(
    _r.id,
    _r.project_id,
    _r.previous_id,
    _r.created_at,
    _r.expires_at,
    _r.status,
    _r.model,
    _r.response,
    _r.input,
    _r.cuts,
    _r.inherited,
    _r.exchanges,
).where(*_OWN, *_ALIVE)


def _chain_with(*columns: ColumnElement[Any]) -> CTE:
    """The turns from an existing tip up to the root or to the first tombstone, with these columns of each."""
    link = (_r.id, _r.previous_id, _r.project_id, _r.deleted_at, *columns)
    tip = select(*link, literal(0).label("depth")).where(*_OWN, *_ALIVE).cte("chain", recursive=True)
    above = select(*link, tip.c.depth + 1).join_from(responses, tip, _r.id == tip.c.previous_id)
    return tip.union_all(above.where(_r.project_id == tip.c.project_id, tip.c.deleted_at.is_(None)))


_CHAIN = select(_chain_with(_r.input, _r.response, _r.inherited, _r.exchanges))
_links = _chain_with()
_turns = responses.alias("turns")
_IS_NEW = _links.c.depth < bindparam("newest", type_=Integer)
_LINEAGE = select(
    _links.c.id,
    _links.c.deleted_at,
    _links.c.depth,
    _turns.c.input,
    _turns.c.response,
    _turns.c.inherited,
    _turns.c.exchanges,
).join_from(_links, _turns, and_(_IS_NEW, _turns.c.id == _links.c.id), isouter=True)
_CONTINUABLE = select(func.count().label("turns"), func.count(_links.c.deleted_at).label("tombstones")).select_from(
    _links
)

_ENDED = select(_r.id).where(*_OWN)
_STORED = select(_r.id).where(*_OWN, _r.status == bindparam("status"), _r.response == bindparam("body"))

_LOCATE = (
    select(_r.id)
    .join_from(foreign_items, responses, foreign_items.c.response_id == _r.id)
    .where(foreign_items.c.project_id == bindparam("owner"), foreign_items.c.item_id == bindparam("item"), *_ALIVE)
    .order_by(_r.created_at.desc(), _r.id.desc())
    .limit(1)
)

_BURY = (
    update(responses)
    .where(*_OWN, *_ALIVE)
    .values(
        deleted_at=bindparam("now"),
        expires_at=bindparam("until"),
        response=b"",
        input=b"",
        cuts=None,
        inherited=None,
        exchanges=None,
    )
)

_COUNT_EXPIRED = select(func.count().label("expired")).where(_r.expires_at <= bindparam("now"))

# A tombstone stays as long as anything follows it, whatever its expiry.
# What a run continues stays as long as the run, which may wait for hours.
_child = responses.alias("child")
_EXPIRED = (
    select(_r.id, _r.previous_id)
    .where(
        _r.expires_at <= bindparam("now"),
        or_(_r.deleted_at.is_(None), ~select(_child.c.id).where(_child.c.previous_id == _r.id).exists()),
        ~select(runs.c.id).where(runs.c.previous_id == _r.id).exists(),
    )
    .order_by(_r.expires_at)
    .limit(bindparam("limit", type_=Integer))
)
_CHILDREN = select(_r.id, _r.previous_id, _r.inherited, _r.exchanges).where(
    _r.previous_id.in_(bindparam("parents", expanding=True)), _r.deleted_at.is_(None)
)
_TURNS = select(_r.id, _r.input, _r.response, _r.inherited, _r.exchanges).where(
    _r.id.in_(bindparam("ids", expanding=True))
)
_ADOPT = (
    update(responses)
    .where(_r.id == bindparam("wanted"), _r.deleted_at.is_(None))
    .values(previous_id=bindparam("above"), inherited=bindparam("items"), exchanges=bindparam("exchanges_too"))
)
_REMOVE = delete(responses).where(_r.id.in_(bindparam("ids", expanding=True)))

# The frames of a run stay as long as the run, whatever the clocks of those that wrote them and of the one that purges.
_e = event_batches.c
_REMOVE_FRAMES = delete(event_batches).where(
    tuple_(_e.response_id, _e.first_sequence).in_(
        select(_e.response_id, _e.first_sequence)
        .where(_e.expires_at <= bindparam("now"), ~select(runs.c.id).where(runs.c.id == _e.response_id).exists())
        .order_by(_e.expires_at)
        .limit(bindparam("limit", type_=Integer))
    )
)


class SqlResponseStore:
    """Responses stored in the database."""

    def __init__(self, database: Database, *, retention_seconds: int, grace_seconds: int = 0) -> None:
        """`retention_seconds`: how long a tombstone stays; at least the longest lifetime of a record.

        `grace_seconds`: how long an expired record (which is no longer visible) is kept for a run that began
        before the expiry and will become its child; at least the longest duration of a run.
        """
        self._database = database
        self._retention = retention_seconds
        self._grace = grace_seconds

    @property
    def doubtful(self) -> bool:
        """The last write failed, or its connection was lost."""
        return self._database.writer.doubtful

    async def check(self) -> None:
        """Write a row."""
        with store_errors():
            await self._database.check_write()

    async def save(self, record: ResponseRecord) -> None:
        """Store the record: one row, and one for each id that its client chose; with its turn in its conversation."""
        with store_errors():
            turn = await rows_of_turn(self._database, record)
            if record.turn is None or turn is None:
                await self._database.writer.insert(*rows_of(record))
                return
            key, lock = record.turn.conversation_id, {"locked": record.turn.conversation_id, "by": record.id}
            made = await self._database.writer.change(Change(key, UNLOCK, lock, (*rows_of(record), *turn)))
        if not (made or await self.has(record)):
            raise RecordRefused(f"response {record.id} has lost the lock of its conversation")

    async def has(self, record: ResponseRecord) -> bool:
        """Whether this very record is stored: an earlier try may have succeeded before its connection was lost."""
        this = {"wanted": record.id, "owner": record.project_id}
        return bool(await self._fetch(_STORED, {**this, "status": record.status, "body": record.response}))

    async def get(self, project_id: str, response_id: str, now: int) -> ResponseRecord | None:
        """The record, if this project has it."""
        rows = await self._fetch(_GET, {"wanted": response_id, "owner": project_id, "now": now})
        return ResponseRecord(**rows[0]) if rows else None

    async def chain(self, project_id: str, response_id: str, now: int) -> Sequence[Turn] | None:
        """The turns from the root to `response_id`, read from the tip upwards by one recursive query."""
        rows = await self._fetch(_CHAIN, {"wanted": response_id, "owner": project_id, "now": now})
        return [_turn(row) for row in _root_first(rows)] or None

    async def lineage(self, project_id: str, response_id: str, now: int, newest: int) -> Lineage | None:
        """One recursive query of ids, joined with the content of the newest turns."""
        wanted = {"wanted": response_id, "owner": project_id, "now": now, "newest": newest}
        rows = _root_first(await self._fetch(_LINEAGE, wanted))
        if not rows:
            return None
        return Lineage([row["id"] for row in rows[:-newest]], [_turn(row) for row in rows[-newest:]])

    async def continuable(self, project_id: str, response_id: str, now: int) -> bool:
        """Whether the chain can be read, from the ids alone."""
        rows = await self._fetch(_CONTINUABLE, {"wanted": response_id, "owner": project_id, "now": now})
        return bool(rows) and rows[0]["turns"] > 0 and rows[0]["tombstones"] == 0

    async def has_ended(self, project_id: str, response_id: str) -> bool:
        """Whether there is a row, perhaps a tombstone."""
        return bool(await self._fetch(_ENDED, {"wanted": response_id, "owner": project_id}))

    async def locate_item(self, project_id: str, item_id: str, now: int) -> str | None:
        """The newest response that contains the item."""
        rows = await self._fetch(_LOCATE, {"owner": project_id, "item": item_id, "now": now})
        return rows[0]["id"] if rows else None

    async def delete(self, project_id: str, response_id: str, now: int) -> bool:
        """Leave a tombstone; what the response's event log still has is deleted with the content."""
        parameters = {"wanted": response_id, "owner": project_id, "now": now, "until": now + self._retention}
        with store_errors():
            async with self._database.transaction() as connection:
                if (await connection.execute(_BURY, parameters)).rowcount == 0:
                    return False
                for table in (foreign_items, event_batches):
                    await connection.execute(delete(table).where(table.c.response_id == response_id))
        return True

    async def purge(self, now: int, limit: int) -> int:
        """Remove the oldest expired records and expired batches of frames, at most `limit` of each."""
        with store_errors():
            async with self._database.transaction() as connection:
                if not await self._only_one(connection):
                    return 0
                await connection.execute(_REMOVE_FRAMES, {"now": now, "limit": limit})
                expired = await connection.execute(_EXPIRED, {"now": now - self._grace, "limit": limit})
                going: dict[str, str | None] = {row.id: row.previous_id for row in expired}
                if going:
                    await _bequeath(connection, going)
                    await connection.execute(_REMOVE, {"ids": list(going)})
                return len(going)

    async def count_expired(self, now: int) -> int:
        """How many records have expired."""
        return (await self._fetch(_COUNT_EXPIRED, {"now": now}))[0]["expired"]

    async def _fetch(self, statement: Any, parameters: Mapping[str, Any]) -> Sequence[RowMapping]:
        with store_errors():
            return await self._database.fetch(statement, parameters)

    async def _only_one(self, connection: AsyncConnection) -> bool:
        """Whether no other replica is purging; on SQLite the transaction itself holds the write lock."""
        if self._database.dialect == "sqlite":
            return True
        return bool((await connection.execute(select(func.pg_try_advisory_xact_lock(_PURGE_LOCK)))).scalar())


def _root_first(rows: Sequence[RowMapping]) -> Sequence[RowMapping]:
    """The rows of a chain in their order. Raises AncestorDeleted."""
    ordered = sorted(rows, key=itemgetter("depth"), reverse=True)
    for row in ordered:
        if row["deleted_at"] is not None:
            raise AncestorDeleted(row["id"])
    return ordered


def _turn(row: RowMapping) -> Turn:
    return Turn(row["id"], row["input"], row["response"], row["inherited"], row["exchanges"])


def rows_of(record: ResponseRecord) -> Sequence[Row]:
    """What is inserted for a record, parents first."""
    row = (
        record.id,
        record.project_id,
        record.previous_id,
        record.created_at,
        record.expires_at,
        None,
        record.status,
        record.model,
        record.response,
        record.input,
        record.cuts,
        record.inherited,
        record.exchanges,
    )
    items = dict.fromkeys(item for item in record.foreign_item_ids if len(item) <= _MAX_ITEM_ID and "\0" not in item)
    return [(responses, row), *((foreign_items, (record.project_id, item, record.id)) for item in items)]


async def _bequeath(connection: AsyncConnection, going: Mapping[str, str | None]) -> None:
    """Move the items of the removed turns to the children that stay."""
    children = [row for row in await connection.execute(_CHILDREN, {"parents": list(going)}) if row.id not in going]
    paths = {child.id: purged_above(child.previous_id, going) for child in children}
    needed = list({one for path, _ in paths.values() for one in path})
    if not needed:
        return
    found = await connection.execute(_TURNS, {"ids": needed})
    turns = {row["id"]: _turn(row) for row in found.mappings()}
    adoptions: list[dict[str, Any]] = []
    for child in children:
        path, above = paths[child.id]
        items = concatenate(*(items_of(turns[one]) for one in path), child.inherited)
        read = merged(*(turns[one].exchanges for one in path), child.exchanges)
        adoptions.append({"wanted": child.id, "above": above, "items": items, "exchanges_too": read})
    await connection.execute(_ADOPT, adoptions)


@contextmanager
def store_errors() -> Generator[None]:
    """Convert the database's errors to the port's."""
    try:
        yield
    except DatabaseUnavailable as error:
        raise StoreUnavailable(str(error)) from error
    except RowRefused as error:
        raise RecordRefused(str(error)) from error
