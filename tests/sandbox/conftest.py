"""One service for each way to confine that holds on this machine, as root and as an ordinary user."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack

import pytest

from tests.sandbox.running import DoesNotHold, RunningSandbox, can_be_ordinary, can_have_rights, running_sandbox

Services = Callable[[str], RunningSandbox]


@pytest.fixture(scope="session")
def services() -> Generator[Services]:
    """Starts a service when it is first asked for: `landlock`, or `landlock-ordinary`; see `running_sandbox`."""
    started: dict[str, RunningSandbox] = {}
    with ExitStack() as stack:

        def service(name: str) -> RunningSandbox:
            if name not in started:
                backend, _, how = name.partition("-")
                reason = (
                    can_be_ordinary() if how == "ordinary" else can_have_rights() if how.startswith("rights") else None
                )
                if reason is not None:
                    pytest.skip(reason)
                try:
                    started[name] = stack.enter_context(running_sandbox(backend, how=how))
                except DoesNotHold as error:
                    pytest.skip(str(error))
            return started[name]

        yield service


@pytest.fixture(params=["bubblewrap", "landlock"])
def service(request: pytest.FixtureRequest, services: Services) -> RunningSandbox:
    """A service with each back end; tests share it."""
    return services(request.param)


@pytest.fixture(
    params=[
        "bubblewrap",
        "landlock",
        "bubblewrap-ordinary",
        "landlock-ordinary",
        "landlock-contained",
        "landlock-rights",
        "landlock-rights of nobody",
    ]
)
def service_of_anyone(request: pytest.FixtureRequest, services: Services) -> RunningSandbox:
    """The same, as an ordinary user, and in a container."""
    return services(request.param)


@pytest.fixture(scope="session")
def any_service() -> Generator[RunningSandbox]:
    """One with the best back end there is: what does not depend on it is tested once. Without any, no test passes."""
    with running_sandbox(None) as running:
        yield running


@pytest.fixture
def services_cpu() -> Generator[RunningSandbox]:
    """One that gives a run one second of CPU."""
    with running_sandbox(None, cpu_seconds=1) as running:
        yield running
