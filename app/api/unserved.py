"""Addresses and methods that are not served: one error for all, which names what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from app.protocol.errors import ApiError, MethodNotAllowed, NotFound

_LONGEST = 200
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_SERVED: Mapping[str, str] = {"/v1/responses": "POST"}
"""What is no route of the framework."""
_INSTEAD: Mapping[str, str] = {
    "/v1/chat/completions": "This server speaks the Responses API: POST /v1/responses.",
    "/v1/completions": "This server speaks the Responses API: POST /v1/responses.",
    "/v1/messages": "This server speaks the Responses API: POST /v1/responses.",
    "/v1/conversations": "Continue a response with 'previous_response_id'.",
}


def error(routes: Sequence[BaseRoute], scope: Scope) -> ApiError:
    """What to answer where no route of the framework serves the request: 405 when the address is served for other methods, else 404."""
    path: str = scope["path"]
    asked = f"{scope['method']} {_cleaned(scope.get('state', {}).get('path', path))}"
    allowed = _SERVED.get(path) or ", ".join(_methods(routes, scope))
    if allowed:
        return MethodNotAllowed(f"{asked} is not served: this URL is for {allowed}.", allowed)
    hint = _INSTEAD.get(path.rstrip("/"), "GET /openapi.json lists what is.")
    return NotFound(f"Unknown request URL: {asked} is not served. {hint}", code="unknown_url")


def _methods(routes: Sequence[BaseRoute], scope: Scope) -> list[str]:
    """Those of every route of the path; the framework itself would name those of the first one only."""
    return [method for method in _METHODS if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)]


def _cleaned(path: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in path[:_LONGEST])
    return f"{shown}…" if len(path) > _LONGEST else shown
