"""Servers for the end-to-end tests. A test with `gateway` or `client` runs on SQLite, and again on Postgres with Redis.

`pytest.mark.parametrize("gateway", ["sqlite"], indirect=True)` keeps a test to one of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import cast

import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.processes import PATIENCE
from tests.support.services import Postgres, Valkey
from tests.support.upstream import ScriptedUpstream

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shared_database(postgres: Postgres) -> str:
    """The Postgres database of the replicas."""
    postgres.execute("CREATE DATABASE e2e TEMPLATE gateway_template")
    return postgres.url("e2e")


@pytest.fixture(scope="session")
def sqlite_gateway(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    """A gateway with default settings, shared by all tests."""
    with running_gateway(tmp_path_factory.mktemp("sqlite-gateway"), upstream_server.url) as running:
        yield running


@pytest.fixture(scope="session")
def postgres_gateway(
    upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory, shared_database: str, valkey: Valkey
) -> Generator[Gateway]:
    """A gateway on Postgres and Redis, shared by all tests."""
    directory = tmp_path_factory.mktemp("postgres-gateway")
    with running_gateway(directory, upstream_server.url, database_url=shared_database, redis_url=valkey.url) as running:
        yield running


@pytest.fixture(scope="session")
def replica(
    upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory, shared_database: str, valkey: Valkey
) -> Generator[Gateway]:
    """Another process on the database and the Redis of `postgres_gateway`."""
    directory = tmp_path_factory.mktemp("replica")
    with running_gateway(directory, upstream_server.url, database_url=shared_database, redis_url=valkey.url) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def gateway(request: pytest.FixtureRequest) -> Gateway:
    """The shared gateway on each back end in turn."""
    return cast(
        "Gateway", request.getfixturevalue("sqlite_gateway" if request.param == "sqlite" else "postgres_gateway")
    )


@pytest.fixture
def database_url(gateway: Gateway, request: pytest.FixtureRequest) -> str:
    """The database of `gateway`."""
    path = gateway.log_file.parent / "gateway.db"
    return f"sqlite+aiosqlite:///{path}" if path.exists() else cast("str", request.getfixturevalue("shared_database"))


@pytest.fixture
def command(database_url: str) -> Callable[..., str]:
    """Runs the console script on the database of `gateway` and returns what it printed."""

    def run(*arguments: str) -> str:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        finished = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            cwd=_ROOT,
            env=inherited | {"GATEWAY_DATABASE_URL": database_url},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run
