"""The `keys` commands: API keys of projects."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from app.db import migrate
from app.db.engine import Database
from app.db.tables import REVISION
from app.engine.access import NewKey, create_key
from app.settings import Settings
from app.stores.keys import SqlKeyStore

_DAY = 86400


@asynccontextmanager
async def key_store(settings: Settings) -> AsyncGenerator[SqlKeyStore]:
    """The keys; an embedded database is migrated first."""
    database = Database(settings.database_url)
    try:
        if database.embedded and await database.revision() != REVISION:
            migrate.upgrade_apart(settings.database_url)
        yield SqlKeyStore(database)
    finally:
        await database.aclose()


async def create(settings: Settings, project: str, name: str, days: float | None) -> NewKey:
    """Make a key and print it on standard output, alone on its line."""
    expires = int(time.time() + days * _DAY) if days else None
    async with key_store(settings) as keys:
        made = await create_key(keys, project=project, name=name, expires_at=expires)
    print(made.secret)
    print(f"{made.key.id}, project '{made.key.project}'. Shown this once; only its hash is stored.", file=sys.stderr)
    return made


async def show(settings: Settings) -> None:
    """Print all keys, without their secrets."""
    async with key_store(settings) as keys:
        known = await keys.list()
    print(f"{'ID':28} {'PREFIX':13} {'PROJECT':20} {'NAME':20} {'CREATED':16} {'LAST USED':16} STATE")
    now = time.time()
    for key in known:
        state = "revoked" if key.revoked_at else "expired" if key.expires_at and key.expires_at <= now else "active"
        print(f"{key.id:28} {key.prefix:13} {key.project:20} {key.name:20} {_when(key.created_at):16} {_when(key.last_used_at):16} {state}")


async def revoke(settings: Settings, key: str) -> bool:
    """Revoke a key by id or prefix; False when there is none."""
    async with key_store(settings) as keys:
        revoked = await keys.revoke(key, int(time.time()))
    print(f"Revoked {key}; servers notice within seconds." if revoked else f"There is no key '{key}'.")
    return revoked


def _when(seconds: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else "-"
