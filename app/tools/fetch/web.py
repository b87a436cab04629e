"""GET through the guard: manual redirects, robots.txt, sizes, types. Imports the HTTP client: loaded with the first
fetch.

Requests go directly to the transport: there is no client, hence no cookies, credentials, proxy or Referer to remove.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from fnmatch import fnmatchcase
from http import HTTPStatus

import httpx2
import msgspec

from app.tools.fetch import content as _fetch_content
from app.tools.fetch import robots as _fetch_robots
from app.tools.fetch.addresses import AddressGuard
from app.tools.fetch.cache import Recent
from app.tools.fetch.transport import GuardedTransport, checked_url, port_of
from app.tools.ports.fetcher import FetchRefused, Page

PRODUCT = "responses-gateway"
"""The product token for robots.txt."""
_USER_AGENT = f"Mozilla/5.0 (compatible; {PRODUCT})"
_HOPS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REFRESHES = 3
_FIRST_BYTES = 512
_ROBOTS_SECONDS = 3600.0
_ROBOTS_WEIGHT = 1024 * 1024


class _Requested(msgspec.Struct, frozen=True):
    """What is requested of a page."""

    limit: int
    """Bytes of the body after decompression."""
    accept: Sequence[str] = ()
    headers: Sequence[tuple[str, str]] = ()
    origin: str = ""
    """The only origin that gets the headers, since they may be secrets."""


class Web:
    """Pages of the web. Raises FetchRefused throughout."""

    def __init__(self, guard: AddressGuard, *, robots: bool, tls: ssl.SSLContext | None) -> None:
        self._guard = guard
        self._transport = GuardedTransport(guard, tls=tls)
        self._keeps_to_robots = robots
        self._robots: Recent[_fetch_robots.Robots] = Recent(weight=_ROBOTS_WEIGHT, seconds=_ROBOTS_SECONDS)

    async def page(
        self, address: str, *, limit: int, accept: Sequence[str], headers: Sequence[tuple[str, str]]
    ) -> Page:
        """The page, after redirects, including those in the page itself.

        Those from https to http are followed: nothing secret is sent.
        """
        url = checked_url(address)
        requested = _Requested(limit, accept, headers, _origin(url))
        for _ in range(_REFRESHES + 1):
            async with self._landed(url, requested, robots=self._keeps_to_robots) as (landed, response):
                page = await _page(landed, response, requested)
            further = _fetch_content.refresh(response.headers.get("refresh", ""), page.content_type, page.body)
            url = landed if further is None else _joined(landed, further)
            if url == landed:
                return page
        raise FetchRefused(f"The page redirects more than {_REFRESHES} times.")

    async def check(self, address: str) -> None:
        """Only check whether the address may be fetched."""
        url = checked_url(address)
        await self._guard.addresses(url.raw_host.decode("ascii"), port_of(url))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    @asynccontextmanager
    async def _landed(
        self, url: httpx2.URL, requested: _Requested, *, robots: bool
    ) -> AsyncGenerator[tuple[httpx2.URL, httpx2.Response]]:
        for _ in range(_HOPS + 1):
            if robots and not await self._may(url):
                raise FetchRefused(f"{url.host} disallows programs to fetch this page (robots.txt).")
            response = await self._send(
                url, requested.accept, requested.headers if _origin(url) == requested.origin else ()
            )
            try:
                if response.status_code not in _REDIRECTS:
                    yield url, response
                    return
            finally:
                await response.aclose()
            url = _target(url, response)
        raise FetchRefused(f"The page redirects more than {_HOPS} times.")

    async def _send(
        self, url: httpx2.URL, accept: Sequence[str], headers: Sequence[tuple[str, str]]
    ) -> httpx2.Response:
        fields = httpx2.Headers(
            {
                "user-agent": _USER_AGENT,
                "accept": ", ".join([*accept, "*/*;q=0.1"]),
                "accept-encoding": "gzip, deflate",
            }
        )
        fields.update(list(headers))
        with _sentences(url.host):
            return await self._transport.handle_async_request(httpx2.Request("GET", url, headers=fields))

    async def _may(self, url: httpx2.URL) -> bool:
        """Whether robots.txt allows it.

        A missing one does; one that the server fails to deliver does not (RFC 9309, 2.3.1).
        """
        place = _origin(url)
        rules = self._robots.get(place)
        if rules is None:
            rules = await self._read_robots(url.join("/robots.txt"))
            self._robots.put(place, rules, rules.size)
        return rules.allows(url.raw_path.decode("ascii"))

    async def _read_robots(self, url: httpx2.URL) -> _fetch_robots.Robots:
        async with self._landed(url, _Requested(_fetch_robots.MOST_BYTES, ("text/plain",)), robots=False) as (
            _,
            response,
        ):
            if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise FetchRefused(
                    f"{url.host} fails to deliver its robots.txt, which says whether programs may fetch its pages."
                )
            if not response.is_success:
                return _fetch_robots.Robots()
            content, _ = await _read(response, _fetch_robots.MOST_BYTES, url.host)
            return await asyncio.to_thread(_fetch_robots.parse, content, PRODUCT)


async def _page(url: httpx2.URL, response: httpx2.Response, requested: _Requested) -> Page:
    if not response.is_success:
        raise FetchRefused(f"{url.host} answers with status {response.status_code}{_phrase(response.status_code)}.")
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    vague = _fetch_content.is_vague(content_type)
    if not vague:
        _check_type(url, content_type, requested)
    length = response.headers.get("content-length", "")
    too_large = FetchRefused(f"The page is larger than {requested.limit} bytes.")
    if length.isdecimal() and int(length) > requested.limit:
        raise too_large
    content, complete = await _read(response, requested.limit, url.host)
    if not complete:
        raise too_large
    if vague:
        content_type = _fetch_content.told(content) or content_type
        _check_type(url, content_type, requested)
    charset = _fetch_content.charset(response.charset_encoding, content_type, content)
    return Page(url=str(url), content_type=content_type, charset=charset, body=content)


def _check_type(url: httpx2.URL, content_type: str, requested: _Requested) -> None:
    if requested.accept and not any(fnmatchcase(content_type, pattern) for pattern in requested.accept):
        raise FetchRefused(
            f"{url.host} sends {content_type[:100] or 'no content type'}; accepted are {', '.join(requested.accept)}."
        )


async def _read(response: httpx2.Response, limit: int, host: str) -> tuple[bytes, bool]:
    """At most `limit` bytes of the body, decompressed in pieces (of at most 1 MiB), and whether that is all."""
    headers = response.headers
    label, content_type = headers.get("content-encoding", ""), headers.get("content-type", "").lower()
    with _sentences(host):
        async with aclosing(response.aiter_raw()) as pieces:
            start = b""
            async for piece in pieces:
                start += piece
                if len(start) >= _FIRST_BYTES:
                    break
            body: httpx2.AsyncByteStream = _Rest(start, pieces)
            packing = _fetch_content.packing(label, content_type, start)
            content, complete = await _unpacked(body, packing, limit)
            again = _fetch_content.packing("", content_type, content[:_FIRST_BYTES])
            if packing and again and complete:  # compressed twice
                content, complete = await _unpacked(_Rest(content), again, limit)
            if start and not content:
                raise httpx2.DecodingError("nothing comes of it")
    return content, complete


async def _unpacked(stream: httpx2.AsyncByteStream, packing: str, limit: int) -> tuple[bytes, bool]:
    content = bytearray()
    response = httpx2.Response(HTTPStatus.OK, headers={"content-encoding": packing} if packing else {}, stream=stream)
    async with aclosing(response.aiter_bytes()) as pieces:
        async for piece in pieces:
            content += piece[: limit - len(content) + 1]
            if len(content) > limit:
                return bytes(content[:limit]), False
            await asyncio.sleep(0)  # a little data can decompress to a lot, and others wait for the loop
    return bytes(content), True


class _Rest(httpx2.AsyncByteStream):
    """A body whose beginning has already been read."""

    def __init__(self, start: bytes, pieces: AsyncIterator[bytes] | None = None) -> None:
        self._start = start
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._start
        if self._pieces is not None:
            async for piece in self._pieces:
                yield piece


def _target(url: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
    return _joined(url, response.headers.get("location", ""))


def _joined(url: httpx2.URL, location: str) -> httpx2.URL:
    try:
        return checked_url(str(url.join(location)) if location else "")
    except (httpx2.InvalidURL, FetchRefused) as error:
        reason = str(error) if isinstance(error, FetchRefused) else "It is not a valid URL."
        raise FetchRefused(f"The page redirects to an address that cannot be fetched. {reason}") from error


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.host}:{port_of(url)}"


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


@contextmanager
def _sentences(host: str) -> Generator[None]:
    try:
        yield
    except httpx2.DecodingError as error:
        raise FetchRefused(f"{host} sends a body that cannot be decompressed.") from error
    except httpx2.ConnectError as error:
        if "certificate verify failed" in str(error).lower():
            raise FetchRefused(f"The TLS certificate of {host} is not valid.") from error
        raise FetchRefused(f"{host} does not answer.") from error
    except httpx2.TransportError as error:
        raise FetchRefused(f"{host} closes the connection early or sends invalid HTTP.") from error
