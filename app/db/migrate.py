"""Bring a database to the current schema: `python -m app.db.migrate` (the URL comes from the settings).

A server runs it as a separate process, since Alembic and its templates would otherwise stay in memory.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from app.db.engine import Database, parse_url
from app.db.sqlite import make_private
from app.db.tables import REVISION
from app.settings import ConfigurationError, load

if TYPE_CHECKING:
    from alembic.config import Config

_HERE = Path(__file__).resolve().parent

# In a wheel the migrations are beside this file, in the repository they are at its root.
_PLACES = (_HERE / "migrations", _HERE.parents[1] / "migrations")


class SchemaTooNew(ConfigurationError):
    """The database was migrated by a newer version of the gateway."""


class MigrationFailed(Exception):
    """The database could not be migrated to the current schema; the message says why."""


def configuration(url: str) -> Config:
    """Alembic's configuration for one database."""
    from alembic.config import Config  # noqa: PLC0415 - see the module's docstring

    config = Config()
    config.set_main_option("script_location", str(next(place for place in _PLACES if place.is_dir())))
    config.attributes["url"] = url
    return config


def refuse_newer(revision: str | None) -> None:
    """Raises SchemaTooNew for a schema that this version does not know: it could neither read nor downgrade it
    safely.
    """
    if revision is not None and revision > REVISION:
        raise SchemaTooNew(
            f"database_url: the schema is at revision {revision}, but this version of the gateway supports only up to "
            f"{REVISION}. A newer version has migrated the database: run that version, or restore an earlier backup."
        )


def upgrade(url: str) -> None:
    """Run all missing migrations; several processes may call it at once. Must not be called from a running event loop.

    Raises SchemaTooNew.
    """
    from alembic import command  # noqa: PLC0415 - see the module's docstring

    parsed = parse_url(url)
    if parsed.drivername.startswith("sqlite") and parsed.database:
        Path(parsed.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(parsed.database)
    refuse_newer(asyncio.run(_revision(url)))
    command.upgrade(configuration(url), "head")


async def _revision(url: str) -> str | None:
    database = Database(url)
    try:
        return await database.revision()
    finally:
        await database.aclose()


def upgrade_apart(url: str) -> None:
    """`upgrade` in a separate process, blocking until it ends. Raises MigrationFailed."""
    environment = {**os.environ, "GATEWAY_DATABASE_URL": url}
    environment.pop("GATEWAY_DATABASE_URL_FILE", None)  # setting both is an error
    done = subprocess.run(
        [sys.executable, "-m", "app.db.migrate"], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise MigrationFailed(done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}")


if __name__ == "__main__":
    try:
        upgrade(load().database_url)
    except (ConfigurationError, ValueError) as mistake:
        sys.exit(str(mistake))
