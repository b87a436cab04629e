"""One connection to an upstream: sequential requests, time limits, back-pressure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, cast

import msgspec

from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.http.response import Response

_UNREAD_LIMIT = 256 * 1024
"""Bytes of unread body above which reading from the socket is paused."""
_JOINED_LIMIT = 32 * 1024
"""Requests up to this size in bytes are joined: that is cheaper than writing the pieces separately."""
_KEEP_ALIVE = 60.0
"""Seconds an unused connection is kept."""
_CLOCK_TICK = 0.001
"""Seconds; uvloop's clock and timers count whole milliseconds, so a timer may fire this much early."""


Limit = Literal["connect", "first_token", "idle", "total"]


class ClientTimeouts(msgspec.Struct, frozen=True, gc=False):
    """Time limits of one request, in seconds."""

    connect: float
    """To open a connection, TLS included."""
    first_token: float
    """From the request to the first byte of the body; the head, which servers send at once, does not count."""
    idle: float
    """Between two reads of a body that has begun."""
    total: float
    """From the request to the end of the body."""


class Connection(asyncio.Protocol):
    """A socket, and the response that is being read from it.

    One timer serves all time limits. It is rescheduled only when it fires before the current limit, or when a
    new limit is nearer, so that a read costs only a look at the clock. (asyncio and uvloop set TCP_NODELAY themselves.)
    """

    __slots__ = (
        "_ends",
        "_error",
        "_loop",
        "_on_lost",
        "_paused",
        "_response",
        "_since",
        "_timeouts",
        "_timer",
        "_transport",
        "_waiter",
        "lost",
    )

    def __init__(self, timeouts: ClientTimeouts, on_lost: Callable[[Connection], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeouts = timeouts
        self._on_lost = on_lost
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the socket is closed."""
        self._response = Response()
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._since = self._ends = 0.0
        self._transport: asyncio.Transport

    @property
    def reusable(self) -> bool:
        """The last response was read to its end, and another request may follow."""
        if not self._response.complete or self._paused or self._transport.is_closing():
            return False
        return self._transport.get_write_buffer_size() == 0

    @property
    def answered(self) -> bool:
        """Something has been received since the request."""
        return self._response.started

    async def send(self, request: Sequence[bytes]) -> Response:
        """Write a whole request, given in pieces, and wait for the head of its response.

        Raises UpstreamError; the connection is then closed.
        """
        if not self._response.complete:  # the one of a new connection, which is not used
            self._response.let_go()
        self._response = response = Response()
        self._since = self._loop.time()
        self._ends = self._since + self._timeouts.total
        self._arm()
        if sum(map(len, request)) > _JOINED_LIMIT:
            self._transport.writelines(request)
        else:
            self._transport.write(b"".join(request))
        while not response.head_complete:
            await self._next_read()
        return response

    async def read(self) -> bytes:
        """The body bytes that have arrived since the last call; empty at the end.

        Raises UpstreamError; the connection is then closed.
        """
        response = self._response
        while not response.unread and not response.complete:
            await self._next_read()
        if self._paused:
            self._paused = False
            self._since = self._loop.time()
            self._transport.resume_reading()
        return response.take()

    def fail(self, error: UpstreamError) -> None:
        """Close the socket at once; the reader of an unfinished response gets `error`."""
        if self._error is None:
            self._error = error
        self._transport.abort()  # the loop calls `connection_lost` next,
        self._on_lost(self)  # and nobody may take it for another request until then

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # a stream protocol gets a stream transport; uvloop's has no such base
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        response = self._response
        received = response.received
        try:
            response.feed(data)
        except UpstreamProtocolError as error:
            self.fail(error)
            return
        if response.complete:
            self._since = self._loop.time()
            self._arm()
            if not response.reusable:
                self._transport.abort()
        elif response.received > received:
            self._since = self._loop.time()
            if not received:
                self._arm()
            if response.unread > _UNREAD_LIMIT and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._error is None:
            self._error = self._ending(exc)
        self._response.let_go()
        self._wake()
        self.lost.set_result(None)
        self._on_lost(self)

    def _ending(self, exc: Exception | None) -> UpstreamError | None:
        if exc is not None:
            broken = UpstreamProtocolError("The connection to the upstream was lost.")
            broken.__cause__ = exc
            return broken
        try:
            self._response.end()
        except UpstreamProtocolError as error:
            return error
        return None

    async def _next_read(self) -> None:
        """Wait for the next event on the socket. Raises the error that ended the connection."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.fail(abandoned())
            raise
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Time.

    def _due(self) -> float:
        if self._response.complete:
            return self._since + _KEEP_ALIVE
        patience = self._timeouts.idle if self._response.received else self._timeouts.first_token
        return min(self._since + patience, self._ends)

    def _arm(self) -> None:
        due = self._due()
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self._paused:
            self._since = now  # the reader is slow, not the upstream
        if now < self._due() - _CLOCK_TICK:
            self._arm()
        else:
            self.fail(self._overdue(now))

    def _overdue(self, now: float) -> UpstreamError:
        if now >= self._ends - _CLOCK_TICK:
            return overdue("did not finish its answer", self._timeouts, "total")
        if self._response.received:
            return overdue(
                "stopped in the middle of its answer and sent nothing more",
                self._timeouts,
                "idle",
                code="upstream_stalled",
            )
        return overdue("did not begin its answer", self._timeouts, "first_token")


def overdue(
    what: str, timeouts: ClientTimeouts, limit: Limit, *, code: str = "upstream_timeout", retryable: bool = False
) -> UpstreamError:
    """The error for an exceeded time limit; it names the setting."""
    message = f"The upstream {what} within {getattr(timeouts, limit):g} seconds (its setting 'timeouts.{limit}')."
    return UpstreamError(message, status=504, code=code, retryable=retryable)


def abandoned() -> UpstreamError:
    """The error for the reader of a request that the gateway abandoned."""
    return UpstreamError("The request to the upstream was abandoned.", status=503)
