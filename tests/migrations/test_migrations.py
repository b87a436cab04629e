"""The migrations make exactly the schema of `app/db/tables.py`, on both engines, forwards and backwards."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select, text

from app.db.engine import Database
from app.db.migrate import MigrationFailed, upgrade_apart
from app.db.tables import REVISION, metadata, vector_store_files
from app.stores.sql import SqlResponseStore
from app.stores.sql_runs import SqlRunStore
from tests.stores.records import LEASE, LIFE, PROJECT, run, turn

ROOT = Path(__file__).parents[2]
_STORE = text(
    "INSERT INTO vector_stores (id, project_id, created_at, name, metadata, last_active_at) "
    "VALUES ('vs', 'p', 0, '', '', 0)"
)
_JOB = text(
    "INSERT INTO vector_store_files (vector_store_id, file_id, project_id, created_at, status, attributes, chunk_size, "
    "chunk_overlap, usage_bytes, attempts, due_at) "
    "VALUES ('vs', :file, 'p', 0, 'in_progress', '', 800, 400, 0, 0, :due)"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a schema."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/made/on/the/way/gateway.db"
    url: str = request.getfixturevalue("postgres_url")
    _alembic(url, "downgrade", "base")
    return url


def _alembic(url: str, *arguments: str) -> str:
    """Run the command line as a developer does."""
    environment = {**os.environ, "GATEWAY_DATABASE_URL": url}
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def _revision(url: str) -> str | None:
    database = Database(url)
    try:
        return await database.revision()
    finally:
        await database.aclose()


async def test_up_down_up(empty_url: str) -> None:
    upgrade_apart(empty_url)
    assert await _revision(empty_url) == REVISION
    assert "No new upgrade operations" in _alembic(empty_url, "check")
    _alembic(empty_url, "downgrade", "base")
    assert await _revision(empty_url) is None
    upgrade_apart(empty_url)
    upgrade_apart(empty_url)
    assert await _revision(empty_url) == REVISION
    assert "No new upgrade operations" in _alembic(empty_url, "check")


async def test_a_database_that_is_in_use_keeps_its_responses(database_url: str) -> None:
    _alembic(database_url, "downgrade", "0004")
    database = Database(database_url)
    responses = SqlResponseStore(database, retention_seconds=LIFE)
    before = turn("before", items=("item",))
    await responses.save(before)
    upgrade_apart(database_url)
    waiting = run(after=before.id)
    await SqlRunStore(database).create(waiting, None, LEASE)
    assert await responses.get(PROJECT, before.id, now=1) == msgspec.structs.replace(before, foreign_item_ids=())
    assert await responses.locate_item(PROJECT, "item", now=1) == before.id
    await database.aclose()


async def test_jobs_of_files_are_due_as_they_were(database_url: str) -> None:
    """Also on the way back; times become milliseconds."""
    _alembic(database_url, "downgrade", "0007")
    database = Database(database_url)
    before = {"held": 1_790_000_000, "changed": 0, "done": None}
    async with database.transaction() as connection:
        await connection.execute(_STORE)
        for file, due in before.items():
            await connection.execute(_JOB, {"file": file, "due": due})
    upgrade_apart(database_url)
    assert await _due(database) == {"held": 1_790_000_000_000, "changed": 0, "done": None}
    _alembic(database_url, "downgrade", "0007")
    assert await _due(database) == before
    await database.aclose()


async def _due(database: Database) -> dict[str, int | None]:
    rows = await database.fetch(select(vector_store_files.c.file_id, vector_store_files.c.due_at))
    return {row["file_id"]: row["due_at"] for row in rows}


async def test_replicas_that_start_together_migrate_once(empty_url: str) -> None:
    with ThreadPoolExecutor(3) as replicas:
        list(replicas.map(upgrade_apart, [empty_url] * 3))
    assert await _revision(empty_url) == REVISION


async def test_a_database_that_is_not_there_is_explained() -> None:
    with pytest.raises(MigrationFailed, match=r"refused|Connect"):
        upgrade_apart("postgresql+asyncpg://nobody@127.0.0.1:1/none")


async def test_a_newer_schema_is_refused_and_left_alone(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url)
    async with database.transaction() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    await database.aclose()
    environment = {
        **os.environ,
        "GATEWAY_DATABASE_URL": database_url,
        "GATEWAY_UPSTREAM_DIALECT": "demo",
        "GATEWAY_PORT": "0",
    }
    for command in ("serve", "migrate", "doctor"):
        done = subprocess.run(  # noqa: ASYNC221 - nothing else is under way
            [sys.executable, "-m", "app.cli", command],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert f"the schema is at revision 9999, but this version of the gateway supports only up to {REVISION}" in said
        assert "Traceback" not in said
    with pytest.raises(MigrationFailed, match="the schema is at revision 9999"):
        upgrade_apart(database_url)
    assert await _revision(database_url) == "9999"


def test_the_revision_the_server_expects_is_the_newest() -> None:
    assert _alembic("sqlite+aiosqlite:///unused.db", "heads").split()[0] == REVISION


def test_the_serving_process_never_loads_alembic() -> None:
    code = (
        "import app.db.engine, app.db.migrate, app.stores.sql, sys; assert not {'alembic', 'mako', 'asyncpg', 'redis'} "
        "& set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_json_is_kept_as_bytes() -> None:
    kinds = {str(column.type) for table in metadata.tables.values() for column in table.columns}
    assert kinds == {"BIGINT", "BLOB", "BOOLEAN", "TEXT", "VARCHAR(36)"}
