"""The outermost ASGI application: request ids, path aliases, and the direct path to the hot endpoint."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import RawHeaders, render
from app.api.openness import Openness
from app.api.responses.websocket.handshake import deny
from app.engine.metrics import Metrics
from app.protocol.wire.errors import ApiError, InvalidRequest
from app.telemetry import log
from app.telemetry.request import RequestSummary, current

_OK = 200
_CREATE = "/v1/responses"
_CREATE_ALIASES = frozenset({_CREATE, "/responses", "/openai/v1/responses"})
USUAL_MODEL = "qwen3.7-plus"
_ROUTINE = frozenset({"/healthz", "/readyz", "/metrics"})
"""Requested by monitoring all the time."""
_METHODS = ("GET", "POST", "DELETE")
_EXPOSED = (
    "x-request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "warning",
    "openai-poll-after-ms",
    "content-disposition",
)
"""Response headers that web pages may read, besides the default ones."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_PARAMETER = re.compile(r"\{.*?\}")
_OTHER = "other"
_HANDSHAKE_ENDS = frozenset({"websocket.accept", "websocket.http.response.start"})


def example_of(models: Sequence[str]) -> str:
    """The model to show in examples: the usual one if it is listed or no model is known, otherwise the first."""
    return models[0] if models and USUAL_MODEL not in models else USUAL_MODEL


class Gateway:
    """Serves `/v1/…`, and the same under `/…` and `/openai/v1/…`; each with and without `root_path` before it."""

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[BaseRoute],
        metrics: Metrics,
        openness: Openness | None,
        root_path: str = "",
    ) -> None:
        """`app` serves `routes`. `openness` decides which requests are accepted without a key; None: none."""
        self._app = app
        self._routes = routes
        self._areas = _areas(routes)
        self._root_path = root_path
        self._create_paths = _CREATE_ALIASES | {root_path + path for path in _CREATE_ALIASES}
        self._create = app
        self._websockets: ASGIApp | None = None
        self._metrics = metrics
        self._openness = openness
        self.draining = False
        """The process has received a stop signal."""
        self._drain: Callable[[], None] | None = None
        self.models: Sequence[str] = ()
        """The models known at startup."""

    def serve(
        self, create: ASGIApp, websockets: ASGIApp | None, models: Sequence[str], drain: Callable[[], None]
    ) -> None:
        """The endpoints of `/v1/responses` are ready, over HTTP and over WebSocket.

        `drain` is called at each stop signal.
        """
        self._create = create
        self._websockets = websockets
        self._drain = drain
        self.models = models

    def serves_websocket(self, url: bytes) -> bool:
        """Whether a WebSocket may be opened at this URL."""
        return self._websockets is not None and url.partition(b"?")[0].decode("latin-1") in self._create_paths

    def drain(self) -> None:
        """The process has received a stop signal."""
        if self._drain is not None:
            self._drain()

    @property
    def example_model(self) -> str:
        """An available model, or the usual one if none is known."""
        return example_of(self.models)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch."""
        if scope["type"] == "websocket" and self._websockets is not None:
            await self._upgrade(self._websockets, scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, path = time.perf_counter(), scope["path"]
        request_id, keys = _identified(scope)
        summary = RequestSummary(request_id, scope["method"])
        current.set(summary)  # of this request's task, and of those it starts
        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "path": path}
        try:
            refusal = self._refusal(scope, keys) if keys > 1 or self._openness is not None else None
            if refusal is not None:
                await self._refuse(refusal, scope, send)
            elif path in self._create_paths and scope["method"] == "POST":
                summary.route = _CREATE
                await self._create(scope, receive, send)
            else:
                await self._cold(scope, path, receive, send)
        finally:
            summary.end(began)
            log.write_request(summary, routine=summary.route in _ROUTINE and summary.status == _OK)

    async def _upgrade(self, websockets: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket. Its handshake is logged and counted when it is answered."""
        began = time.perf_counter()
        request_id, keys = _identified(scope)
        summary = RequestSummary(request_id, "GET", _CREATE)
        current.set(summary)
        scope = {**scope, "method": "GET", "state": {**scope.get("state", {}), "request_id": request_id}}

        async def send_and_note(message: Message) -> None:
            if message["type"] in _HANDSHAKE_ENDS:
                summary.status = message.get("status", 101)
                self._metrics.answered(summary.route, summary.method, summary.status)
                summary.end(began)
                log.write_request(summary)
            await send(message)

        refusal = self._refusal(scope, keys) if keys > 1 or self._openness is not None else None
        if refusal is not None:
            await deny(refusal, request_id, send_and_note)
        else:
            await websockets(scope, receive, send_and_note)

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

    def _refusal(self, scope: Scope, keys: int) -> ApiError | None:
        if keys > 1:
            return InvalidRequest(
                "The request has more than one Authorization header; send one.", code="ambiguous_api_key"
            )
        if self._openness is not None:
            try:
                self._openness.check(scope)
            except ApiError as error:
                return error
        return None

    async def _refuse(self, error: ApiError, scope: Scope, send: Send) -> None:
        summary = current.get()
        summary.route = self._route_of(scope)
        status, headers, body = _rendered(error, summary)
        self._metrics.answered(summary.route, summary.method, status)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _cold(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        path = self._canonical(path)
        full = self._root_path + path
        scope["root_path"], scope["path"], scope["raw_path"] = self._root_path, full, full.encode()
        scope["state"]["draining"] = self.draining
        summary = current.get()
        request_id = (b"x-request-id", summary.request_id.encode())
        summary.route = _OTHER

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), request_id]
                route = scope.get("route")  # which the framework has found
                summary.route, summary.status = (
                    _label(route.path_format) if isinstance(route, Route) else _OTHER,
                    message["status"],
                )
                self._metrics.answered(summary.route, scope["method"], summary.status)
            await send(message)

        if path == _CREATE and _wants_websocket(scope):
            await _refuse_websocket(send_with_id, served=self._websockets is not None)
        else:
            await self._app(scope, receive, send_with_id)

    def _canonical(self, path: str) -> str:
        """Below the root, which some proxies leave on the path and some take off, and with `/v1` in place of
        an alias.
        """
        below = path.removeprefix(self._root_path)
        path = (below if below.startswith("/") else path).removeprefix("/openai")
        return f"/v1{path}" if path.startswith(self._areas) else path

    def _route_of(self, scope: Scope) -> str:
        """The name of the route of a request that does not reach it."""
        path = self._canonical(scope["path"])
        if path == _CREATE:
            return _CREATE
        wanted = {**scope, "path": path, "root_path": ""}
        matches = [
            (route.matches(wanted)[0].value, route.path_format) for route in self._routes if isinstance(route, Route)
        ]
        match, found = max(matches, key=itemgetter(0), default=(Match.NONE.value, ""))
        return _label(found) if match != Match.NONE.value else _OTHER


