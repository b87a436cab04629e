"""The HTTP/1.1 client of the generation path: pooled connections, one write per request, one wake-up per read.

`docs/adr/0002-own-upstream-client.md` says why it is not httpx, which is used for everything outside the hot path.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import SplitResult, urlsplit

from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.http.connection import ClientTimeouts, Connection, abandoned, overdue
from app.providers.http.response import Response
from app.telemetry.request import current

__all__ = ["ClientTimeouts", "UpstreamClient", "UpstreamReply"]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"/[!-~]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_RESERVED = frozenset(
    (
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Fields that control framing and coding: set by the client only."""


_LONGEST_ID = 128


class UpstreamReply:
    """A response whose head has arrived. Must always be closed."""

    __slots__ = ("_connection", "_release", "headers", "status")

    def __init__(self, connection: Connection, response: Response, release: Callable[[Connection], None]) -> None:
        self.status = response.status
        self.headers = response.headers
        """Names in lower case."""
        self._connection: Connection | None = connection
        self._release = release

    def read_some(self) -> Awaitable[bytes]:
        """All bytes of the body that have arrived since the last call; `b""` at its end.

        Raises UpstreamError if a time limit passes, UpstreamProtocolError if the body is truncated or malformed.
        """
        if self._connection is None:
            raise RuntimeError("this reply has been closed")
        return self._connection.read()

    async def read(self, limit: int) -> bytes:
        """The rest of the body.

        Raises UpstreamProtocolError if it is longer than `limit` bytes, otherwise like `read_some`.
        """
        parts: list[bytes] = []
        size = 0
        while part := await self.read_some():
            parts.append(part)
            size += len(part)
            if size > limit:
                self.close()
                raise UpstreamProtocolError("The upstream's answer is too large.", retryable=False)
        return b"".join(parts)

    def close(self) -> None:
        """Return the connection if the body has arrived in full, otherwise close it: the upstream sees immediately that
        nobody listens.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            self._release(connection)


class UpstreamClient:
    """Requests to one upstream. Bound to one event loop.

    `base_url` may have a path, which is prepended to every request's. `headers` are sent with every request. `tls`
    replaces the system's certificates and checks for https. At most `max_idle` unused connections are kept. Raises
    ValueError for invalid values.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str],
        timeouts: ClientTimeouts,
        tls: ssl.SSLContext | None = None,
        max_idle: int = 200,
    ) -> None:
        url, hostname = _checked(base_url)
        self._host = hostname.encode("idna").decode("ascii")
        self._port = url.port or _DEFAULT_PORTS[url.scheme]
        self._tls = (tls or ssl.create_default_context()) if url.scheme == "https" else None
        self._prefix = url.path.rstrip("/")
        self._fields = _fields(_authority(self._host, url.port, url.scheme), headers)
        self._heads: dict[tuple[str, str], bytes] = {}
        self._timeouts = timeouts
        self._max_idle = max_idle
        self._idle: dict[Connection, None] = {}
        """Unused connections, the most recently used at the end."""
        self._connections: set[Connection] = set()
        self._closed = False

    async def post(self, path: str, *body: bytes, accept: str) -> UpstreamReply:
        """Send JSON, which may be in pieces, and return when the response's head has arrived.

        Raises UpstreamError: 503 `upstream_unreachable`, 504 `upstream_timeout`; UpstreamProtocolError for a malformed
        or truncated head.
        """
        head = self._heads.get((path, accept))
        if head is None:
            head = self._head("POST", path, accept) + b"Content-Length: "
            self._heads[path, accept] = head
        reply = await self._exchange((b"%b%d\r\n\r\n" % (head, sum(map(len, body))), *body))
        current.get().upstream_request = reply.headers.get("x-request-id", "")[:_LONGEST_ID] or None
        return reply

    async def get(self, path: str) -> UpstreamReply:
        """Request JSON; otherwise like `post`."""
        return await self._exchange((self._head("GET", path, "application/json") + b"\r\n",))

    async def aclose(self) -> None:
        """Close every connection; replies in progress fail."""
        self._closed = True
        connections = list(self._connections)
        for connection in connections:
            connection.fail(abandoned())
        if connections:
            await asyncio.wait([connection.lost for connection in connections])

    async def _exchange(self, request: Sequence[bytes]) -> UpstreamReply:
        if self._idle:
            connection, _ = self._idle.popitem()
            try:
                return await self._send(connection, request)
            except UpstreamProtocolError:
                if connection.answered:
                    raise
                # A server may close a kept-alive connection just as a request goes out (RFC 9112, section 9.3.1).
                # Retrying is safe: a generation that nobody reads changes nothing upstream.
        return await self._send(await self._connect(), request)

    async def _send(self, connection: Connection, request: Sequence[bytes]) -> UpstreamReply:
        return UpstreamReply(connection, await connection.send(request), self._release)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        server_name = self._host if self._tls else None
        try:
            async with asyncio.timeout(self._timeouts.connect):  # once per connection, so its cost does not matter
                _, connection = await loop.create_connection(
                    lambda: Connection(self._timeouts, self._forget),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=server_name,
                )
        except TimeoutError as error:
            raise overdue("did not accept a connection", self._timeouts, "connect", retryable=True) from error
        except OSError as error:
            raise _unreachable(error) from error
        self._connections.add(connection)
        if self._closed:
            connection.fail(abandoned())
        return connection

    def _release(self, connection: Connection) -> None:
        if connection.reusable and len(self._idle) < self._max_idle:
            self._idle[connection] = None
        else:
            connection.fail(abandoned())

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._idle.pop(connection, None)

    def _head(self, method: str, path: str, accept: str) -> bytes:
        target = self._prefix + path
        if not _TARGET.fullmatch(target) or not _FIELD_VALUE.fullmatch(accept):
            raise ValueError("path or accept: has characters that cannot be sent")
        return f"{method} {target} HTTP/1.1\r\n{self._fields}Accept: {accept}\r\n".encode("latin-1")


