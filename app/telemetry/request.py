"""The summary of the current request: collected while it is served, and logged in one line at its end.

A context variable holds it, so that it need not be passed through every layer, and every line logged on behalf of a
request has its id.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

import msgspec

_LONGEST_REASON = 300


class RequestSummary(msgspec.Struct, omit_defaults=True, gc=False):
    """One request; the names are the log's field names.

    None and 0 are left out. It never contains content or secrets.
    """

    request_id: str = ""
    method: str = ""
    route: str = ""
    """The path with ids replaced."""
    status: int = 0
    ms: int = 0
    """Milliseconds from the first line of the request to the last byte of the answer."""
    stream: bool = False
    project: str | None = None
    key: str | None = None
    """The API key's id."""
    response: str | None = None
    """The response's id."""
    outcome: str | None = None
    """The response's status: `completed`, `incomplete`, `failed` or `cancelled`."""
    model: str | None = None
    upstream: str | None = None
    """The upstream that answered, otherwise the last one that failed."""
    upstream_request: str | None = None
    """The upstream's request id."""
    first_token_ms: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    tool_calls: int = 0
    code: str | None = None
    """The error's code."""
    param: str | None = None
    """The invalid parameter."""
    reason: str | None = None
    """Why it failed."""

    def fail(self, code: str | None, reason: str | None, param: str | None = None) -> None:
        """Record why the request failed. The first reason wins, since it causes those that follow.

        `reason` None: the message may quote the request's content; `param` shows where to look.
        """
        if self.code is None:
            self.code = code or "error"
            self.param = param
            self.reason = reason[:_LONGEST_REASON] if reason else None

    def end(self, began: float) -> None:
        """The response has been sent; `began` is `time.perf_counter()` at the request's arrival."""
        self.ms = int((time.perf_counter() - began) * 1000)


current: ContextVar[RequestSummary] = ContextVar("request", default=RequestSummary())  # noqa: B039 - what is recorded there is never read
"""The request being served. Outside of requests, whatever is recorded is discarded."""
