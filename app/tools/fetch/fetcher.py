"""The gateway's only way to addresses named by a model, a page or a request: fetched pages, images, files and MCP
servers.

Two entry points, one guard:

- `GuardedFetcher` implements `app.tools.ports.fetcher.Fetcher`: a page by GET, with manual redirects and limits on
  size, time, type and robots.txt.
- `guarded_transport(allow)` and `guarded_client(allow, …)` are for libraries with their own protocol. They are httpx2's
  (`httpx2.AsyncBaseTransport`, `httpx2.AsyncClient`), which is the client of the MCP SDK;
  `functools.partial(guarded_client, allow)` is its `httpx_client_factory`. Every connection they make is checked and
  pinned; refusals raise FetchRefused.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.fairness import Busy, FairQueue
from app.tools.fetch.addresses import AddressGuard, Resolve, look_up
from app.tools.ports.fetcher import Fetcher, FetchRefused, Page

if TYPE_CHECKING:
    import httpx2

    from app.tools.fetch.web import Web

_LOOK_UP_SECONDS = 10.0
_WAITING = 256
"""Waiting fetches of one project."""


class GuardedFetcher:
    """A `Fetcher` for the public web, and for what `allow` exempts.

    http and https only; ports 80, 443 and from 1024 up; no user names in URLs; at most five redirects, each checked
    like the first address (https may redirect to http: nothing secret is sent). Every address of a host is checked, and
    the connection is made to a checked one. robots.txt is respected if `robots` is true. `resolve` and `tls` replace
    the system's name servers and certificates. `at_once` is the number of concurrent fetches, of which one project gets
    at most half.
    """

    def __init__(
        self,
        *,
        allow: Sequence[str] = (),
        robots: bool = True,
        resolve: Resolve = look_up,
        tls: ssl.SSLContext | None = None,
        at_once: int = 128,
    ) -> None:
        """Raises ValueError for an invalid entry of `allow`. Opens nothing."""
        self._guard = AddressGuard(allow, resolve=resolve)
        self._queue = FairQueue(at_once, waiting=_WAITING)
        self._robots = robots
        self._tls = tls
        self._web: Web | None = None
        self._starting = asyncio.Lock()

    async def get(
        self,
        url: str,
        *,
        limit: int,
        seconds: float,
        accept: Sequence[str] = (),
        headers: Sequence[tuple[str, str]] = (),
    ) -> Page:
        """Fetch a page. `seconds` covers everything: waiting for a slot, DNS, robots.txt, redirects and the body."""
        return await self.get_for("", url, limit=limit, seconds=seconds, accept=accept, headers=headers)

    async def get_for(
        self,
        project: str,
        url: str,
        *,
        limit: int,
        seconds: float,
        accept: Sequence[str],
        headers: Sequence[tuple[str, str]],
    ) -> Page:
        """`get` on behalf of a project."""
        web = await self._started()
        try:
            async with asyncio.timeout(seconds), self._queue.place(project):
                return await web.page(url, limit=limit, accept=accept, headers=headers)
        except TimeoutError as error:
            raise FetchRefused(f"The page was not received within {seconds:g} seconds.") from error
        except Busy as error:
            raise FetchRefused(f"The page was not fetched. {error}") from error

    async def check(self, url: str) -> None:
        """Raises FetchRefused unless the URL may be fetched.

        A library that resolves names again needs `guarded_client` instead.
        """
        web = await self._started()
        try:
            async with asyncio.timeout(_LOOK_UP_SECONDS):
                await web.check(url)
        except TimeoutError as error:
            raise FetchRefused(f"The host name was not resolved within {_LOOK_UP_SECONDS:g} seconds.") from error

    def on_behalf(self, project_id: str) -> Fetcher:
        """A fetcher whose requests count against this project's share."""
        return _OnBehalf(self, project_id)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._web is not None:
            await self._web.aclose()

    async def _started(self) -> Web:
        async with self._starting:
            if self._web is None:
                self._web = await asyncio.to_thread(self._start)  # the import would block every stream
            return self._web

    def _start(self) -> Web:
        from app.tools.fetch.web import Web  # noqa: PLC0415 - the HTTP client takes 18 MiB, which an idle gateway need not hold

        return Web(self._guard, robots=self._robots, tls=self._tls)


class _OnBehalf:
    """A `Fetcher` of one project."""

    def __init__(self, fetcher: GuardedFetcher, project_id: str) -> None:
        self._fetcher = fetcher
        self._project_id = project_id
        self.check = fetcher.check
        self.on_behalf = fetcher.on_behalf

    async def get(
        self,
        url: str,
        *,
        limit: int,
        seconds: float,
        accept: Sequence[str] = (),
        headers: Sequence[tuple[str, str]] = (),
    ) -> Page:
        return await self._fetcher.get_for(
            self._project_id, url, limit=limit, seconds=seconds, accept=accept, headers=headers
        )


def guarded_transport(allow: Sequence[str]) -> httpx2.AsyncBaseTransport:
    """A transport that connects to public addresses, and to those that `allow` exempts (see `AddressGuard`)."""
    from app.tools.fetch.transport import GuardedTransport  # noqa: PLC0415 - as above

    return GuardedTransport(AddressGuard(allow))


def guarded_client(
    allow: Sequence[str],
    headers: dict[str, str] | None = None,
    timeout: httpx2.Timeout | None = None,
    auth: httpx2.Auth | None = None,
) -> httpx2.AsyncClient:
    """A client with the guarded transport: no proxy, no .netrc, no automatic redirects (each one that is followed is
    checked, too).
    """
    import httpx2  # noqa: PLC0415 - as above

    return httpx2.AsyncClient(
        transport=guarded_transport(allow),
        headers=headers,
        timeout=timeout or httpx2.Timeout(30.0),
        auth=auth,
        trust_env=False,
    )
