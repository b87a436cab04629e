"""No request is handed to another thread: that costs more than most routes do."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import iscoroutinefunction

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.api import health, models, tools
from app.api.containers import routes as containers
from app.api.files import routes as files
from app.api.responses import routes as responses
from app.api.vector_stores import routes as vector_stores

_ROUTES = [
    route
    for part in (responses, models, tools, files, vector_stores, containers, health)
    for route in part.router.routes
    if isinstance(route, APIRoute)
]


def _called(dependant: Dependant) -> Iterator[object]:
    """The route's function, and the dependencies that are called for it."""
    yield dependant.call
    for dependency in dependant.dependencies:
        yield from _called(dependency)


@pytest.mark.parametrize("route", _ROUTES, ids=lambda route: f"{route.name}")
def test_a_route_and_its_dependencies_are_coroutines(route: APIRoute) -> None:
    for called in _called(route.dependant):
        assert iscoroutinefunction(called) or iscoroutinefunction(getattr(called, "__call__", None)), called  # noqa: B004
