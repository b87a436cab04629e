"""The outermost ASGI application: request ids, path aliases, and the short way to the hot endpoint."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import RawHeaders, render
from app.api.openness import Openness
from app.engine.metering import Metrics
from app.protocol.errors import ApiError, InvalidRequest
from app.telemetry import log
from app.telemetry.request import RequestSummary, current

_OK = 200
_CREATE = "/v1/responses"
_CREATE_ALIASES = frozenset({_CREATE, "/responses", "/openai/v1/responses"})
_API = ("/responses", "/models", "/files", "/vector_stores", "/containers", "/tools")
USUAL_MODEL = "qwen3.7-plus"
_ROUTINE = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked for by machines all the time."""
_METHODS = ("GET", "POST", "DELETE")
_EXPOSED = ("x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "warning", "openai-poll-after-ms", "content-disposition")
"""What a page may read besides the fields every page may."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_ROUTES = frozenset(
    {
        "/v1/models",
        "/v1/tools",
        "/v1/responses",
        "/v1/responses/compact",
        "/v1/responses/input_tokens",
        "/v1/responses/{id}",
        "/v1/responses/{id}/cancel",
        "/v1/responses/{id}/input_items",
        "/v1/files",
        "/v1/files/{id}",
        "/v1/files/{id}/content",
        "/v1/containers",
        "/v1/containers/{id}",
        "/v1/containers/{id}/files",
        "/v1/containers/{id}/files/{id}",
        "/v1/containers/{id}/files/{id}/content",
        "/v1/vector_stores",
        "/v1/vector_stores/{id}",
        "/v1/vector_stores/{id}/search",
        "/v1/vector_stores/{id}/files",
        "/v1/vector_stores/{id}/files/{id}",
        "/v1/vector_stores/{id}/files/{id}/content",
        "/v1/vector_stores/{id}/file_batches",
        "/v1/vector_stores/{id}/file_batches/{id}",
        "/v1/vector_stores/{id}/file_batches/{id}/cancel",
        "/v1/vector_stores/{id}/file_batches/{id}/files",
    }
)
"""What is counted by itself; ids are left out, so that there are only so many counters."""
_MODEL = "/v1/models/{id}"
_ID = "{id}"
_OTHER = "other"
"""Every path that is not served, and requests that were answered before their path was looked at."""


def example_of(models: Sequence[str]) -> str:
    """One of these to show in an example, the usual one if it is among them or nothing is known."""
    return models[0] if models and USUAL_MODEL not in models else USUAL_MODEL


class Gateway:
    """Serves `/v1/…`, and the same under `/…` and `/openai/v1/…`; each with and without `root_path` before it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, openness: Openness | None, root_path: str = "") -> None:
        """`openness` says who may ask without a key; None: nobody."""
        self._app = app
        self._root_path = root_path
        self._create_paths = _CREATE_ALIASES | {root_path + path for path in _CREATE_ALIASES}
        self._create = app
        self._metrics = metrics
        self._openness = openness
        self.draining = False
        """The process has been told to stop."""
        self.models: Sequence[str] = ()
        """What can be asked for, as far as it was known at the start."""

    def serve(self, create: ASGIApp, models: Sequence[str]) -> None:
        """The endpoint of `POST /v1/responses` is ready."""
        self._create = create
        self.models = models

    @property
    def example_model(self) -> str:
        """A model that can be asked for, the usual one if nothing is known."""
        return example_of(self.models)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, path = time.perf_counter(), scope["path"]
        request_id, keys = _identified(scope)
        summary = RequestSummary(request_id, scope["method"])
        current.set(summary)  # of this request's task, and of those it starts
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "path": path}
        try:
            await self._dispatch(scope, path, keys, receive, send)
        finally:
            summary.end(began)
            log.write_request(summary, routine=summary.route in _ROUTINE and summary.status == _OK)

    def refused(self, error: ApiError, state: Mapping[str, str] | None) -> tuple[int, RawHeaders, bytes]:
        """Status, headers and body for a request that the server reads no further.

        `state`: of the request, where it has come here before; then it is logged and counted at its end, else now.
        """
        summary = RequestSummary((state or {}).get("request_id") or _new_id(), "-", _OTHER)
        before = current.set(summary)
        status, headers, body = _rendered(error, summary)
        if state is None:
            self._metrics.answered(summary.route, summary.method, status)
            log.write_request(summary)
        current.reset(before)
        return status, headers, body

    async def _dispatch(self, scope: Scope, path: str, keys: int, receive: Receive, send: Send) -> None:
        if keys > 1 or self._openness is not None:
            try:
                self._check(scope, keys)
            except ApiError as error:
                await self._refuse(error, scope, send)
                return
        if path in self._create_paths and scope["method"] == "POST":
            current.get().route = _CREATE
            await self._create(scope, receive, send)
        else:
            await self._cold(scope, path, receive, send)

    def _check(self, scope: Scope, keys: int) -> None:
        """Raises ApiError."""
        if keys > 1:
            raise InvalidRequest("The request has more than one Authorization header; send one.", code="ambiguous_api_key")
        if self._openness is not None:
            self._openness.check(scope)

    async def _refuse(self, error: ApiError, scope: Scope, send: Send) -> None:
        summary = current.get()
        summary.route = _route(_canonical(self._below_root(scope["path"])))
        status, headers, body = _rendered(error, summary)
        self._metrics.answered(summary.route, summary.method, status)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _cold(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        path = _canonical(self._below_root(path))
        full = self._root_path + path
        scope["root_path"], scope["path"], scope["raw_path"] = self._root_path, full, full.encode()
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

    def _below_root(self, path: str) -> str:
        """Some proxies leave the prefix on the path and some take it off."""
        below = path.removeprefix(self._root_path)
        return below if below.startswith("/") else path


class BrowserGateway(Gateway):
    """The same for pages of other origins, too (CORS)."""

    def __init__(self, app: ASGIApp, metrics: Metrics, openness: Openness | None, root_path: str, origins: Sequence[str]) -> None:
        """`origins` may read the answers; `*` is every one, and then without cookies, as browsers demand."""
        super().__init__(app, metrics, openness, root_path)
        self._checked = _Cors(
            super().__call__,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=["*"],
            allow_credentials="*" not in origins,
            allow_private_network=True,
            expose_headers=_EXPOSED,
        )
        self._checked.note = self._note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or dispatch and let the page read the answer."""
        await self._checked(scope, receive, send)

    def _note(self, preflight: Response) -> None:
        summary = RequestSummary(_new_id(), "OPTIONS", _OTHER, preflight.status_code)
        current.set(summary)
        preflight.headers["x-request-id"] = summary.request_id
        self._metrics.answered(summary.route, summary.method, summary.status)
        log.write_request(summary)


class _Cors(CORSMiddleware):
    """Preflights end here; they are logged and counted by `note`."""

    note: Callable[[Response], None]

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer whether the page may ask."""
        response = super().preflight_response(request_headers)
        self.note(response)
        return response


def _identified(scope: Scope) -> tuple[str, int]:
    """The client's `x-request-id` when it is harmless, else a new one; how many Authorization headers there are."""
    given: str | None = None
    keys = 0
    for name, value in scope["headers"]:
        if name == b"authorization":
            keys += 1
        elif name == b"x-request-id" and given is None and _REQUEST_ID.match(value):
            given = str(value, "ascii")
    return given or _new_id(), keys


def _rendered(error: ApiError, summary: RequestSummary) -> tuple[int, RawHeaders, bytes]:
    summary.status, headers, body = render(error)
    return summary.status, [*headers, (b"x-request-id", summary.request_id.encode())], body


def _new_id() -> str:
    return f"req_{os.urandom(16).hex()}"


def _canonical(path: str) -> str:
    path = path.removeprefix("/openai")
    return f"/v1{path}" if path.startswith(_API) else path


def _route(path: str) -> str:
    if path in _ROUTES or path in _ROUTINE:
        return path
    if path.startswith("/v1/models/"):
        return _MODEL  # its id may have slashes in it
    steps = path.split("/")
    steps[3:6:2] = [step and _ID for step in steps[3:6:2]]
    route = "/".join(steps)
    return route if route in _ROUTES else _OTHER


def _wants_websocket(scope: Scope) -> bool:
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in scope["headers"])


async def _refuse_websocket(send: Send) -> None:
    """426 is the one answer after which Codex falls back to SSE at once and in silence."""
    error = ApiError("WebSocket mode is not served; use HTTP with 'stream': true.", code="websocket_not_served")
    _, headers, body = render(error)
    start: dict[str, Any] = {"type": "http.response.start", "status": 426, "headers": [*headers, (b"upgrade", b"HTTP/1.1")]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
