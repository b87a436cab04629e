"""Pairs of gateways on one database, with the event log in Redis and in the database."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.background.pairs import Replicas, database, started
from tests.support.gateway import Gateway
from tests.support.services import Postgres, Valkey
from tests.support.upstream import ScriptedUpstream


@pytest.fixture(params=["redis", "postgresql"])
def replicas(
    request: pytest.FixtureRequest,
    postgres: Postgres,
    valkey: Valkey,
    upstream_server: ScriptedUpstream,
    tmp_path: Path,
) -> Generator[Replicas]:
    """Two gateways of this test's own, to be mistreated."""
    shared = {"redis_url": valkey.url} if request.param == "redis" else {}
    with ExitStack() as stack:
        yield started(stack, tmp_path, upstream_server, database_url=database(postgres), drain_seconds="20", **shared)


@pytest.fixture(scope="session")
def redis_pair(postgres_gateway: Gateway, replica: Gateway) -> Replicas:
    """Two gateways, shared by all tests, with the event log in Redis."""
    return postgres_gateway, replica


@pytest.fixture(scope="session")
def postgresql_pair(
    postgres: Postgres, upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Replicas]:
    """Two gateways, shared by all tests, with the event log in the database."""
    with ExitStack() as stack:
        yield started(stack, tmp_path_factory.mktemp("pair"), upstream_server, database_url=database(postgres))


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def places(request: pytest.FixtureRequest) -> Replicas:
    """Where a response is created, and where it is read: one gateway on SQLite, or two with each event log."""
    if request.param == "sqlite":
        alone: Gateway = request.getfixturevalue("sqlite_gateway")
        return alone, alone
    found: Replicas = request.getfixturevalue(f"{request.param}_pair")
    return found


@pytest.fixture(params=["redis", "postgresql"])
def pair(request: pytest.FixtureRequest) -> Replicas:
    """The shared gateways, with each event log."""
    found: Replicas = request.getfixturevalue(f"{request.param}_pair")
    return found
