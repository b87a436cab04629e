"""Gateways whose tools have something to work with: a site on loopback that they may fetch, which is also their search
engine.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import cast

import pytest

from tests.support.gateway import Gateway, running_gateway
from tests.support.mcp_server import McpServer, serving_mcp
from tests.support.services import Postgres, Valkey
from tests.support.site import Answer, Site, Visit, serving_site
from tests.support.upstream import ScriptedUpstream

PATIENT = {"fetch_allow": '["127.0.0.1"]', "fetch_robots": "false"}
SETTINGS = PATIENT | {"limits__tool_rounds": "4"}
"""The time limits are the usual ones: on a busy machine the first page and the first sandbox take long."""


@pytest.fixture(scope="session")
def site_server() -> Generator[Site]:
    """The one site behind `site`."""
    with serving_site() as site:
        yield site


@pytest.fixture
def site(site_server: Site) -> Site:
    """The site with nothing but a search engine: two results, of which the first is a page."""
    site_server.reset()
    site_server.pages["/a"] = Answer.html("<p>The tower is 321 metres high.</p>" * 3, title="Tower")
    site_server.pages["/search"] = lambda visit: found(site_server, visit)
    return site_server


def found(site: Site, visit: Visit) -> Answer:
    """What SearXNG answers; a search for images brings none."""
    if "categories=images" in visit.path:
        return Answer.json({"results": []})
    results = [
        {"url": site.url("/a"), "title": "Tower", "content": "How high the tower is.", "engine": "e", "score": 2.0},
        {"url": site.url("/b"), "title": "Other", "content": "Something else.", "engine": "e", "score": 1.0},
    ]
    return Answer.json({"query": "q", "results": results})


@pytest.fixture(scope="session")
def mcp_server() -> Generator[McpServer]:
    """The one server behind `mcp`."""
    with serving_mcp() as server:
        yield server


@pytest.fixture
def mcp(mcp_server: McpServer) -> McpServer:
    """An MCP server that nobody has asked yet."""
    mcp_server.reset()
    return mcp_server


@pytest.fixture(scope="session")
def sqlite_tools(
    upstream_server: ScriptedUpstream, site_server: Site, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Gateway]:
    """A gateway with tools on SQLite."""
    directory = tmp_path_factory.mktemp("sqlite-tools")
    with running_gateway(directory, upstream_server.url, searxng_url=site_server.origin, **SETTINGS) as running:
        yield running


@pytest.fixture(scope="session")
def postgres_tools(
    upstream_server: ScriptedUpstream,
    site_server: Site,
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Postgres,
    valkey: Valkey,
) -> Generator[Gateway]:
    """The same on Postgres and Redis, with nothing of a conversation kept in memory, as on another replica or after a
    restart.
    """
    postgres.execute("CREATE DATABASE tools TEMPLATE gateway_template")
    settings = SETTINGS | {
        "searxng_url": site_server.origin,
        "database_url": postgres.url("tools"),
        "redis_url": valkey.url,
    }
    settings["limits__context_cache_bytes"] = "0"
    with running_gateway(tmp_path_factory.mktemp("postgres-tools"), upstream_server.url, **settings) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def gateway(request: pytest.FixtureRequest, site: Site) -> Gateway:
    """The shared gateway on each back end in turn."""
    del site  # it has been reset
    return cast("Gateway", request.getfixturevalue("sqlite_tools" if request.param == "sqlite" else "postgres_tools"))


@pytest.fixture(scope="session")
def patient_sqlite(
    upstream_server: ScriptedUpstream, site_server: Site, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Gateway]:
    """As `sqlite_tools`, with as many rounds as usual."""
    directory = tmp_path_factory.mktemp("patient-sqlite")
    with running_gateway(directory, upstream_server.url, **PATIENT, searxng_url=site_server.origin) as running:
        yield running


@pytest.fixture(scope="session")
def patient_database(postgres: Postgres) -> str:
    """The database of `patient_postgres`."""
    postgres.execute("CREATE DATABASE patient TEMPLATE gateway_template")
    return postgres.url("patient")


@pytest.fixture(scope="session")
def patient_postgres(
    upstream_server: ScriptedUpstream,
    site_server: Site,
    tmp_path_factory: pytest.TempPathFactory,
    patient_database: str,
    valkey: Valkey,
) -> Generator[Gateway]:
    """The same on Postgres and Redis."""
    settings = PATIENT | {"searxng_url": site_server.origin, "database_url": patient_database, "redis_url": valkey.url}
    with running_gateway(tmp_path_factory.mktemp("patient-postgres"), upstream_server.url, **settings) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def patient(request: pytest.FixtureRequest, site: Site) -> Gateway:
    """The gateway with as many rounds as usual, on each back end in turn."""
    del site  # it has been reset
    return cast(
        "Gateway", request.getfixturevalue("patient_sqlite" if request.param == "sqlite" else "patient_postgres")
    )
