"""WebSocket connections: the server's own protocol, with the limits of all connections.

A batch of messages is one write: `websocket.send` may have `texts`, a sequence of UTF-8 texts, instead of `text`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.api.errors import RawHeaders
from app.settings import Connections

_log = logging.getLogger(__name__)
_server_log = logging.getLogger(f"{__name__}.server")
_server_log.setLevel(logging.WARNING)  # handshakes are logged as requests
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")
_TEXT = b"\x81"
"""A final frame of text."""
_SHORT, _MEDIUM = 126, 1 << 16
_PIECES = 4096
"""Frames that one message may come in."""


def is_handshake(headers: RawHeaders) -> bool:
    """Whether these are the headers of a valid request for a WebSocket."""
    given = {name: value.strip() for name, value in headers}
    tokens = {token.strip() for name, value in headers if name == b"connection" for token in value.lower().split(b",")}
    return (
        given.get(b"upgrade", b"").lower() == b"websocket"
        and b"upgrade" in tokens
        and given.get(b"sec-websocket-version") == b"13"
        and _KEY.fullmatch(given.get(b"sec-websocket-key", b"")) is not None
        and not given.keys() & {b"content-length", b"transfer-encoding"}
    )


class WebSocket(WebSocketsSansIOProtocol):
    """One client's WebSocket."""

    def __init__(self, limits: Connections, *wiring: Any) -> None:
        super().__init__(*wiring)
        self.logger = self.conn.logger = _server_log
        self._limits = limits
        self._unread: tuple[float, int] | None = None
        """When the client last read something, and how much was left then."""

    def take_over(self, transport: asyncio.Transport, url: bytes, headers: RawHeaders) -> None:
        """Continue a connection whose handshake has been read."""
        self.connection_made(transport)
        transport.set_protocol(self)
        lines = [b"GET %b HTTP/1.1\r\n" % url, *(b"%b: %b\r\n" % field for field in headers), b"\r\n"]
        super().data_received(b"".join(lines))
        self.read_paused = True  # until the application receives
        transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Parse; a message in more frames than anyone needs ends the connection."""
        super().data_received(data)
        if len(self.frames) > _PIECES and not self.close_sent:
            self.conn.fail(1009, "too many frames in one message")
            self.handle_parser_exception()

    async def send(self, message: Any) -> None:
        """Send, or discard what a client that is gone does not get."""
        texts: Sequence[bytes] | None = message.get("texts")
        try:
            if texts is None:
                await super().send(message)
                return
        except ClientDisconnected:
            return
        await self.writable.wait()
        if not self.close_sent and not self.transport.is_closing():
            self.transport.write(b"".join(map(_framed, texts)))

    def shutdown(self) -> None:
        """Nothing more: the application closes it as soon as its responses have ended."""
        if not self.handshake_complete:
            super().shutdown()

    def look(self, now: float) -> None:
        """Disconnect a client that does not read."""
        left = self.transport.get_write_buffer_size()
        if self.writable.is_set() and not self.transport.is_closing():
            self._unread = None
        elif self._unread is None or left < self._unread[1]:
            self._unread = now, left
        elif now - self._unread[0] > self._limits.unread_seconds:
            _log.info("disconnected a client that does not read its WebSocket")
            self.transport.abort()


def _framed(text: bytes) -> bytes:
    """The frame of one message; a server's frames are not masked."""
    size = len(text)
    if size < _SHORT:
        return b"%b%c%b" % (_TEXT, size, text)
    if size < _MEDIUM:
        return b"%b\x7e%b%b" % (_TEXT, size.to_bytes(2), text)
    return b"%b\x7f%b%b" % (_TEXT, size.to_bytes(8), text)
