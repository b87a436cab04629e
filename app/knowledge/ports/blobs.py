"""The port to the contents of files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

import msgspec


class Staged(msgspec.Struct, frozen=True):
    """Content that has been received, but has no owner yet."""

    key: str
    digest: str  # SHA-256, 64 hex digits
    size: int


class Blobs(Protocol):
    """Content-addressed storage by SHA-256; identical content is stored once."""

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Receive the content in pieces; if `chunks` raises, nothing is kept."""
        ...

    async def keep(self, staged: Staged) -> None:
        """Make it the content of its digest, atomically."""
        ...

    async def drop(self, staged: Staged) -> None:
        """Discard staged content."""
        ...

    async def get(self, digest: str) -> AsyncGenerator[bytes]:
        """The content, in pieces. Raises KeyError."""
        ...

    async def delete(self, digest: str) -> None:
        """Delete the content, if it exists."""
        ...

    async def sweep(self, before: int, limit: int) -> int:
        """Discard up to `limit` contents that were staged before that time and abandoned (the process ended).

        Returns how many.
        """
        ...
