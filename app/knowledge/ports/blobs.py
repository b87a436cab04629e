"""The port to the contents of files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

import msgspec


class Staged(msgspec.Struct, frozen=True):
    """Content that has arrived, but belongs to nobody yet."""

    key: str
    digest: str  # SHA-256, 64 hex digits
    size: int


class Blobs(Protocol):
    """Bytes by the SHA-256 of what they are; the same content is kept once."""

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Take the content in, piece by piece; when `chunks` raises, nothing of it stays."""
        ...

    async def keep(self, staged: Staged) -> None:
        """Make it the content of its digest, in one step."""
        ...

    async def drop(self, staged: Staged) -> None:
        """Forget what was staged."""
        ...

    async def get(self, digest: str) -> AsyncGenerator[bytes]:
        """The content in pieces. Raises KeyError."""
        ...

    async def delete(self, digest: str) -> None:
        """Forget the content, if it is there."""
        ...

    async def sweep(self, before: int, limit: int) -> int:
        """Drop at most `limit` contents that were staged before that time and then forgotten (the process ended); how many."""
        ...
