"""Uploaded files in SQLite or Postgres."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import RowMapping, and_, bindparam, delete, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.tables import files, vector_store_files
from app.knowledge._database import cut_by_id, database_errors, fetch, in_order
from app.knowledge.ports.files import FileRecord
from app.protocol.wire.paging import Page

_UNPUBLISHED_SECONDS = 3600
"""An upload is published moments after it was reserved; after an hour its process must have died in between."""

_f = files.c
_COLUMNS = (_f.id, _f.project_id, _f.created_at, _f.expires_at, _f.filename, _f.purpose, _f.size, _f.digest)
_OWN = (_f.id == bindparam("wanted"), _f.project_id == bindparam("project"))
_ALIVE = (_f.published, or_(_f.expires_at.is_(None), _f.expires_at > bindparam("now")))
_GET = select(*_COLUMNS).where(*_OWN, *_ALIVE)
_LIST = select(*_COLUMNS).where(_f.project_id == bindparam("project"), *_ALIVE)
_PUBLISH = update(files).where(_f.id == bindparam("wanted")).values(published=True)
_EXPIRED = (
    select(*_COLUMNS)
    .where(or_(_f.expires_at <= bindparam("now"), and_(~_f.published, _f.created_at <= bindparam("stale"))))
    .limit(bindparam("most"))
)
_DIGEST = select(_f.digest).where(*_OWN)
_SHARED = select(func.count()).where(_f.digest == bindparam("digest"))
_LOCK = text("SELECT pg_advisory_xact_lock(:key)")

_a = vector_store_files.c
_DETACH = (
    update(vector_store_files)
    .where(_a.file_id == bindparam("wanted"), _a.project_id == bindparam("project"))
    .values(status="removed", owner=None, due_at=0)
)


class SqlFileRecords:
    """Files of all projects, shared by all replicas."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, record: FileRecord) -> None:
        """Insert the record, not yet visible."""
        with database_errors():
            async with self._database.transaction() as connection:
                await self._hold(connection, record.digest)
                await connection.execute(insert(files), {**_values(record), "published": False})

    async def publish(self, file_id: str) -> None:
        """Show it."""
        with database_errors():
            async with self._database.transaction() as connection:
                await connection.execute(_PUBLISH, {"wanted": file_id})

    async def get(self, project_id: str, file_id: str, now: int) -> FileRecord | None:
        """The file."""
        rows = await fetch(self._database, _GET, {"wanted": file_id, "project": project_id, "now": now})
        return _record(rows[0]) if rows else None

    async def list(self, project_id: str, purpose: str | None, page: Page, now: int) -> Sequence[FileRecord]:
        """A page of the project's files."""
        statement = _LIST if purpose is None else _LIST.where(_f.purpose == purpose)
        rows = await fetch(self._database, cut_by_id(statement, page, _f.id), {"project": project_id, "now": now})
        return [_record(row) for row in in_order(page, rows)]

    async def delete(self, project_id: str, file_id: str, forget: Callable[[str], Awaitable[None]]) -> bool:
        """Remove the record and, under the digest's lock, content that no other file has."""
        own = {"wanted": file_id, "project": project_id}
        with database_errors():
            async with self._database.transaction() as connection:
                digest: str | None = (await connection.execute(_DIGEST, own)).scalar()
                if digest is None:
                    return False
                await self._hold(connection, digest)
                if (await connection.execute(delete(files).where(*_OWN), own)).rowcount == 0:
                    return False  # another request was faster
                await connection.execute(_DETACH, own)
                if (await connection.execute(_SHARED, {"digest": digest})).scalar_one() == 0:
                    await forget(digest)
        return True

    async def expired(self, now: int, limit: int) -> Sequence[FileRecord]:
        """The files to be removed."""
        rows = await fetch(self._database, _EXPIRED, {"now": now, "stale": now - _UNPUBLISHED_SECONDS, "most": limit})
        return [_record(row) for row in rows]

    async def _hold(self, connection: AsyncConnection, digest: str) -> None:
        """Until the transaction ends no one else can reserve or remove this content; SQLite has one writer anyway."""
        if self._database.dialect == "postgresql":
            await connection.execute(_LOCK, {"key": int.from_bytes(bytes.fromhex(digest[:16]), signed=True)})


def _values(record: FileRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _record(row: RowMapping) -> FileRecord:
    return FileRecord(**row)
