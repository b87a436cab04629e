"""The one way of the gateway to addresses that a model, a page or a request named: fetched pages, images, files and MCP servers.

Two doors, one guard:

- `GuardedFetcher` implements `app.tools.base.Fetcher`: a page by GET, redirects followed by hand, size, time, type and robots.txt kept to.
- `guarded_transport(allow)` and `guarded_client(allow, …)` are for libraries that bring their own protocol. They are httpx2's
  (`httpx2.AsyncBaseTransport`, `httpx2.AsyncClient`), which is the client of the MCP SDK; `functools.partial(guarded_client, allow)`
  is its `httpx_client_factory`. Every connection they make is checked and pinned; what is refused raises FetchRefused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.tools._fetch_addresses import AddressGuard

if TYPE_CHECKING:
    import httpx2


def guarded_transport(allow: Sequence[str]) -> httpx2.AsyncBaseTransport:
    """A transport that connects to public addresses, and to those `allow` exempts (see `AddressGuard`)."""
    from app.tools._fetch_transport import GuardedTransport  # noqa: PLC0415 - the HTTP client costs 18 MiB, which a gateway at rest need not hold

    return GuardedTransport(AddressGuard(allow))


def guarded_client(
    allow: Sequence[str],
    headers: dict[str, str] | None = None,
    timeout: httpx2.Timeout | None = None,
    auth: httpx2.Auth | None = None,
) -> httpx2.AsyncClient:
    """A client over the guarded transport: no proxy, no .netrc, redirects not followed (each one that is followed is checked, too)."""
    import httpx2  # noqa: PLC0415 - as above

    return httpx2.AsyncClient(
        transport=guarded_transport(allow), headers=headers, timeout=timeout or httpx2.Timeout(30.0), auth=auth, trust_env=False
    )
