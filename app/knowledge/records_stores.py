"""Vector stores in SQLite or Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import RowMapping, bindparam, delete, exists, func, insert, or_, select, update

from app.db.engine import Database
from app.db.tables import vector_store_files, vector_stores
from app.knowledge._database import cut_by_id, database_errors, fetch, in_order
from app.knowledge.ports.stores import StoreRecord, StoreTotals
from app.protocol.wire.paging import Page

_DAY = 86_400
_EXPIRED_DAYS = 30
"""How long an expired store is still listed as expired."""

_s = vector_stores.c
_a = vector_store_files.c
_COLUMNS = (
    _s.id,
    _s.project_id,
    _s.created_at,
    _s.name,
    _s.description,
    _s.metadata,
    _s.expires_days,
    _s.last_active_at,
    _s.expires_at,
)
_OWN = (_s.id == bindparam("wanted"), _s.project_id == bindparam("project"), _s.deleted_at.is_(None))
_GET = select(*_COLUMNS).where(*_OWN)
_LIST = select(*_COLUMNS).where(_s.project_id == bindparam("project"), _s.deleted_at.is_(None))
_UPDATE = (
    update(vector_stores)
    .where(*_OWN)
    .values(
        name=bindparam("new_name"),
        metadata=bindparam("new_metadata"),
        expires_days=bindparam("new_expires_days"),
        expires_at=bindparam("new_expires_at"),
        last_active_at=bindparam("new_last_active_at"),
    )
)
_TOUCH = (
    update(vector_stores)
    .where(
        _s.id.in_(bindparam("wanted", expanding=True)),
        or_(_s.expires_at.is_(None), _s.expires_at > bindparam("now")),
    )
    .values(last_active_at=bindparam("now"), expires_at=bindparam("now") + _s.expires_days * _DAY)
)
_TOTALS = (
    select(_a.vector_store_id, _a.status, func.count().label("number"), func.sum(_a.usage_bytes).label("bytes"))
    .where(_a.vector_store_id.in_(bindparam("wanted", expanding=True)), _a.status != "removed")
    .group_by(_a.vector_store_id, _a.status)
)
_BURY = update(vector_stores).where(*_OWN).values(deleted_at=bindparam("now"))
_EMPTY = (
    update(vector_store_files)
    .where(_a.vector_store_id.in_(bindparam("stores", expanding=True)), _a.status != "removed")
    .values(status="removed", owner=None, due_at=0)
)
_full = exists().where(_a.vector_store_id == _s.id)
_STILL_FULL = (
    select(_s.id)
    .where(_s.expires_at <= bindparam("now"), exists().where(_a.vector_store_id == _s.id, _a.status != "removed"))
    .limit(bindparam("most"))
)
_GONE = (
    select(_s.id)
    .where(or_(_s.deleted_at.is_not(None), _s.expires_at <= bindparam("now") - _EXPIRED_DAYS * _DAY), ~_full)
    .limit(bindparam("most"))
)
_REMOVE = delete(vector_stores).where(_s.id.in_(bindparam("stores", expanding=True)), ~_full)


class SqlStoreRecords:
    """Vector stores of all projects, shared by all replicas."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, record: StoreRecord) -> None:
        """Insert the record."""
        with database_errors():
            async with self._database.transaction() as connection:
                await connection.execute(
                    insert(vector_stores), {name: getattr(record, name) for name in record.__struct_fields__}
                )

    async def get(self, project_id: str, store_id: str) -> StoreRecord | None:
        """The store."""
        rows = await fetch(self._database, _GET, {"wanted": store_id, "project": project_id})
        return _record(rows[0]) if rows else None

    async def list(self, project_id: str, page: Page) -> Sequence[StoreRecord]:
        """A page of the project's stores."""
        rows = await fetch(self._database, cut_by_id(_LIST, page, _s.id), {"project": project_id})
        return [_record(row) for row in in_order(page, rows)]

    async def update(self, record: StoreRecord) -> None:
        """Write what a client may change."""
        changed = ("name", "metadata", "expires_days", "expires_at", "last_active_at")
        parameters = {"wanted": record.id, "project": record.project_id} | {
            f"new_{name}": getattr(record, name) for name in changed
        }
        with database_errors():
            async with self._database.transaction() as connection:
                await connection.execute(_UPDATE, parameters)

    async def touch(self, store_ids: Sequence[str], now: int) -> None:
        """Extend the expiry; stores that have expired meanwhile stay expired."""
        with database_errors():
            async with self._database.transaction() as connection:
                await connection.execute(_TOUCH, {"wanted": list(store_ids), "now": now})

    async def delete(self, project_id: str, store_id: str, now: int) -> bool:
        """Hide the store; `expire` removes it once it has no files."""
        with database_errors():
            async with self._database.transaction() as connection:
                buried = await connection.execute(_BURY, {"wanted": store_id, "project": project_id, "now": now})
                if buried.rowcount == 0:
                    return False
                await connection.execute(_EMPTY, {"stores": [store_id]})
        return True

    async def totals(self, store_ids: Sequence[str]) -> Mapping[str, StoreTotals]:
        """Counts by status and the sum of bytes."""
        rows = await fetch(self._database, _TOTALS, {"wanted": list(store_ids)})
        return {store_id: totals([row for row in rows if row["vector_store_id"] == store_id]) for store_id in store_ids}

    async def expire(self, now: int, limit: int) -> int:
        """Empty expired stores, remove emptied ones."""
        with database_errors():
            async with self._database.transaction() as connection:
                full = list((await connection.execute(_STILL_FULL, {"now": now, "most": limit})).scalars())
                if full:
                    await connection.execute(_EMPTY, {"stores": full})
                gone = list((await connection.execute(_GONE, {"now": now, "most": limit})).scalars())
                if gone:
                    await connection.execute(_REMOVE, {"stores": gone})
        return len(full) + len(gone)


def totals(rows: Sequence[RowMapping]) -> StoreTotals:
    """From rows of status, count and bytes."""
    return StoreTotals(
        **{row["status"]: row["number"] for row in rows}, usage_bytes=int(sum(row["bytes"] for row in rows))
    )


def _record(row: RowMapping) -> StoreRecord:
    return StoreRecord(**row)
