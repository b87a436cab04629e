"""What requests are counted as: every route by itself, whatever ids are in its path."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Message, Scope

from app.api import errors, health, models, tools
from app.api.containers import routes as containers
from app.api.files import routes as files
from app.api.gateway import Gateway
from app.api.responses import routes as responses
from app.api.vector_stores import routes as vector_stores
from app.engine.metrics import Metrics

_SERVED = [
    (method, route.path)
    for part in (responses, models, tools, files, vector_stores, containers)
    for route in part.router.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
]


async def _counted(path: str, method: str = "GET", *, keys: int = 1) -> str:
    """The route under which one request for the path is counted."""
    metrics = Metrics()
    app = FastAPI(redirect_slashes=False)
    routers = [part.router for part in (responses, models, tools, files, vector_stores, containers, health)]
    for router in routers:
        app.include_router(router)
    errors.install(app)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Message) -> None:
        return

    headers = [(b"authorization", b"Bearer sk-none")] * keys
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }
    with suppress(AttributeError):  # the routes have no services here
        await Gateway(app, [route for router in routers for route in router.routes], metrics, None)(
            scope, receive, send
        )
    (route,) = re.findall(r'gateway_http_requests_total\{[^}]*?route="(.*?)"[,}]', metrics.render().decode())
    return route


@pytest.mark.parametrize(("method", "path"), _SERVED)
async def test_every_route_is_counted_by_itself(method: str, path: str) -> None:
    expected = re.sub(r"\{\w+(:path)?\}", "{id}", path)

    asked = re.sub(r"\{\w+(:path)?\}", "x_1", path)
    assert await _counted(asked, method) == expected
    assert await _counted(asked, method, keys=2) == expected


def test_there_are_routes_to_count() -> None:
    assert len(_SERVED) > 30


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/responses/resp_1/cancel", "/v1/responses/{id}/cancel"),
        ("/openai/v1/files/file_1/content", "/v1/files/{id}/content"),
        ("/v1/models/Qwen/Qwen3-8B", "/v1/models/{id}"),
        ("/v1/files/content", "/v1/files/{id}"),
        ("/v1/vector_stores/files/files/content", "/v1/vector_stores/{id}/files/{id}"),
        ("/v1/responses/a/b", "other"),
        ("/v1/responses/a/cancel/b", "other"),
        ("/v1/files//content", "other"),
        ("/v1/files/a/content/b/content/c", "other"),
        ("/v1/nothing", "other"),
        ("/healthz", "/healthz"),
        ("/", "other"),
    ],
)
async def test_other_ways_to_write_a_path(path: str, route: str) -> None:
    assert await _counted(path) == route
