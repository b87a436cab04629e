"""The guard at the socket: an httpx2 transport that connects only to addresses that have just been checked.

The check is where the connection is made, so that nothing above it (a redirect, another parsing of the URL, a second
lookup) can bypass it; TLS and the Host header keep the name. Imports the HTTP client: loaded with the first fetch, not
at startup.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable
from contextlib import contextmanager
from typing import cast

import httpcore2
import httpx2

from app.tools.fetch.addresses import AddressGuard, check_name, check_port
from app.tools.ports.fetcher import FetchRefused

_ADDRESSES_TRIED = 4
_SECONDS_PER_ADDRESS = 4.0
_LONGEST_URL = 8192
_CONNECTIONS = 200
_IDLE_CONNECTIONS = 20
_KEEP_ALIVE = 10.0
_PORTS = {"http": 80, "https": 443}


def checked_url(text: str) -> httpx2.URL:
    """The URL, without fragment.

    Raises FetchRefused unless it is a plain http(s) URL: no user name, no suspicious host or characters.
    """
    text = text.strip()
    if len(text) > _LONGEST_URL:
        raise FetchRefused(f"The URL is longer than {_LONGEST_URL} characters.")
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise FetchRefused(f"{text[:200]!r} is not a valid URL.") from error
    check_url(url)
    return url.copy_with(fragment=None)


def check_url(url: httpx2.URL) -> None:
    """Raises FetchRefused for URLs that may not be fetched, whatever they resolve to."""
    if url.scheme not in _PORTS:
        raise FetchRefused("Only URLs that begin with http:// or https:// can be fetched.")
    if url.userinfo:
        raise FetchRefused("The URL contains a user name or password.")
    check_name(url.raw_host.decode("ascii"))
    check_port(port_of(url))


def port_of(url: httpx2.URL) -> int:
    """The URL's port, or its scheme's default."""
    return _PORTS[url.scheme] if url.port is None else url.port


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Resolves, checks and connects; there is no other way to a socket."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._sockets = cast("httpcore2.AsyncNetworkBackend", httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore2's
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._guard.addresses(host, port)
        seconds = _SECONDS_PER_ADDRESS if timeout is None else min(timeout, _SECONDS_PER_ADDRESS)
        error: Exception = httpcore2.ConnectError()
        for address in addresses[:_ADDRESSES_TRIED]:
            try:
                return await self._sockets.connect_tcp(address, port, seconds, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as refusal:
                error = refusal
        # The original error names the address.
        raise type(error)(f"{host} does not answer") from None


class GuardedTransport(httpx2.AsyncBaseTransport):
    """httpx2's own transport over a pool with a guarded backend; uses no proxy and no environment."""

    def __init__(self, guard: AddressGuard, *, tls: ssl.SSLContext | None = None) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_KEEP_ALIVE,
            network_backend=_GuardedBackend(guard),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it. Raises FetchRefused, or else what httpx2's transport raises."""
        check_url(request.url)
        if not isinstance(request.stream, httpx2.AsyncByteStream):
            raise TypeError("the request's body must be an asynchronous stream")
        sent = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _httpx2_errors():
            response = await self._pool.handle_async_request(sent)
        if not isinstance(response.stream, AsyncIterable):
            raise TypeError("the response's body must be an asynchronous stream")
        return httpx2.Response(response.status, headers=response.headers, stream=_Body(response))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _httpx2_errors():
            async for piece in self._response.aiter_stream():
                yield piece

    async def aclose(self) -> None:
        await self._response.aclose()


_ERRORS: dict[type[Exception], type[httpx2.TransportError]] = {
    # Subclasses first.
    httpcore2.ConnectTimeout: httpx2.ConnectTimeout,
    httpcore2.ReadTimeout: httpx2.ReadTimeout,
    httpcore2.WriteTimeout: httpx2.WriteTimeout,
    httpcore2.PoolTimeout: httpx2.PoolTimeout,
    httpcore2.ConnectError: httpx2.ConnectError,
    httpcore2.ReadError: httpx2.ReadError,
    httpcore2.WriteError: httpx2.WriteError,
    httpcore2.LocalProtocolError: httpx2.LocalProtocolError,
    httpcore2.RemoteProtocolError: httpx2.RemoteProtocolError,
    httpcore2.UnsupportedProtocol: httpx2.UnsupportedProtocol,
}


@contextmanager
def _httpx2_errors() -> Generator[None]:
    try:
        yield
    except tuple(_ERRORS) as error:
        raise next(ours for theirs, ours in _ERRORS.items() if isinstance(error, theirs))(str(error)) from error
