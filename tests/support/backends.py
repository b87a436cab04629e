"""Databases and Redis for tests, as a pytest plugin: real servers per session, a fresh database or key space for every
test.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import cast

import pytest

from app.db.engine import Database
from app.db.migrate import upgrade_apart
from tests.support.services import Postgres, Valkey

_TEMPLATE = "gateway_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Generator[Postgres]:
    """The session's Postgres, with a migrated database to copy from."""
    with Postgres() as server:
        server.execute(f"CREATE DATABASE {_TEMPLATE}")
        upgrade_apart(server.url(_TEMPLATE))
        yield server


@pytest.fixture(scope="session")
def valkey() -> Generator[Valkey]:
    """The session's Valkey."""
    with Valkey() as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade_apart(f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database for this test only."""
    path = shutil.copy(sqlite_template, tmp_path / "gateway.db")
    return f"sqlite+aiosqlite:///{path}"


@pytest.fixture
def postgres_url(postgres: Postgres) -> Generator[str]:
    """A migrated Postgres database for this test only."""
    name = f"gateway_{next(_numbers)}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    yield postgres.url(name)
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """An empty Redis database for this test only."""
    return f"redis://127.0.0.1:{valkey.port}/{next(_numbers) % 1000}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database, on each engine in turn."""
    return cast("str", request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    """The database behind `database_url`."""
    opened = Database(database_url)
    yield opened
    await opened.aclose()
