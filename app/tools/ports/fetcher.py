"""The port to the web."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Page(msgspec.Struct, frozen=True):
    """The result of a fetch."""

    url: str
    """After redirects."""
    content_type: str
    """Lower case, without parameters."""
    charset: str | None
    body: bytes


class FetchRefused(Exception):
    """The address may not or cannot be fetched; the message is a sentence without internals."""


class Fetcher(Protocol):
    """Fetches from the public web only: see `app/tools/fetch/fetcher.py` for the protections."""

    async def get(
        self,
        url: str,
        *,
        limit: int,
        seconds: float,
        accept: Sequence[str] = (),
        headers: Sequence[tuple[str, str]] = (),
    ) -> Page:
        """The page. `limit`: bytes of the body after decompression. `accept`: content types (`text/html`, `image/*`);
        empty: any.

        Raises FetchRefused: forbidden address, too large, too slow, wrong type, error status, no answer.
        """
        ...

    async def check(self, url: str) -> None:
        """Raises FetchRefused unless the address may be fetched (for libraries that connect by themselves, such as
        MCP's).
        """
        ...

    def on_behalf(self, project_id: str) -> Fetcher:
        """The same for one project, which shares capacity fairly with others.

        Without a project, all fetches share as one.
        """
        ...
