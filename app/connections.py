"""HTTP connections with limits: what the server's own protocol takes without end, whoever sends it.

Bytes are counted as they are read, before they are parsed. Time is looked at by one timer for all connections, so that a request costs
none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from functools import partial
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.errors import RawHeaders
from app.api.gateway import Gateway
from app.protocol.errors import ApiError, InvalidRequest, MessageRefused, Unavailable
from app.settings import Connections

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_PIECE_BYTES = 64 * 1024
"""What is parsed between two looks at the sizes."""
_URL_BYTES = 16 * 1024
_FIELDS = 128
_PIPELINED = 16
"""Requests that may wait on one connection for the answer to the one before them."""
_FRAMING_BYTES = 64 * 1024
"""Of a chunked body: sizes, extensions and trailers, beyond one byte for each byte of content."""
_UNREAD_BYTES, _UNREAD_SECONDS = 8 * 1024 * 1024, 5.0
_KNOWN_BYTES, _KNOWN_SECONDS = 1024 * 1024 * 1024, 60.0
"""How much is thrown away, unparsed, after an answer: many clients send all they have before they read it. More for those with a key."""
_SEGMENT_BYTES = 1460
"""Ethernet's. With the 64 KiB of loopback a client's own system takes three megabytes off it before it hears of a refusal."""
_SPARE_FILES = 256
"""File descriptors for all that is no connection of a client."""


class Watch:
    """The limits, and the timer that looks at every connection of a process."""

    def __init__(self, limits: Connections) -> None:
        self.limits = limits
        self._running = False

    def begin(self, loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
        """Look at these as long as there are any."""
        if not self._running:
            self._running = True
            loop.call_later(_LOOK_SECONDS, self._look, loop, connections)

    def _look(self, loop: asyncio.AbstractEventLoop, connections: set[Connection]) -> None:
        self._running = False
        if connections:
            self.begin(loop, connections)  # first: one connection's failure must not end the looking
        now = loop.time()
        for connection in tuple(connections):
            connection.look(now)


def protocol(limits: Connections) -> type[asyncio.Protocol]:
    """What uvicorn makes a connection's protocol with."""
    return cast("type[asyncio.Protocol]", partial(Connection, Watch(limits)))


def bound(listener: int) -> None:
    """Bound what the system holds for each connection of this listening socket, a file descriptor."""
    option = getattr(socket, "TCP_MAXSEG", None)
    with socket.socket(fileno=os.dup(listener)) as same:
        if option is not None and same.family in (socket.AF_INET, socket.AF_INET6):
            same.setsockopt(socket.IPPROTO_TCP, option, _SEGMENT_BYTES)


