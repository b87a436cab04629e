"""Fixtures for every test: the scripted upstream, the real gateway in front of it, the official client; databases are a
plugin.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import openai
import pytest
from hypothesis import settings

from tests.support.gateway import Gateway, running_gateway
from tests.support.upstream import ScriptedUpstream, serving

pytest_plugins = ["tests.support.backends", "tests.support.e2e_dialects"]

# No deadline: how fast an example runs says more about the machine than about the code. Derandomised: the same commit,
# the same verdict.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def upstream_server() -> Generator[ScriptedUpstream]:
    """The one server behind `upstream`; its address stays the same for all tests."""
    with serving(ScriptedUpstream()) as server:
        yield server


@pytest.fixture
def upstream(upstream_server: ScriptedUpstream) -> Generator[ScriptedUpstream]:
    """A scripted Qwen server without a history; what the test scripted has to be used up."""
    upstream_server.reset()
    yield upstream_server
    upstream_server.assert_consumed()


@pytest.fixture(scope="session")
def gateway(upstream_server: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Generator[Gateway]:
    """A gateway with default settings on SQLite, shared by all tests; those with other wishes call
    `running_gateway`.
    """
    with running_gateway(tmp_path_factory.mktemp("gateway"), upstream_server.url) as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway, upstream: ScriptedUpstream) -> AsyncGenerator[openai.AsyncOpenAI]:
    """The official client of the shared gateway, whose upstream has been reset."""
    async with gateway.client() as connected:
        yield connected


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the gateway's log beside the failure of a test that used it."""
    report = yield
    running = getattr(item, "funcargs", {}).get("gateway")
    if report.failed and isinstance(running, Gateway):
        report.sections.append(("gateway log (the end)", running.log()[-4000:]))
    return report
