"""The outermost ASGI application: request ids, path aliases, and the short way to the hot endpoint."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import render
from app.engine.metering import Metrics
from app.protocol.errors import ApiError
from app.telemetry import log
from app.telemetry.request import RequestSummary, current

_OK = 200
_CREATE = "/v1/responses"
_CREATE_ALIASES = frozenset({_CREATE, "/responses", "/openai/v1/responses"})
_API = ("/responses", "/models", "/files", "/vector_stores", "/containers", "/tools")
_ROUTINE = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked for by machines all the time."""
_METHODS = ("GET", "POST", "DELETE")
_EXPOSED = ("x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "warning", "openai-poll-after-ms", "content-disposition")
"""What a page may read besides the fields every page may."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_ROUTES = re.compile(
    r"(/v1/(?:responses|models|files|vector_stores))(/[^/]+)?"
    r"(/(?:input_items|content|search|files|file_batches))?(/[^/]+)?(/(?:content|cancel|files))?"
)
"""What is counted by itself; ids are left out, so that there are only so many counters."""


class Gateway:
    """Serves `/v1/…`, and the same under `/…` and `/openai/v1/…`."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._create = app
        self._metrics = metrics
        self.draining = False
        """The process has been told to stop."""
        self.models: Sequence[str] = ()
        """What can be asked for, as far as it was known at the start."""

    def serve(self, create: ASGIApp, models: Sequence[str]) -> None:
        """The endpoint of `POST /v1/responses` is ready."""
        self._create = create
        self.models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, path = time.perf_counter(), scope["path"]
        summary = RequestSummary(_request_id(scope), scope["method"])
        current.set(summary)  # of this request's task, and of those it starts
        scope["state"] = {**scope.get("state", {}), "request_id": summary.request_id, "path": path}
        try:
            if path in _CREATE_ALIASES and scope["method"] == "POST":
                summary.route = _CREATE
                await self._create(scope, receive, send)
            else:
                await self._cold(scope, path, receive, send)
        finally:
            summary.end(began)
            log.write_request(summary, routine=path in _ROUTINE and summary.status == _OK)

    async def _cold(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        path = _canonical(path)
        scope["path"], scope["raw_path"] = path, path.encode()
        scope["state"]["draining"] = self.draining
        summary = current.get()
        request_id = (b"x-request-id", summary.request_id.encode())
        summary.route = route = _route(path)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), request_id]
                summary.status = message["status"]
                self._metrics.answered(route, scope["method"], summary.status)
            await send(message)

        if path == _CREATE and _wants_websocket(scope):
            await _refuse_websocket(send_with_id)
        else:
            await self._app(scope, receive, send_with_id)


class BrowserGateway(Gateway):
    """The same for pages of other origins, too (CORS)."""

    def __init__(self, app: ASGIApp, metrics: Metrics, origins: Sequence[str]) -> None:
        """`origins` may read the answers; `*` is every one, and then without cookies, as browsers demand."""
        super().__init__(app, metrics)
        self._checked = CORSMiddleware(
            super().__call__,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=["*"],
            allow_credentials="*" not in origins,
            allow_private_network=True,
            expose_headers=_EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or dispatch and let the page read the answer."""
        await self._checked(scope, receive, send)


def _request_id(scope: Scope) -> str:
    """The client's `x-request-id` when it is harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.match(value):
            return str(value, "ascii")
    return f"req_{os.urandom(16).hex()}"


def _canonical(path: str) -> str:
    path = path.removeprefix("/openai")
    return f"/v1{path}" if path.startswith(_API) else path


def _route(path: str) -> str:
    match = _ROUTES.fullmatch(path)
    if match is None:
        return path if path in _ROUTINE else "other"
    kind, one, part, other, last = match.groups(default="")
    return f"{kind}{one and '/{id}'}{part}{other and '/{id}'}{last}"


def _wants_websocket(scope: Scope) -> bool:
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in scope["headers"])


async def _refuse_websocket(send: Send) -> None:
    """426 is the one answer after which Codex falls back to SSE at once and in silence."""
    error = ApiError("WebSocket mode is not served; use HTTP with 'stream': true.", code="websocket_not_served")
    _, headers, body = render(error)
    start: dict[str, Any] = {"type": "http.response.start", "status": 426, "headers": [*headers, (b"upgrade", b"HTTP/1.1")]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
