"""What a connection sends for one response, in as few writes as possible."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


class ResponseOutput:
    """The transport of one response.

    Its header is sent together with what follows immediately: one system call, and one packet.
    """

    __slots__ = ("_close_unread", "_cycle", "_head", "_loop", "_transport", "is_closing", "unread")

    def __init__(
        self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop, close_unread: Callable[[], None]
    ) -> None:
        """`close_unread` closes a connection whose request has not been read."""
        self._cycle = cycle
        self._loop = loop
        self._transport = cycle.transport
        self._close_unread = close_unread
        self._head: bytes | None = None
        self.is_closing = cycle.transport.is_closing
        self.unread = True
        """The request has not arrived completely."""

    async def send(self, message: Message) -> None:
        """Responses to POST, which all have a body: as the server's own `send`, at half the cost of a response and of a
        token.
        """
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        if not cycle.response_started:
            self._start(message["status"], message.get("headers", ()))
        elif not cycle.response_complete:
            self._continue(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"'{message['type']}' is sent after the end of the response")

    def write(self, data: bytes) -> None:
        """Write the response's next bytes."""
        if self._head is None:
            self._hold(data)
        elif self._head:
            self._transport.writelines((self._head, data))
            self._head = b""
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close later if the request is still arriving: otherwise the client's system might discard the response."""
        self._flush()
        if self.unread:
            self._close_unread()
        else:
            self._transport.close()

    def _start(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        cycle = self._cycle
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        for field in (*cycle.default_headers, *fields):
            lines.append(b"%b: %b\r\n" % field)
            if field[0] == b"content-length":
                cycle.expected_content_length = int(field[1])
                cycle.chunked_encoding = False
        if cycle.chunked_encoding is None:
            cycle.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        if not head.count(b"\r") == head.count(b"\n") == len(lines):
            raise RuntimeError("a header field has more than one line")
        self._hold(head)

    def _continue(self, data: bytes, *, more: bool) -> None:
        cycle = self._cycle
        if cycle.chunked_encoding:
            start = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            self.write(start if more else start + b"0\r\n\r\n")
        else:
            cycle.expected_content_length -= len(data)
            if cycle.expected_content_length < 0 or (cycle.expected_content_length and not more):
                raise RuntimeError("the response's length is not its Content-Length")
            self.write(data)
        if not more:
            cycle.response_complete = True
            cycle.message_event.set()
            if not cycle.keep_alive:
                self.close()
            elif not self.unread:
                cycle.transport = self._transport
            del cycle.send  # it would keep both in memory until the next garbage collection
            cycle.on_response()

    def _hold(self, head: bytes) -> None:
        self._head = head
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self.is_closing():
            self._transport.write(head)