def _authority(host: str, port: int | None, scheme: str) -> str:
    """The Host field: an IPv6 address in brackets, without the scheme's default port."""
    name = f"[{host}]" if ":" in host else host
    return name if port in (None, _DEFAULT_PORTS[scheme]) else f"{name}:{port}"


def _checked(base_url: str) -> tuple[SplitResult, str]:
    """The URL and its host. Raises ValueError."""
    url = urlsplit(base_url)
    if url.scheme not in _DEFAULT_PORTS or not url.hostname:
        raise ValueError("base_url: must be http://host… or https://host…")
    if url.username is not None or url.query or url.fragment:
        raise ValueError("base_url: must not have a user, a query or a fragment")
    if not _TARGET.fullmatch(url.path or "/"):
        raise ValueError("base_url: its path has characters that cannot be sent")
    return url, url.hostname


def _fields(authority: str, configured: Mapping[str, str]) -> str:
    """Header lines for every request; `configured` overrides the client's defaults.

    Raises ValueError, which never quotes a value.
    """
    fields = {"host": authority, "user-agent": "responses-gateway", "content-type": "application/json"}
    for name, value in configured.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _RESERVED:
            raise ValueError(f"header {name!r}: cannot be set")
        if not _FIELD_VALUE.fullmatch(value):
            raise ValueError(f"header {name!r}: its value has characters that cannot be sent")
        fields[name.lower()] = value
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "Accept-Encoding: identity\r\n"


def _unreachable(error: OSError) -> UpstreamError:
    match error:
        case ssl.SSLCertVerificationError():
            reason = "its TLS certificate is not trusted"
        case ssl.SSLError():
            reason = "the TLS handshake failed"
        case socket.gaierror():
            reason = "its host name cannot be resolved"
        case ConnectionRefusedError():
            reason = "it refused the connection"
        case _:
            reason = "the connection failed"
    return UpstreamError(
        f"The upstream cannot be reached: {reason}.", status=503, code="upstream_unreachable", retryable=True
    )