def make_room(connections: int) -> None:
    """Raise this process's limit of open files as far as it may: a stream takes one for its client and one for its upstream."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - Unix only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < wanted:
            _log.warning("%d open files are allowed, %d connections may need %d: raise the limit (`ulimit -n`)", most, connections, wanted)


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, watch: Watch, **wiring: Any) -> None:
        super().__init__(**wiring)
        self._watch = watch
        self._gateway: Gateway = wiring["config"].loaded_app
        self._limits = watch.limits
        self._piece = min(_PIECE_BYTES, watch.limits.header_bytes)
        self._in_head = True
        self._head_since: float | None = None
        """When the head began that is being read; None between requests."""
        self._head_bytes = 0
        self._body_bytes = 0
        self._framing_bytes = 0
        self._bare_bytes = 0
        """Framing since the last byte of content."""
        self._mark: tuple[float, int] | None = None
        """When the rate was looked at last, and how many bytes there were."""
        self._refusal: ApiError | None = None
        self._keeps_alive = True
        self._deaf = False
        self._left = _UNREAD_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._head_since = self.loop.time()
        self._watch.begin(self.loop, self.connections)
        if len(self.connections) > self._limits.open:
            self._refuse(Unavailable("The server is at its limit of connections.", code="server_is_overloaded", retry_after=1.0))

    def data_received(self, data: bytes) -> None:
        """Parse some bytes at a time, and stop at the first that are too many."""
        if self._deaf:
            self._throw_away(len(data))
            return
        self._unset_keepalive_if_required()
        try:
            if len(data) <= self._piece:
                self._feed(data)
            else:
                view = memoryview(data)
                for start in range(0, len(view), self._piece):
                    self._feed(view[start : start + self._piece])
        except (httptools.HttpParserError, _TooMuch):
            refusal = self._refusal or InvalidRequest("The request is not valid HTTP/1.1.", code="invalid_http")
            self._refuse(refusal)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers come when the request is served already, and are left out."""
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Serve the request. As long as its body has not arrived, its answer is to be the connection's last one."""
        if not self._in_head:
            return  # it is served already, and its head was repeated to another parser
        self._check_head()
        super().on_headers_complete()
        cycle = self.cycle
        self._keeps_alive, cycle.keep_alive = cycle.keep_alive, False
        cycle.transport = cast("asyncio.Transport", _Unread(self))
        self._in_head = False
        self._head_since = self._mark = None
        self._body_bytes = self._framing_bytes = self._bare_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Keep it for the application; when that has answered already, nobody will read it."""
        self._body_bytes += len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The body is here: the connection may be used again."""
        if self.parser.should_upgrade() and _framing(self.headers):
            return  # the parser leaves the body to another protocol
        cycle = self.cycle
        cycle.transport = self.transport
        if not cycle.response_started:
            cycle.keep_alive = self._keeps_alive
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, where there may be one."""
        if self._deaf and not self.pipeline:
            self.server_state.total_requests += 1
            self.flow.resume_reading()
        else:
            super().on_response_complete()

    def shutdown(self) -> None:
        """End after the answer that is under way."""
        self._keeps_alive = False
        super().shutdown()

    def look(self, now: float) -> None:
        """Cut a client that is too slow."""
        if self.flow.write_paused or self.transport.is_closing():
            self._look_at_writing(now)
        elif self._in_head:
            self._mark = None
            if self._head_since is not None and now - self._head_since > self._limits.header_seconds:
                self._cut("The request's header did not arrive in time.", silently=self._head_bytes == 0)
        elif self.flow.read_paused or self.cycle.response_complete:
            self._mark = None
        else:
            self._look_at_body(now)

    def unread(self) -> None:
        """The answer is written, the body is not read: say no more, and hear no more than the client needs to notice."""
        self._deaf = True
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        known = "principal" in self.cycle.scope.get("state", {})
        self._left, seconds = (_KNOWN_BYTES, _KNOWN_SECONDS) if known else (_UNREAD_BYTES, _UNREAD_SECONDS)
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    @property
    def _latest(self) -> RequestResponseCycle | None:
        """The request that was begun last."""
        return self.cycle

    def _feed(self, piece: bytes | memoryview) -> None:
        if not self.parser or self._deaf:
            return
        if self._in_head:
            if self._head_since is None:
                self._head_since = self.loop.time()
            self._head_bytes += len(piece)
            self._parse(piece)
            if self._in_head and self._head_bytes > self._limits.header_bytes:
                self._check_head(size=self._head_bytes)
            elif self._head_bytes == 0:  # one or more requests are complete
                self._head_since = None
        else:
            before = self._body_bytes
            self._parse(piece)
            if not self._in_head:
                self._check_framing(len(piece), self._body_bytes - before)

    def _parse(self, piece: bytes | memoryview) -> None:
        """An upgrade, as Java's client proposes it in every first request, is not made: the request is served as HTTP/1.1.

        The parser stops behind the head of such a request; another one goes on from there.
        """
        while len(piece):
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as stop:
                piece = piece[stop.args[0] :]
                self._renew_parser()
            else:
                return

    def _renew_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        if not self._in_head:  # the body is still to come
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % _framing(self.headers))

    def _check_head(self, size: int = 0) -> None:
        """Raises _TooMuch. `size` is what there is of a head that is not complete."""
        most = self._limits.header_bytes
        if len(self.url) > _URL_BYTES:
            message = f"The URL is longer than {_URL_BYTES} bytes; send what is long in the body."
            self._give_up(MessageRefused(message, status=414, code="url_too_long"))
        if len(self.headers) > _FIELDS:
            message = f"The request has more than {_FIELDS} header fields."
            self._give_up(MessageRefused(message, status=431, code="headers_too_large"))
        if self._head_bytes > most:
            size = size or len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > most:
                message = f"The request's header is larger than {most} bytes."
                self._give_up(MessageRefused(message, status=431, code="headers_too_large"))
        if len(self.pipeline) >= _PIPELINED:
            self._give_up(InvalidRequest(f"More than {_PIPELINED} requests wait on one connection.", code="too_many_pipelined"))

    def _check_framing(self, size: int, content: int) -> None:
        """Raises _TooMuch where a chunked body is hardly anything but chunks."""
        self._framing_bytes += size - content
        self._bare_bytes = 0 if content else self._bare_bytes + size
        if self._framing_bytes > _FRAMING_BYTES + self._body_bytes or self._bare_bytes > _FRAMING_BYTES:
            self._give_up(InvalidRequest("The chunks of the request's body are too small; send larger ones.", code="invalid_http"))

    def _give_up(self, error: ApiError) -> None:
        self._refusal = error
        raise _TooMuch

    def _look_at_body(self, now: float) -> None:
        if self._mark is None:
            self._mark = now, self._body_bytes
            return
        since, there = self._mark
        if now - since >= self._limits.body_seconds:
            if self._body_bytes - there < self._limits.body_bytes_per_second * (now - since):
                self._cut("The request's body came too slowly.")
            else:
                self._mark = now, self._body_bytes

    def _look_at_writing(self, now: float) -> None:
        left = self.transport.get_write_buffer_size()
        if not left or self._mark is None or left < self._mark[1]:
            self._mark = now, left
        elif now - self._mark[0] > self._limits.unread_seconds:
            _log.info("disconnected a client that does not read its response")
            self._silence()
            self.transport.abort()

    def _cut(self, message: str, *, silently: bool = False) -> None:
        if silently:
            self.transport.close()
        else:
            self._refuse(MessageRefused(message, status=408, code="request_timeout"))

    def _refuse(self, error: ApiError) -> None:
        """Say why, where the client waits for an answer, and close the connection; after the answers to requests that were good."""
        cycle = self._latest
        pending = cycle is not None and not cycle.response_complete
        if cycle is not None and pending and self._in_head:
            self._deaf = True
            cycle.keep_alive = self._keeps_alive = False
            return
        if not (cycle is not None and pending and cycle.response_started) and not self.pipeline and not self.transport.is_closing():
            self.transport.write(self._answer(error, cycle if pending else None))
        self._silence()
        self.transport.close()

    def _answer(self, error: ApiError, cycle: RequestResponseCycle | None) -> bytes:
        """What is sent. `cycle`: the application has begun to read the request, and hears of it as of a client that is gone."""
        state = None if cycle is None else cycle.scope.setdefault("state", {})
        if state is not None:
            state["refusal"] = error
        status, headers, body = self._gateway.refused(error, state)
        fields = (*self.server_state.default_headers, *headers, (b"connection", b"close"), (b"content-length", b"%d" % len(body)))
        return b"%b%b\r\n%b" % (STATUS_LINE[status], b"".join(b"%b: %b\r\n" % field for field in fields), body)

    def _silence(self) -> None:
        """The application hears that its client is gone, and what it writes goes nowhere."""
        self._deaf = True
        cycle = self._latest
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def _throw_away(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            self.transport.close()


def _framing(headers: RawHeaders) -> bytes:
    """The lines that say how a body is delimited; none where there is no body."""
    return b"".join(b"%b: %b\r\n" % field for field in headers if field[0] in {b"content-length", b"transfer-encoding"})


class _TooMuch(Exception):
    """The request is refused; `_refusal` says why."""


class _Unread:
    """The transport of an answer whose request has not arrived whole. Closed at once, the client's system might throw the answer away."""

    __slots__ = ("_connection", "is_closing", "write")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        self._connection.unread()
