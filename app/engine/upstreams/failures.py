"""Failures as clients see them: before the first byte an HTTP error, after it an error inside the response."""

from __future__ import annotations

import logging

from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.wire.errors import ApiError, InvalidRequest, NotFound, RateLimited, Unavailable
from app.protocol.wire.response import ResponseError
from app.providers.base import UpstreamError
from app.stores.ports.errors import StoreUnavailable

_log = logging.getLogger(__name__)
_BAD_GATEWAY = 502


STOPPED = ResponseError("server_error", "The server was stopped before the response was complete.")
"""Of a response whose process has ended."""


class ModelFailure(Exception):
    """The model did not do what the request requires, even after a reminder."""


def to_api(error: UpstreamError) -> ApiError:
    """The HTTP error for a failure before anything was sent."""
    code, param, retry_after = error.code, error.param, error.retry_after
    match error.status:
        case 404:
            return NotFound(error.message, code=code or "model_not_found", param=param)
        case 429:
            wait = retry_after or 1.0
            return RateLimited(
                f"{error.message} Please try again in {wait:g}s.", code=code, param=param, retry_after=wait
            )
        case status if 400 <= status < 500:  # noqa: PLR2004 - the class of client errors
            return InvalidRequest(error.message, code=code, param=param)
        case status:
            # 503 and 504 are transient, even where this server does not retry by itself.
            passes = error.retryable or status != _BAD_GATEWAY
            return Unavailable(
                error.message, status=status, code=code, param=param, retry_after=retry_after, passes=passes
            )


def store_unavailable() -> ApiError:
    """The error while the database is unavailable, which blocks reading and storing."""
    return Unavailable("The database is unavailable.", code="store_unavailable", retry_after=1.0)


def server_is_stopping() -> ApiError:
    """The error after the process has received a stop signal."""
    return Unavailable("The server is stopping.", code="server_is_stopping", retry_after=1.0)


def inside(error: Exception, response_id: str) -> ResponseError:
    """The `error` of a response that has begun. Details of unexpected errors are only in the log."""
    match error:
        case UpstreamError() | ApiError():
            return ResponseError(_response_code(error), error.message)
        case ModelFailure() | InvalidArguments():
            return ResponseError("server_error", str(error))
        case _:
            _log.error("response %s failed", response_id, exc_info=error)
            return ResponseError("server_error", "The gateway failed while generating the response.")


def _response_code(error: UpstreamError | ApiError) -> str:
    """The `error.code` of a failed response: one of those in the SDKs' types."""
    match error.status:
        case 429:
            return "rate_limit_exceeded"
        case 400:
            return "invalid_prompt"
        case _:
            return "server_error"


def may_quote(error: Exception) -> bool:
    """Whether the message may quote the client's input, which must not be logged."""
    return isinstance(error, UpstreamError | ApiError) and error.status == InvalidRequest.status


def code(error: Exception) -> str:
    """A failure's name in logs and metrics; more specific than the API's."""
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
    """The HTTP error for a non-streaming request whose response failed because of `cause`."""
    match cause:
        case UpstreamError():
            return to_api(cause)
        case StoreUnavailable():
            return store_unavailable()
        case _:
            return Unavailable(error.message, status=502, code=error.code)
