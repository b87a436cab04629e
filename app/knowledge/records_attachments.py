"""Which files are in which vector stores, in SQLite or Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Insert, RowMapping, bindparam, case, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.tables import file_batches, files, vector_store_files, vector_stores
from app.knowledge._database import cut, database_errors, fetch, in_order
from app.knowledge.ports.stores import Attachment, BatchRecord, IngestionStatus, StoreTotals
from app.knowledge.records_stores import totals
from app.protocol.wire.paging import Page

_a = vector_store_files.c
_b = file_batches.c
_COLUMNS = (
    _a.vector_store_id,
    _a.file_id,
    _a.project_id,
    _a.batch_id,
    _a.created_at,
    _a.status,
    _a.attributes,
    _a.chunk_size,
    _a.chunk_overlap,
    _a.usage_bytes,
    _a.error_code,
    _a.error_message,
)
_THERE = (_a.vector_store_id == bindparam("store"), _a.project_id == bindparam("project"), _a.status != "removed")
_FILE = (*_THERE, _a.file_id == bindparam("file"))
_GET = select(*_COLUMNS).where(*_FILE)
_LIST = select(*_COLUMNS).where(*_THERE)
_PLACE = select(_a.created_at, _a.file_id).where(*_FILE)
_COMPLETED = select(_a.vector_store_id, _a.file_id).where(
    _a.project_id == bindparam("project"),
    _a.status == "completed",
    _a.vector_store_id.in_(bindparam("stores", expanding=True)),
    _a.file_id.in_(bindparam("files", expanding=True)),
)
# A change takes the job from its worker, which then cannot change the index any more; another may begin at once.
_NEW_JOB: dict[str, Any] = {"owner": None, "due_at": 0}
_DESCRIBE = (  # a worker that is ingesting the file has read the old attributes
    update(vector_store_files)
    .where(*_FILE)
    .values(attributes=bindparam("new_attributes"), owner=None, attempts=0, due_at=case((_a.due_at.is_not(None), 0)))
)
_DETACH = update(vector_store_files).where(*_FILE).values(status="removed", **_NEW_JOB)
_IN_BATCH = (*_THERE, _a.batch_id == bindparam("batch"))
_CANCEL_FILES = (
    update(vector_store_files).where(*_IN_BATCH, _a.status == "in_progress").values(status="cancelled", **_NEW_JOB)
)
_OWN_BATCH = (
    _b.id == bindparam("batch"),
    _b.vector_store_id == bindparam("store"),
    _b.project_id == bindparam("project"),
)
_CANCEL = update(file_batches).where(*_OWN_BATCH).values(cancelled=True)
_BATCH = select(_b.id, _b.vector_store_id, _b.project_id, _b.created_at, _b.cancelled).where(*_OWN_BATCH)
_TOTALS = (
    select(_a.status, func.count().label("number"), func.sum(_a.usage_bytes).label("bytes"))
    .where(*_IN_BATCH)
    .group_by(_a.status)
)

_s = vector_stores.c
_STORE = (
    select(_s.id)
    .where(
        _s.id == bindparam("store"),
        _s.project_id == bindparam("project"),
        _s.deleted_at.is_(None),
        or_(_s.expires_at.is_(None), _s.expires_at > bindparam("now")),
    )
    .with_for_update(read=True)  # it cannot be removed until its new files are written; SQLite has one writer anyway
)
_f = files.c
_FILES = select(_f.id).where(
    _f.id.in_(bindparam("wanted", expanding=True)),
    _f.project_id == bindparam("project"),
    _f.published,
    or_(_f.expires_at.is_(None), _f.expires_at > bindparam("now")),
)


class SqlAttachments:
    """Files in vector stores, of all projects, shared by all replicas."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._attach = _upsert(
            sqlite.insert(vector_store_files) if database.dialect == "sqlite" else postgresql.insert(vector_store_files)
        )

    async def attach(self, attachments: Sequence[Attachment], batch: BatchRecord | None, now: int) -> None:
        """Insert the batch and its files, all or none."""
        first = attachments[0]
        parameters = {"store": first.vector_store_id, "project": first.project_id, "now": now}
        with database_errors():
            async with self._database.transaction() as connection:
                if (await connection.execute(_STORE, parameters)).scalar() is None:
                    raise KeyError(first.vector_store_id)
                await _check_files(connection, attachments, now)
                if batch is not None:
                    await connection.execute(
                        insert(file_batches), {name: getattr(batch, name) for name in batch.__struct_fields__}
                    )
                await connection.execute(self._attach, [_row(one) for one in attachments])

    async def get(self, project_id: str, store_id: str, file_id: str) -> Attachment | None:
        """The file in the store."""
        rows = await fetch(self._database, _GET, {"project": project_id, "store": store_id, "file": file_id})
        return _record(rows[0]) if rows else None

    async def list(
        self,
        project_id: str,
        store_id: str,
        page: Page,
        *,
        status: IngestionStatus | None = None,
        batch_id: str | None = None,
    ) -> Sequence[Attachment]:
        """A page of the store or of the batch."""
        own = {"project": project_id, "store": store_id}
        statement = _LIST if status is None else _LIST.where(_a.status == status)
        if batch_id is not None:
            statement = statement.where(_a.batch_id == batch_id)
        after = await self._place(own, page.after)
        before = await self._place(own, page.before)
        rows = await fetch(self._database, cut(statement, page, (_a.created_at, _a.file_id), after, before), own)
        return [_record(row) for row in in_order(page, rows)]

    async def completed(self, project_id: str, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Which of them can be searched."""
        if not pairs:
            return set()
        stores, found = {store for store, _ in pairs}, {file for _, file in pairs}
        rows = await fetch(
            self._database, _COMPLETED, {"project": project_id, "stores": list(stores), "files": list(found)}
        )
        return {(row["vector_store_id"], row["file_id"]) for row in rows}

    async def describe(self, project_id: str, store_id: str, file_id: str, attributes: bytes) -> bool:
        """Change the attributes."""
        own = {"project": project_id, "store": store_id, "file": file_id}
        return await self._change(_DESCRIBE, {**own, "new_attributes": attributes})

    async def detach(self, project_id: str, store_id: str, file_id: str) -> bool:
        """Remove it from the store."""
        return await self._change(_DETACH, {"project": project_id, "store": store_id, "file": file_id})

    async def batch(self, project_id: str, store_id: str, batch_id: str) -> tuple[BatchRecord, StoreTotals] | None:
        """The batch with its counts."""
        own = {"project": project_id, "store": store_id, "batch": batch_id}
        rows = await fetch(self._database, _BATCH, own)
        if not rows:
            return None
        return BatchRecord(**rows[0]), totals(await fetch(self._database, _TOTALS, own))

    async def cancel(self, project_id: str, store_id: str, batch_id: str) -> bool:
        """Cancel what is not finished."""
        own = {"project": project_id, "store": store_id, "batch": batch_id}
        if not await self._change(_CANCEL, own):
            return False
        await self._change(_CANCEL_FILES, own)
        return True

    async def _change(self, statement: Any, parameters: dict[str, Any]) -> bool:
        with database_errors():
            async with self._database.transaction() as connection:
                return (await connection.execute(statement, parameters)).rowcount > 0

    async def _place(self, own: dict[str, str], file_id: str | None) -> tuple[int, str] | None:
        """The cursor's position in the order of adding."""
        if file_id is None:
            return None
        rows = await fetch(self._database, _PLACE, {**own, "file": file_id})
        if not rows:
            raise KeyError(file_id)
        return rows[0]["created_at"], rows[0]["file_id"]


async def _check_files(connection: AsyncConnection, attachments: Sequence[Attachment], now: int) -> None:
    wanted = [one.file_id for one in attachments]
    there = set(
        (
            await connection.execute(_FILES, {"wanted": wanted, "project": attachments[0].project_id, "now": now})
        ).scalars()
    )
    for file_id in wanted:
        if file_id not in there:
            raise KeyError(file_id)


def _upsert(new: sqlite.Insert | postgresql.Insert) -> Insert:
    """Ingest an existing file again."""
    fresh = ("batch_id", "created_at", "status", "attributes", "chunk_size", "chunk_overlap", "attempts", *_NEW_JOB)
    changed: dict[str, Any] = {name: new.excluded[name] for name in fresh}
    return new.on_conflict_do_update(index_elements=["vector_store_id", "file_id"], set_=changed)


def _row(attachment: Attachment) -> dict[str, Any]:
    values = {name: getattr(attachment, name) for name in attachment.__struct_fields__}
    return {**values, "attempts": 0, **_NEW_JOB}


def _record(row: RowMapping) -> Attachment:
    return Attachment(**row)
