"""Projects and API keys in SQLite or Postgres. Rarely called: the caller caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace
from sqlalchemy import Insert, RowMapping, Table, bindparam, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.db.engine import Database
from app.db.tables import api_keys, projects, secrets
from app.stores.ports.keys import ApiKey
from app.stores.sql import store_errors

_k = api_keys.c
_KEYS = select(
    _k.id,
    _k.project_id,
    projects.c.name.label("project"),
    _k.name,
    _k.prefix,
    _k.created_at,
    _k.expires_at,
    _k.revoked_at,
    _k.last_used_at,
).join_from(api_keys, projects)
_FIND = _KEYS.where(_k.digest == bindparam("wanted"))
_LIST = _KEYS.order_by(_k.created_at.desc(), _k.id.desc())
_REVOKE = (
    update(api_keys)
    .where(or_(_k.id == bindparam("key"), _k.prefix == bindparam("key")))
    .values(revoked_at=func.coalesce(_k.revoked_at, bindparam("now")))
)
_TOUCH = (
    update(api_keys)
    .where(_k.id == bindparam("key"), func.coalesce(_k.last_used_at, 0) < bindparam("used"))
    .values(last_used_at=bindparam("used"))
)
_PROJECT = select(projects.c.id).where(projects.c.name == bindparam("wanted"))
_SECRET = select(secrets.c.value).where(secrets.c.name == bindparam("wanted"))


class SqlKeyStore:
    """Keys stored in the database, shared by all replicas."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, digest: bytes) -> ApiKey | None:
        """The key with this digest."""
        with store_errors():
            rows = await self._database.fetch(_FIND, {"wanted": digest})
        return _key(rows[0]) if rows else None

    async def create(self, key: ApiKey, digest: bytes) -> ApiKey:
        """Add the key to the project with its project's name."""
        project = {"id": key.project_id, "name": key.project, "created_at": key.created_at}
        row = {
            "id": key.id,
            "name": key.name,
            "prefix": key.prefix,
            "digest": digest,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "revoked_at": key.revoked_at,
            "last_used_at": key.last_used_at,
        }
        with store_errors():
            async with self._database.transaction() as connection:
                await connection.execute(self._insert_missing(projects, "name"), project)
                project_id: str = (await connection.execute(_PROJECT, {"wanted": key.project})).scalar_one()
                await connection.execute(api_keys.insert(), {**row, "project_id": project_id})
        return replace(key, project_id=project_id)

    async def list(self) -> Sequence[ApiKey]:
        """All keys, newest first."""
        with store_errors():
            return [_key(row) for row in await self._database.fetch(_LIST)]

    async def revoke(self, key_id: str, now: int) -> bool:
        """Revoke by id or prefix; a key that is already revoked keeps its time."""
        with store_errors():
            async with self._database.transaction() as connection:
                return (await connection.execute(_REVOKE, {"key": key_id, "now": now})).rowcount > 0

    async def touch(self, used: Mapping[str, int]) -> None:
        """Record when keys were last used; never moved back, since replicas report out of order."""
        if not used:
            return
        with store_errors():
            async with self._database.transaction() as connection:
                await connection.execute(_TOUCH, [{"key": key, "used": time} for key, time in sorted(used.items())])

    async def secret(self, name: str, fallback: bytes) -> bytes:
        """The secret; if several replicas offer one at once, one wins and all get it."""
        with store_errors():
            async with self._database.transaction() as connection:
                await connection.execute(self._insert_missing(secrets, "name"), {"name": name, "value": fallback})
                return (await connection.execute(_SECRET, {"wanted": name})).scalar_one()

    def _insert_missing(self, table: Table, key: str) -> Insert:
        if self._database.dialect == "sqlite":
            return sqlite.insert(table).on_conflict_do_nothing(index_elements=[key])
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=[key])


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(**row)
