"""The guarded transport with limits for MCP, and the server's session id kept across connections.

The SDK parses JSON strictly, on the event loop. So that no server can block the gateway, a body is limited here in
bytes and in parsing cost; and so that one wrong byte does not cost a whole result, invalid Unicode is repaired.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx2
import msgspec

LARGEST_ANSWER = 4 * 1024 * 1024
HTTP_FAILURE = -32090
"""The JSON-RPC code for a failure without a JSON-RPC error; its message is the status."""

_MOST_VALUES = 500_000
"""Commas in a body: a parser takes about 0.1 µs for each."""
_MOST_CONTAINERS = 100_000
"""Opening brackets in a body; about 0.6 µs each."""
_MOST_EVENTS = 2_000
_MOST_GETS = 16
"""Consecutive, without a request between them: a server may keep sending a client back to a stream that always ends."""
_LONGEST_SESSION = 1024
_SESSION = "mcp-session-id"
_REFUSALS = frozenset({401, 403, 429})
_LONE_HIGH = re.compile(rb"(?<!\\)((?:\\\\)*+)\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_LONE_LOW = re.compile(rb"(?<!\\u[dD][89abAB][0-9a-fA-F]{2})(?<!\\)((?:\\\\)*+)\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_MOST_MENDED = 10_000


class ServerRefused(Exception):
    """The server answered with a meaningful error status."""

    def __init__(self, status: int) -> None:
        self.status = status


class SessionEnded(Exception):
    """The server has forgotten the session; MCP requires a new one then."""


class TooLarge(Exception):
    """The server's response exceeds the limits."""


class ServerTransport(httpx2.AsyncBaseTransport):
    """The transport of one connection to its server."""

    def __init__(self, guarded: httpx2.AsyncBaseTransport) -> None:
        """`guarded` is not closed here."""
        self._guarded = guarded
        self._gets = 0
        self.session: str | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it. Raises FetchRefused, TurnedAway, TooLarge, SessionEnded."""
        self._gets = self._gets + 1 if request.method == "GET" else 0
        if self._gets > _MOST_GETS:
            raise TooLarge
        if self.session is not None:
            request.headers.setdefault(_SESSION, self.session)
        sent = request.headers.get(_SESSION)
        response = await self._guarded.handle_async_request(request)
        if self.session == sent:
            # a response in a session that another call has since replaced says nothing about the new one
            ended = response.status_code == HTTPStatus.NOT_FOUND
            self.session = None if ended else _session_id(response) or self.session
        if response.status_code == HTTPStatus.NOT_FOUND and sent is not None:
            await response.aclose()
            raise SessionEnded
        packed = response.headers.get("content-encoding", "identity") != "identity"
        if packed or response.status_code in _REFUSALS:
            await response.aclose()
            raise TooLarge if packed else ServerRefused(response.status_code)
        return await _told(response) if response.status_code >= HTTPStatus.BAD_REQUEST else _read(response)


def _session_id(response: httpx2.Response) -> str | None:
    """None if it is not what MCP allows: visible ASCII."""
    given = response.headers.get(_SESSION, "")
    visible = given.isascii() and given.isprintable() and " " not in given
    return given if visible and len(given) <= _LONGEST_SESSION else None


def _read(response: httpx2.Response) -> httpx2.Response:
    return httpx2.Response(
        response.status_code, headers=response.headers, stream=_Bounded(response), extensions=response.extensions
    )


async def _told(response: httpx2.Response) -> httpx2.Response:
    """A failure in a form that the SDK reads. An HTML page, for example, becomes an error with the status."""
    if response.headers.get("content-type", "").lower().startswith("application/json"):
        return _read(response)
    await response.aclose()
    error = {"code": HTTP_FAILURE, "message": str(response.status_code)}
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": error})
    return httpx2.Response(response.status_code, headers={"content-type": "application/json"}, content=body)


class _Bounded(httpx2.AsyncByteStream):
    """A body line by line: a line of events, or a whole JSON text."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._bytes = LARGEST_ANSWER
        self._values = _MOST_VALUES
        self._containers = _MOST_CONTAINERS
        self._events = _MOST_EVENTS

    async def __aiter__(self) -> AsyncIterator[bytes]:
        line = bytearray()
        first = True
        async for piece in self._response.aiter_raw():
            self._count(piece)
            end = max(piece.rfind(b"\n"), piece.rfind(b"\r")) + 1
            line += piece[:end]
            if end:
                yield _mended(bytes(line), first=first)
                line, first = bytearray(), False
            line += piece[end:]
        if line:
            yield _mended(bytes(line), first=first)

    async def aclose(self) -> None:
        await self._response.aclose()

    def _count(self, piece: bytes) -> None:
        self._bytes -= len(piece)
        self._values -= piece.count(b",")
        self._containers -= piece.count(b"{") + piece.count(b"[")
        self._events -= piece.count(b"data:")
        if min(self._bytes, self._values, self._containers, self._events) < 0:
            raise TooLarge


def _mended(text: bytes, *, first: bool) -> bytes:
    """Valid Unicode, for the strict parser: JavaScript leaves half a surrogate pair when it cuts an emoji in two."""
    if first:
        text = text.removeprefix(b"\xef\xbb\xbf")
    if not text.isascii():
        text = text.decode(errors="replace").encode()
    if b"\\ud" in text or b"\\uD" in text:
        text = _LONE_LOW.sub(rb"\1\\ufffd", _LONE_HIGH.sub(rb"\1\\ufffd", text, count=_MOST_MENDED), count=_MOST_MENDED)
    return text
