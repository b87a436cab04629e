"""What is known of the request that is being served: gathered where it arises, told in one line of the log at its end.

A context variable holds it, so that it need not be handed through every layer, and so that every line that is logged on behalf of a
request carries its id.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

import msgspec

_LONGEST_REASON = 300


class RequestSummary(msgspec.Struct, omit_defaults=True, gc=False):
    """One request; the names are those of the log's fields. None and 0 are left out. It never holds content or secrets."""

    request_id: str = ""
    method: str = ""
    route: str = ""
    """The path with its ids left out."""
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
    """The upstream that answered, else the last one that failed."""
    upstream_request: str | None = None
    """The upstream's own id of the request."""
    first_token_ms: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    tool_calls: int = 0
    code: str | None = None
    """The error's code."""
    param: str | None = None
    """The parameter that was wrong."""
    reason: str | None = None
    """Why it failed."""

    def fail(self, code: str | None, reason: str | None, param: str | None = None) -> None:
        """Note why the request failed. The first reason is the cause of those that follow.

        `reason` None: the sentence may quote what was sent, which is content; `param` says where to look.
        """
        if self.code is None:
            self.code = code or "error"
            self.param = param
            self.reason = reason[:_LONGEST_REASON] if reason else None

    def end(self, began: float) -> None:
        """The answer is out; `began` is `time.perf_counter()` of when the request came."""
        self.ms = int((time.perf_counter() - began) * 1000)


current: ContextVar[RequestSummary] = ContextVar("request", default=RequestSummary())  # noqa: B039 - nobody reads what is noted there
"""The request that the running code works for. Outside of every request what is noted goes nowhere."""
