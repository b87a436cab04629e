"""Converts ApiError to the OpenAI error envelope; the only place that renders errors."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.api import unserved
from app.engine.upstreams import failures
from app.knowledge.ports.errors import KnowledgeUnavailable
from app.protocol.wire.errors import (
    ApiError,
    InvalidRequest,
    MethodNotAllowed,
    PayloadTooLarge,
    Unavailable,
    UnsupportedEncoding,
)
from app.stores.ports.errors import StoreUnavailable
from app.telemetry.request import current

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode

_MEMBER = re.compile(r"\[key\]|str|float|bool|(list|constrained-|function-).*")
RawHeaders = list[tuple[bytes, bytes]]


def render(error: ApiError) -> tuple[int, RawHeaders, bytes]:
    """Status, headers and body for the error; the request's log line gets the reason."""
    current.get().fail(error.code, None if failures.may_quote(error) else error.message, error.param)
    headers: RawHeaders = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(math.ceil(error.retry_after)).encode()))
        headers.append((b"retry-after-ms", str(math.ceil(error.retry_after * 1000)).encode()))
    if error.retryable is not None:
        headers.append((b"x-should-retry", b"true" if error.retryable else b"false"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    elif isinstance(error, UnsupportedEncoding):
        headers.append((b"accept-encoding", error.accepted.encode()))
    return error.status, headers, _encode(error.envelope())


def internal(request_id: str) -> ApiError:
    """Our own errors, as shown to clients: only the request id, to find the error in the log."""
    return ApiError(
        f"The server had an error while processing your request (request id {request_id}).", code="internal_error"
    )


def install(app: FastAPI) -> None:
    """Make every route return errors in the envelope."""
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)


async def _on_api_error(_request: Request, error: Exception) -> Response:
    return _answer(error if isinstance(error, ApiError) else internal("-"))


async def _on_store(_request: Request, error: Exception) -> Response:
    _log.error("store unavailable: %s", error)
    return _answer(failures.store_unavailable())


async def _on_knowledge(_request: Request, error: Exception) -> Response:
    _log.error("files unavailable: %s", error)
    return _answer(Unavailable("Files are unavailable at the moment.", code="store_unavailable", retry_after=1.0))


async def _on_validation(_request: Request, error: Exception) -> Response:
    problem: dict[str, Any] = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    if problem.get("type") == "json_invalid":
        return _answer(InvalidRequest("We could not parse the JSON body of your request.", code="json_parse_error"))
    name = _name(problem.get("loc", ()))
    return _answer(
        InvalidRequest(f"Invalid '{name}': {problem.get('msg', 'invalid')}.", code="invalid_value", param=name)
    )


async def _on_http(request: Request, error: Exception) -> Response:
    match error:
        case HTTPException(status_code=404 | 405):
            return _answer(unserved.error(request.app.routes, request.scope))
        case HTTPException(status_code=413):
            return _answer(PayloadTooLarge("The request body is too large.", code="request_too_large"))
        case _:
            return _answer(InvalidRequest("The request could not be served."))


async def _on_mistake(request: Request, _error: Exception) -> Response:
    """The framework re-raises the error, for the server's log."""
    return _answer(internal(request.scope["state"]["request_id"]))


_HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    Exception: _on_mistake,
    ApiError: _on_api_error,
    StoreUnavailable: _on_store,
    KnowledgeUnavailable: _on_knowledge,
    RequestValidationError: _on_validation,
    HTTPException: _on_http,
}


def _name(place: Sequence[str | int]) -> str:
    """The parameter: `metadata.key`, `files[0].file_id`. Without the framework's labels for members of a union."""
    name = ""
    for part in place[1:]:
        if isinstance(part, int):
            name += f"[{part}]"
        elif not _MEMBER.fullmatch(part):
            name += f".{part}" if name else part
    return name or (str(place[0]) if place else "request")


def _answer(error: ApiError) -> Response:
    status, headers, body = render(error)
    response = Response(body, status)
    response.raw_headers.extend(headers)
    return response
