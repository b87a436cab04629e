"""URLs and methods that are not served: one error, which names the request and what is served instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from app.protocol.wire.errors import ApiError, MethodNotAllowed, NotFound
from app.shortening import printable

_LONGEST = 200
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_SERVED: Mapping[str, str] = {"/v1/responses": "POST"}
"""Endpoints that are not routes of the framework."""
_RESPONSES = "This server implements the Responses API: POST {root}/v1/responses."
_TURNS = (
    "Send instructions and tools with POST {root}/v1/responses, and continue a response with 'previous_response_id'."
)
_UPSTREAM = "Send this request to the model server directly."
_INSTEAD: Mapping[str, str] = {
    "api/chat": _RESPONSES,
    "api/generate": _RESPONSES,
    "api/tags": "The models are at GET {root}/v1/models.",
    "assistants": _TURNS,
    "audio": _UPSTREAM,
    "batches": "Send each request to POST {root}/v1/responses.",
    "chat": "This server implements the Responses API: POST {root}/v1/responses, with 'input' in place of 'messages'.",
    "completions": "This server implements the Responses API: POST {root}/v1/responses, with 'input' in place of "
    "'prompt'.",
    "deployments": "The URL must not contain a deployment: POST {root}/v1/responses, with the model's name in 'model'.",
    "embeddings": f"{_UPSTREAM} To search files, POST {{root}}/v1/vector_stores.",
    "fine_tuning": _UPSTREAM,
    "images": "To find images, use the tool 'web_search_image' in POST {root}/v1/responses.",
    "messages": _RESPONSES,
    "moderations": _UPSTREAM,
    "realtime": "Stream with 'stream': true in POST {root}/v1/responses.",
    "rerank": _UPSTREAM,
    "threads": _TURNS,
    "tokenize": _UPSTREAM,
    "uploads": "POST {root}/v1/files uploads a file in one request.",
    "v1": "The path contains /v1 twice: the client's base URL ends in /v1 and the client adds another; leave one out.",
}
"""Other APIs by path prefix, without `/v1`; the longest match counts."""
_ELSE = "GET {root}/openapi.json has the OpenAPI schema, and GET {root}/docs the interactive docs."


def error(routes: Sequence[BaseRoute], scope: Scope) -> ApiError:
    """The error for a request without a route: 405 if the URL supports other methods, otherwise 404."""
    root: str = scope.get("root_path", "")
    path: str = scope["path"].removeprefix(root)
    asked = f"{scope['method']} {_cleaned(scope.get('state', {}).get('path', path))}"
    allowed = _SERVED.get(path) or ", ".join(_methods(routes, scope))
    if allowed:
        return MethodNotAllowed(f"{asked} is not served: this URL supports {allowed}.", allowed)
    return NotFound(
        f"Unknown request URL: {asked} is not served. {_instead(path).format(root=root)}", code="unknown_url"
    )


def _instead(path: str) -> str:
    parts = path.removeprefix("/v1").strip("/").split("/")
    beginnings = ("/".join(parts[:count]) for count in range(min(len(parts), 2), 0, -1))
    return next((_INSTEAD[beginning] for beginning in beginnings if beginning in _INSTEAD), _ELSE)


def _methods(routes: Sequence[BaseRoute], scope: Scope) -> list[str]:
    """The methods of all routes with this path; the framework would name only those of the first one."""
    return [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _cleaned(path: str) -> str:
    shown = printable(path[:_LONGEST])
    return f"{shown}…" if len(path) > _LONGEST else shown
