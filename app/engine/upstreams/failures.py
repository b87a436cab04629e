"""Failures as the client is told of them: before the first byte as an HTTP error, after it inside the response."""

from __future__ import annotations

import logging

from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.wire.errors import ApiError, InvalidRequest, NotFound, RateLimited, Unavailable
from app.protocol.wire.response import ResponseError
from app.providers.base import UpstreamError
from app.stores.ports.errors import StoreUnavailable

_log = logging.getLogger(__name__)
_BAD_GATEWAY = 502


class ModelFailure(Exception):
    """The model did not do what the request demands, also when told again."""


def to_api(error: UpstreamError) -> ApiError:
    """The HTTP error for a failure before anything was sent."""
    code, param, retry_after = error.code, error.param, error.retry_after
    match error.status:
        case 404:
            return NotFound(error.message, code=code or "model_not_found", param=param)
        case 429:
            wait = retry_after or 1.0
            return RateLimited(f"{error.message} Please try again in {wait:g}s.", code=code, param=param, retry_after=wait)
        case status if 400 <= status < 500:  # noqa: PLR2004 - the class of client errors
            return InvalidRequest(error.message, code=code, param=param)
        case status:
            # 503 and 504 are about time: they pass, also where this server does not try again by itself.
            passes = error.retryable or status != _BAD_GATEWAY
            return Unavailable(error.message, status=status, code=code, param=param, retry_after=retry_after, passes=passes)


def store_unavailable() -> ApiError:
    """The database is unavailable; reading and storing wait for it."""
    return Unavailable("The database is unavailable.", code="store_unavailable", retry_after=1.0)


def server_is_stopping() -> ApiError:
    """The process has been told to stop."""
    return Unavailable("The server is stopping.", code="server_is_stopping", retry_after=1.0)


def inside(error: Exception, response_id: str) -> ResponseError:
    """The `error` of a response that has begun. Of what nobody expected only the log says more."""
    match error:
        case UpstreamError() | ApiError():
            return ResponseError(_response_code(error), error.message)
        case ModelFailure() | InvalidArguments():
            return ResponseError("server_error", str(error))
        case _:
            _log.error("response %s failed", response_id, exc_info=error)
            return ResponseError("server_error", "The gateway failed while generating the response.")


def _response_code(error: UpstreamError | ApiError) -> str:
    """The `error.code` of a failed response: one of those the SDKs list."""
    match error.status:
        case 429:
            return "rate_limit_exceeded"
        case 400:
            return "invalid_prompt"
        case _:
            return "server_error"


def may_quote(error: Exception) -> bool:
    """Whether the sentence may hold what the client sent, which no log may."""
    return isinstance(error, UpstreamError | ApiError) and error.status == InvalidRequest.status


def code(error: Exception) -> str:
    """A failure's name in log and metrics; finer than what the API tells."""
    match error:
        case UpstreamError() | ApiError():
            return error.code or "upstream_error"
        case ModelFailure() | InvalidArguments():
            return "model_failure"
        case StoreUnavailable():
            return "store_unavailable"
        case _:
            return "internal_error"


def plain(error: ResponseError, cause: Exception | None) -> ApiError:
    """The HTTP error for a plain request whose response failed for `cause`."""
    match cause:
        case UpstreamError():
            return to_api(cause)
        case StoreUnavailable():
            return store_unavailable()
        case _:
            return Unavailable(error.message, status=502, code=error.code)
