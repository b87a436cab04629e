"""HTTP connections with limits that the server's own protocol lacks, for all clients.

Bytes are counted as they are read, before they are parsed. One timer checks the times of all connections, so that
requests need no timers.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.errors import RawHeaders
from app.api.gateway import Gateway
from app.connections.output import ResponseOutput
from app.connections.websockets import WebSocket, is_handshake
from app.protocol.wire.errors import ApiError, InvalidRequest, MessageRefused, Unavailable
from app.settings import Connections

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_PIECE_BYTES = 64 * 1024
"""Bytes parsed between two checks of the sizes."""
_URL_BYTES = 16 * 1024
_FIELDS = 128
_PIPELINED = 16
"""Requests that may be queued on one connection behind the current one."""
_FRAMING_BYTES = 64 * 1024
"""Framing of a chunked body (sizes, extensions, trailers) allowed beyond one byte per byte of content."""
_UNREAD_BYTES, _UNREAD_SECONDS = 8 * 1024 * 1024, 5.0
_KNOWN_BYTES, _KNOWN_SECONDS = 1024 * 1024 * 1024, 60.0
"""How much is discarded, unparsed, after a response: many clients send everything before they read it.

More for those with a key.
"""


class Watch:
    """The limits, and the timer that checks every connection of a process."""

    def __init__(self, limits: Connections) -> None:
        self.limits = limits
        self._running = False

    def begin(self, loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
        """Check these connections as long as there are any."""
        if not self._running:
            self._running = True
            loop.call_later(_LOOK_SECONDS, self._look, loop, connections)

    def _look(self, loop: asyncio.AbstractEventLoop, connections: set[Connection]) -> None:
        self._running = False
        if connections:
            self.begin(loop, connections)  # first: one connection's failure must not stop the checks
        now = loop.time()
        for connection in tuple(connections):
            connection.look(now)


def protocol(limits: Connections) -> type[asyncio.Protocol]:
    """The factory of uvicorn's connection protocols."""
    return cast("type[asyncio.Protocol]", partial(Connection, Watch(limits)))


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
        """When the current header began; None between requests."""
        self._head_bytes = 0
        self._body_bytes = 0
        self._framing_bytes = 0
        self._bare_bytes = 0
        """Framing since the last byte of content."""
        self._mark: tuple[float, int] | None = None
        """When the rate was last checked, and the number of bytes then."""
        self._refusal: ApiError | None = None
        self._output: ResponseOutput
        """Of the latest request."""
        self._keeps_alive = True
        self._deaf = False
        self._left = _UNREAD_BYTES
        self._becomes_websocket = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, unless there are too many."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._head_since = self.loop.time()
        self._watch.begin(self.loop, self.connections)
        if len(self.connections) > self._limits.open:
            self._refuse(
                Unavailable("The server is at its limit of connections.", code="server_is_overloaded", retry_after=1.0)
            )

    def data_received(self, data: bytes) -> None:
        """Parse in pieces, and stop as soon as there is too much."""
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
        """Add a header; trailers come after the request is served, and are ignored."""
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Serve the request. Until its body has arrived, its response is the connection's last one."""
        if not self._in_head:
            return  # it is already served; its header was repeated for another parser
        self._check_head()
        if self._asks_for_websocket():
            self._becomes_websocket = True
            return
        super().on_headers_complete()
        cycle = self.cycle
        self._keeps_alive, cycle.keep_alive = cycle.keep_alive, False
        self._output = ResponseOutput(cycle, self.loop, self.unread)
        cycle.transport = cast("asyncio.Transport", self._output)
        if self.scope["method"] == "POST":
            cycle.send = self._output.send  # type: ignore[method-assign]
        self._in_head = False
        self._head_since = self._mark = None
        self._body_bytes = self._framing_bytes = self._bare_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Buffer it for the application, unless that has already answered."""
        self._body_bytes += len(body)
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The body has arrived: the connection may be reused."""
        if self._becomes_websocket or (self.parser.should_upgrade() and _framing(self.headers)):
            return  # the parser leaves the body to another protocol
        cycle = self.cycle
        self._output.unread = False
        if not cycle.response_started:
            cycle.keep_alive = self._keeps_alive
        self._in_head = True
        self._head_bytes = 0
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Continue with the next request, if the connection stays open."""
        if self._deaf and not self.pipeline:
            self.server_state.total_requests += 1
            self.flow.resume_reading()
        else:
            super().on_response_complete()

    def shutdown(self) -> None:
        """Close after the current response."""
        self._keeps_alive = False
        super().shutdown()

    def look(self, now: float) -> None:
        """Disconnect a client that is too slow."""
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
        """After a response to an unread request: send no more, and discard only as much input as the client needs to
        notice.
        """
        self._deaf = True
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        known = "principal" in self.cycle.scope.get("state", {})
        self._left, seconds = (_KNOWN_BYTES, _KNOWN_SECONDS) if known else (_UNREAD_BYTES, _UNREAD_SECONDS)
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    @property
    def _latest(self) -> RequestResponseCycle | None:
        """The latest request, if there was one."""
        return self.cycle

    def _feed(self, piece: bytes | memoryview) -> None:
        if not self.parser or self._deaf:
            return
        if self._in_head:
            self._head_bytes += len(piece)
            self._parse(piece)
            if not self._in_head:
                return
            if self._head_bytes > self._limits.header_bytes:
                self._check_head(size=self._head_bytes)
            if self._head_bytes == 0:  # one or more requests are complete
                self._head_since = None
            elif self._head_since is None:
                self._head_since = self.loop.time()
        else:
            before = self._body_bytes
            self._parse(piece)
            if not self._in_head:
                self._check_framing(len(piece), self._body_bytes - before)

    def _asks_for_websocket(self) -> bool:
        """Whether the request is a valid handshake, and nothing is before it on the connection."""
        before = self._latest
        free = before is None or (before.response_complete and not self.pipeline)
        return (
            free
            and self.parser.get_method() == b"GET"
            and self._gateway.serves_websocket(self.url)
            and is_handshake(self.headers)
        )

    def _become_websocket(self, *, early: bool) -> None:
        """Hand the connection over. `early`: the client sends before it has an answer, which no correct one does."""
        self._deaf = True
        self.connections.discard(self)
        if early:
            self.transport.close()
        else:
            websocket = WebSocket(self._limits, self.config, self.server_state, self.app_state)
            websocket.take_over(self.transport, self.url, self.headers)

    def _parse(self, piece: bytes | memoryview) -> None:
        """Other upgrades, which Java's client proposes in every first request, are ignored: the request is served as
        HTTP/1.1.

        The parser stops after the header of such a request; a new one continues from there.
        """
        while len(piece):
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as stop:
                piece = piece[stop.args[0] :]
                if self._becomes_websocket:
                    self._become_websocket(early=len(piece) > 0)
                    return
                self._renew_parser()
            else:
                return

    def _renew_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        if not self._in_head:  # the body is still to come
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % _framing(self.headers))

    def _check_head(self, size: int = 0) -> None:
        """Raises _TooMuch. `size` is the size of an incomplete header."""
        most = self._limits.header_bytes
        if len(self.url) > _URL_BYTES:
            message = f"The URL is longer than {_URL_BYTES} bytes; send long values in the body."
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
            self._give_up(
                InvalidRequest(f"More than {_PIPELINED} requests wait on one connection.", code="too_many_pipelined")
            )

    def _check_framing(self, size: int, content: int) -> None:
        """Raises _TooMuch if a chunked body consists mostly of framing."""
        self._framing_bytes += size - content
        self._bare_bytes = 0 if content else self._bare_bytes + size
        if self._framing_bytes > _FRAMING_BYTES + self._body_bytes or self._bare_bytes > _FRAMING_BYTES:
            self._give_up(
                InvalidRequest("The chunks of the request's body are too small; send larger ones.", code="invalid_http")
            )

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
                self._cut("The request's body arrived too slowly.")
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
        """Send the error if the client waits for this response, and close the connection, once earlier valid requests
        are answered.
        """
        cycle = self._latest
        pending = cycle is not None and not cycle.response_complete
        if cycle is not None and pending and self._in_head:
            self._deaf = True
            cycle.keep_alive = self._keeps_alive = False
            return
        if (
            not (cycle is not None and pending and cycle.response_started)
            and not self.pipeline
            and not self.transport.is_closing()
        ):
            self.transport.write(self._answer(error, cycle if pending else None))
        self._silence()
        self.transport.close()

    def _answer(self, error: ApiError, cycle: RequestResponseCycle | None) -> bytes:
        """What is sent.

        `cycle`: the application has begun to read the request, and hears of it as of a client that is gone.
        """
        state = None if cycle is None else cycle.scope.setdefault("state", {})
        if state is not None:
            state["refusal"] = error
        status, headers, body = self._gateway.refused(error, state)
        fields = (
            *self.server_state.default_headers,
            *headers,
            (b"connection", b"close"),
            (b"content-length", b"%d" % len(body)),
        )
        return b"%b%b\r\n%b" % (STATUS_LINE[status], b"".join(b"%b: %b\r\n" % field for field in fields), body)

    def _silence(self) -> None:
        """Report the disconnect to the application, and discard what it writes."""
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
    """The header lines that delimit the body; empty if there is no body."""
    return b"".join(b"%b: %b\r\n" % field for field in headers if field[0] in {b"content-length", b"transfer-encoding"})


class _TooMuch(Exception):
    """The request is refused; `_refusal` has the reason."""
