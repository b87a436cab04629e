"""One HTTP/1.1 response as its bytes arrive (RFC 9112): no socket, no clock."""

from __future__ import annotations

from contextlib import suppress

import httptools

from app.providers.base import UpstreamProtocolError

_OVERHEAD_LIMIT = 64 * 1024
"""Limit of consecutive bytes without any of the body: head, interim responses, trailers."""

_FIRST_FINAL_STATUS = 200


class Response:
    """A response that is being read: `feed` takes bytes from the socket, `take` returns the body."""

    __slots__ = (
        "_chunks",
        "_ends_with_connection",
        "_overhead",
        "_parser",
        "complete",
        "head_complete",
        "headers",
        "received",
        "reusable",
        "started",
        "status",
        "unread",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """Names in lower case; the values of repeated fields are joined by commas."""
        self.started = False
        """The first byte has arrived."""
        self.head_complete = False
        self.complete = False
        self.reusable = False
        """The connection may carry another request."""
        self.received = 0
        """Bytes of the body so far."""
        self.unread = 0
        """How many of them have not been taken yet."""
        self._chunks: list[bytes] = []
        self._overhead = 0
        self._ends_with_connection = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Parse the bytes of one read of the socket. Raises UpstreamProtocolError."""
        if self.complete:
            self.reusable = False  # unsolicited bytes would be taken for the next answer
            return
        received = self.received
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                raise UpstreamProtocolError("The upstream's answer is not valid HTTP.") from error
            self.reusable = False
        if self.complete:
            self.let_go()
        elif self.received > received:
            self._overhead = 0
        else:
            self._overhead += len(data)
            if self._overhead > _OVERHEAD_LIMIT:
                raise UpstreamProtocolError("The upstream's response head is too large.")

    def end(self) -> None:
        """The peer closed the connection. Raises UpstreamProtocolError unless that is a valid end of this body."""
        if self._ends_with_connection:
            self.complete = True
        elif not self.complete:
            where = "in the middle of its answer" if self.started else "without an answer"
            raise UpstreamProtocolError(f"The upstream closed the connection {where}.")

    def let_go(self) -> None:
        """Nothing more comes.

        The parser and the response refer to each other: garbage that would wait for the collector.
        """
        with suppress(AttributeError):  # it is gone already
            del self._parser

    def take(self) -> bytes:
        """The body bytes that have arrived since the last call; may be empty."""
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.unread = 0
        return data

    # Called by the parser; an exception in here is raised by `feed_data` as an HttpParserError.

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a response without a request")
        self.started = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_complete:
            return  # trailers are not used
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.head_complete = self.status >= _FIRST_FINAL_STATUS
        if not self.head_complete:
            self.headers.clear()
            return
        # RFC 9112, section 6.3: without a length and a final chunk, the end of the connection is the end of the body.
        coding = self.headers.get("transfer-encoding")
        if coding is None:
            self._ends_with_connection = "content-length" not in self.headers
        else:
            self._ends_with_connection = not coding.lower().endswith("chunked")

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self.received += len(data)
        self.unread += len(data)

    def on_message_complete(self) -> None:
        self.complete = self.head_complete
        self.reusable = self._parser.should_keep_alive()
