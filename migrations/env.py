"""Alembic's entry: one chain of migrations for SQLite and Postgres, in one transaction each time."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, text

from app.db.engine import Database
from app.db.searching import is_own
from app.db.tables import metadata
from app.settings import load

# Any number no one else uses: replicas that start together migrate one after the other.
_LOCK = 7_305_112_904


def _is_compared(name: str | None, kind: str, _: object) -> bool:
    return not (kind == "table" and is_own(name or ""))


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        include_name=_is_compared,
    )
    context.run_migrations()


async def _run(url: str) -> None:
    database = Database(url)
    try:
        async with database.transaction() as connection:
            await connection.run_sync(_migrate)
    finally:
        await database.aclose()


asyncio.run(_run(context.config.attributes.get("url") or load().database_url))
