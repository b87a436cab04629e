"""Errors that clients can see, in the OpenAI envelope.

The tree:

    ApiError
    ├── InvalidRequest      400  the caller's error; names the parameter
    ├── Unauthorized        401
    ├── NotFound            404
    ├── MethodNotAllowed    405
    ├── Conflict            409  never worth an automatic retry
    │   └── Locked          409  but this one is
    ├── PayloadTooLarge     413
    ├── UnsupportedEncoding 415
    ├── Forbidden           403  a web page without access
    ├── MessageRefused      408, 414, 431: not read to the end
    ├── RateLimited         429
    └── Unavailable         502, 503, 504: the upstream's or ours, possibly temporary

Shapes and messages follow the original API, since clients match on them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

ErrorType = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "server_error",
]


class ErrorBody(msgspec.Struct, frozen=True):
    """The inner object of the OpenAI error envelope."""

    message: str
    type: ErrorType
    param: str | None
    code: str | None


class ErrorEnvelope(msgspec.Struct, frozen=True):
    """`{"error": {...}}`, the body of every failed request."""

    error: ErrorBody


class ApiError(Exception):
    """Base of every error whose message may be shown to a client."""

    status: int = 500
    type: ErrorType = "server_error"
    retryable: bool | None = None
    """Value of `x-should-retry`; None leaves the decision to the client's rule for the status."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        """Seconds after which the client may try again."""

    def envelope(self) -> ErrorEnvelope:
        """The response body."""
        return ErrorEnvelope(ErrorBody(self.message, self.type, self.param, self.code))


class InvalidRequest(ApiError):
    """The request cannot be served as it is; `param` says which part."""

    status = 400
    type: ErrorType = "invalid_request_error"
    retryable = False


class Unauthorized(ApiError):
    """No key, or one that is unknown, expired or revoked."""

    status = 401
    type: ErrorType = "authentication_error"
    retryable = False


class NotFound(ApiError):
    """Unknown, expired, deleted or another project's: deliberately the same answer."""

    status = 404
    type: ErrorType = "invalid_request_error"
    retryable = False


class Conflict(ApiError):
    """The object's state does not allow the operation. SDKs retry a 409 by default; a retry never helps here."""

    status = 409
    type: ErrorType = "invalid_request_error"
    retryable = False


class Locked(Conflict):
    """Another request has the object for itself; `retry_after` says when to try again."""

    retryable = True


class PayloadTooLarge(ApiError):
    """The body is over the configured limit."""

    status = 413
    type: ErrorType = "invalid_request_error"
    retryable = False


class MethodNotAllowed(ApiError):
    """The URL does not support this method; `allowed` lists those it supports."""

    status = 405
    type: ErrorType = "invalid_request_error"
    retryable = False

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message, code="method_not_allowed")
        self.allowed = allowed


class UnsupportedEncoding(ApiError):
    """The body's `Content-Encoding` is not supported; `accepted` lists those that are."""

    status = 415
    type: ErrorType = "invalid_request_error"
    retryable = False

    def __init__(self, message: str, accepted: str) -> None:
        super().__init__(message, code="unsupported_content_encoding")
        self.accepted = accepted


class Forbidden(ApiError):
    """Requests from this origin or host name are not allowed."""

    status = 403
    type: ErrorType = "permission_error"
    retryable = False


class MessageRefused(ApiError):
    """The request is too large or too slow to be read completely (408, 414, 431)."""

    type: ErrorType = "invalid_request_error"
    retryable = False

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message, code=code)
        self.status = status


class RateLimited(ApiError):
    """Too many requests, here or upstream."""

    status = 429
    type: ErrorType = "rate_limit_error"


class Unavailable(ApiError):
    """The upstream failed or cannot be reached (502, 503, 504), or this server is at capacity (503)."""

    status = 503

    def __init__(
        self,
        message: str,
        *,
        status: int = 503,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        passes: bool = True,
    ) -> None:
        """`passes` False: the failure is permanent, so a retry does not help."""
        super().__init__(message, code=code, param=param, retry_after=retry_after)
        self.status = status
        if not passes:
            self.retryable = False
