"""The upstream's failures, as the client hears of them: before the first byte as an HTTP error, after it inside the response."""

from __future__ import annotations

from app.protocol.errors import ApiError, InvalidRequest, NotFound, RateLimited, Unavailable
from app.protocol.response import ResponseError
from app.providers.base import UpstreamError

_BAD_GATEWAY = 502


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


def response_code(error: UpstreamError | ApiError) -> str:
    """The `error.code` of a failed response: one of those the SDKs list."""
    match error.status:
        case 429:
            return "rate_limit_exceeded"
        case 400:
            return "invalid_prompt"
        case _:
            return "server_error"


def plain(error: ResponseError, cause: UpstreamError | None) -> ApiError:
    """The HTTP error for a plain request whose response failed; `cause`: it was the upstream that failed."""
    return to_api(cause) if cause is not None else Unavailable(error.message, status=502, code=error.code)