class BrowserGateway(Gateway):
    """A gateway that pages of other origins may call (CORS)."""

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[BaseRoute],
        metrics: Metrics,
        openness: Openness | None,
        root_path: str = "",
        origins: Sequence[str] = (),
    ) -> None:
        """`origins` may read the responses; `*` allows all, without credentials, as browsers require."""
        super().__init__(app, routes, metrics, openness, root_path)
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
        """Answer a preflight, or dispatch and let the page read the response."""
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
    """The client's `x-request-id` if it is safe, otherwise a new one; the number of Authorization headers."""
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


@lru_cache(maxsize=256)
def _label(path: str) -> str:
    """A route's name: its path, with every id as `{id}`, so that the number of counters is bounded."""
    return _PARAMETER.sub("{id}", path) if path.startswith("/v1/") or path in _ROUTINE else _OTHER


def _areas(routes: Sequence[BaseRoute]) -> tuple[str, ...]:
    """`/responses`, `/models`…: the first step behind `/v1` of every route."""
    paths = [route.path for route in routes if isinstance(route, Route) and route.path.startswith("/v1/")]
    return tuple(sorted({f"/{path.split('/')[2]}" for path in (*paths, _CREATE)}))


def _wants_websocket(scope: Scope) -> bool:
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in scope["headers"])


async def _refuse_websocket(send: Send, *, served: bool) -> None:
    """426 is the only status after which Codex falls back to SSE immediately and silently.

    `served`: only this handshake is not valid.
    """
    if served:
        message = "The WebSocket handshake is not valid: send a GET with the headers of RFC 6455, version 13."
        error = InvalidRequest(message, code="invalid_websocket_handshake")
    else:
        error = ApiError("WebSocket mode is not served; use HTTP with 'stream': true.", code="websocket_not_served")
    _, headers, body = render(error)
    upgrade = [(b"sec-websocket-version", b"13")] if served else [(b"upgrade", b"HTTP/1.1")]
    status = error.status if served else 426
    start: dict[str, Any] = {"type": "http.response.start", "status": status, "headers": [*headers, *upgrade]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
