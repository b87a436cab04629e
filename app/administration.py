"""The `keys` commands: API keys of projects."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from app.db import migrate
from app.db.engine import Database
from app.db.location import database_file
from app.db.tables import REVISION
from app.db.writer import DatabaseUnavailable
from app.engine.accounts.access import NewKey, create_key
from app.settings import ConfigurationError, Settings
from app.stores.keys import SqlKeyStore
from app.stores.ports.errors import StoreUnavailable
from app.stores.ports.keys import ApiKey

_DAY = 86400


@asynccontextmanager
async def key_store(settings: Settings) -> AsyncGenerator[SqlKeyStore]:
    """The keys of a gateway that has run before. Raises ConfigurationError if there is none."""
    database = _opened(settings)
    try:
        await _bring_up_to_date(database, settings)
        yield SqlKeyStore(database)
    except (DatabaseUnavailable, StoreUnavailable) as error:
        raise ConfigurationError(f"database_url: the database cannot be reached: {error}") from error
    except migrate.MigrationFailed as error:
        raise ConfigurationError(f"database_url: the database cannot be migrated: {error}") from error
    finally:
        await database.aclose()


def _opened(settings: Settings) -> Database:
    try:
        file = database_file(settings.database_url)
        database = Database(settings.database_url)
    except ValueError as error:
        raise ConfigurationError(f"database_url: {error}") from error
    if file is not None and not file.exists():
        raise ConfigurationError(
            f"database_url: there is no database at {file}. Run this where the gateway runs, or set "
            f"GATEWAY_DATABASE_URL; `responses-gateway serve` creates a new one with a first key"
        )
    return database


async def _bring_up_to_date(database: Database, settings: Settings) -> None:
    revision = await database.revision()
    if revision == REVISION:
        return
    if revision is None or not database.embedded:
        raise ConfigurationError(
            "database_url: the database schema is not that of this version; run `responses-gateway migrate`"
        )
    migrate.upgrade_apart(settings.database_url)


async def create(settings: Settings, project: str, name: str, days: float | None) -> NewKey:
    """Create a key and print it on standard output, on a line of its own."""
    expires = None if days is None else int(time.time() + days * _DAY)
    async with key_store(settings) as keys:
        made = await create_key(keys, project=project, name=name, expires_at=expires)
    print(made.secret)
    print(f"{made.key.id}, project '{made.key.project}'. Shown only once; only its hash is stored.", file=sys.stderr)
    return made


async def create_first(settings: Settings) -> str | None:
    """Create a key if there is none yet; returns its secret. Raises ConfigurationError."""
    async with key_store(settings) as keys:
        if await keys.list():
            return None
        return (await create_key(keys, project="default", name="first key")).secret


async def show(settings: Settings) -> None:
    """Print all keys, without their secrets."""
    async with key_store(settings) as keys:
        known = await keys.list()
    print(f"{'ID':28} {'PREFIX':13} {'PROJECT':20} {'NAME':20} {'CREATED':16} {'LAST USED':16} STATE")
    now = time.time()
    for key in known:
        state = _state(key, now)
        print(
            f"{key.id:28} {key.prefix:13} {key.project:20} {key.name:20} {_when(key.created_at):16} "
            f"{_when(key.last_used_at):16} {state}"
        )


async def revoke(settings: Settings, key: str) -> bool:
    """Revoke a key by id or prefix; False if there is none."""
    async with key_store(settings) as keys:
        revoked = await keys.revoke(key, int(time.time()))
    print(f"Revoked {key}; servers reject it within seconds." if revoked else f"There is no key '{key}'.")
    return revoked


def _state(key: ApiKey, now: float) -> str:
    if key.revoked_at:
        return "revoked"
    return "expired" if key.expires_at and key.expires_at <= now else "active"


def _when(seconds: int | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else "-"
