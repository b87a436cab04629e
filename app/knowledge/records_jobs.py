"""Jobs for files in vector stores, in SQLite or Postgres: the rows of the files are the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import bindparam, delete, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.tables import vector_store_files
from app.jobs.leases import Leases, lease, milliseconds
from app.knowledge._database import database_errors, fetch
from app.knowledge.ports.jobs import Job, JobLost
from app.knowledge.ports.stores import LastError

_a = vector_store_files.c
_KINDS: Mapping[str, Literal["ingest", "empty", "remove"]] = {
    "in_progress": "ingest",
    "cancelled": "empty",
    "removed": "remove",
}
_leases = Leases(vector_store_files)
_queue = _leases.queue
_NEXT = (
    select(_queue.vector_store_id, _queue.file_id)
    .where(_queue.project_id == bindparam("project"), *_leases.is_due)
    .order_by(_queue.due_at, _queue.created_at, _queue.file_id)
    .limit(1)
)
_WAITING = (
    select(_queue.project_id).where(*_leases.is_due).group_by(_queue.project_id).order_by(func.min(_queue.due_at))
)
_CLAIM = _leases.claim(_NEXT, attempts=_a.attempts + 1).returning(
    _a.status,
    _a.vector_store_id,
    _a.file_id,
    _a.project_id,
    _a.attempts,
    _a.attributes,
    _a.chunk_size,
    _a.chunk_overlap,
)
_HELD = (_a.vector_store_id == bindparam("store"), _a.file_id == bindparam("file"), _a.owner == bindparam("holder"))
_IS_HELD = select(literal(1)).where(*_HELD).with_for_update(read=True)
_RENEW = _leases.renew(*_HELD)
_DONE: dict[str, Any] = {"owner": None, "due_at": None}
_COMPLETE = (
    update(vector_store_files)
    .where(*_HELD)
    .values(
        status="completed", usage_bytes=bindparam("used"), error_code=None, error_message=bindparam("note"), **_DONE
    )
)
_FAIL = (
    update(vector_store_files)
    .where(*_HELD)
    .values(status="failed", usage_bytes=0, error_code=bindparam("code"), error_message=bindparam("message"), **_DONE)
)
_POSTPONE = _leases.release(*_HELD)
_RELEASE = _leases.release(*_HELD, attempts=_a.attempts - 1)
_EMPTIED = update(vector_store_files).where(*_HELD).values(usage_bytes=0, **_DONE)
_REMOVED = delete(vector_store_files).where(*_HELD)


class SqlJobs:
    """The queue, shared by all replicas."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def waiting(self, *, takeover: bool) -> Sequence[str]:
        """Projects that have jobs due, longest due first.

        Read without a lock: idle processes must not compete for SQLite's.
        """
        return [row["project_id"] for row in await fetch(self._database, _WAITING, {"takeover": takeover})]

    async def claim(self, project_id: str, lease_seconds: float, *, takeover: bool) -> Job | None:
        """Take the project's job that has waited longest."""
        owner = uuid4().hex
        values = {"project": project_id, "takeover": takeover, **lease(owner, lease_seconds)}
        with database_errors():
            async with self._database.transaction() as connection:
                row = (await connection.execute(_CLAIM, values)).mappings().first()
        if row is None:
            return None
        found = dict(row)
        return Job(kind=_KINDS[found.pop("status")], owner=owner, **found)

    async def renew(self, job: Job, lease_seconds: float) -> bool:
        """Extend the lease."""
        return await self._change(_RENEW, job, lease=milliseconds(lease_seconds))

    async def complete(self, job: Job, usage_bytes: int, note: str | None) -> bool:
        """The file is ingested."""
        return await self._change(_COMPLETE, job, used=usage_bytes, note=note)

    async def fail(self, job: Job, code: LastError, message: str) -> None:
        """The file will not be ingested."""
        await self._change(_FAIL, job, code=code, message=message)

    async def postpone(self, job: Job, pause_seconds: float) -> None:
        """Return it for a later retry."""
        await self._change(_POSTPONE, job, pause=milliseconds(pause_seconds))

    async def release(self, job: Job, pause_seconds: float = 0.0) -> None:
        """Return it, not counted as an attempt."""
        await self._change(_RELEASE, job, pause=milliseconds(pause_seconds))

    async def settle(self, job: Job) -> None:
        """A cancelled file stays in the list, a removed one is deleted."""
        await self._change(_REMOVED if job.kind == "remove" else _EMPTIED, job)

    async def _change(self, statement: Any, job: Job, **values: object) -> bool:
        with database_errors():
            async with self._database.transaction() as connection:
                return (await connection.execute(statement, {**_holder(job), **values})).rowcount > 0


async def fence(connection: AsyncConnection, job: Job) -> None:
    """Until the end of the transaction the job can be neither lost nor taken over. Raises JobLost if it was before."""
    if (await connection.execute(_IS_HELD, _holder(job))).first() is None:
        raise JobLost


def _holder(job: Job) -> dict[str, str]:
    return {"store": job.vector_store_id, "file": job.file_id, "holder": job.owner}
