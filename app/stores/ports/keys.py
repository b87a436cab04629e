"""The port to API keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret. Times are integer Unix seconds."""

    id: str
    project_id: str
    project: str
    """The project's name."""
    name: str
    prefix: str
    """The first characters, by which people recognise the key."""
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None


class KeyStore(Protocol):
    """Projects and their API keys. Only SHA-256 digests of keys are stored. Every method may raise StoreUnavailable."""

    async def find(self, digest: bytes) -> ApiKey | None:
        """The key with this SHA-256 digest, including revoked and expired ones; the caller decides."""
        ...

    async def create(self, key: ApiKey, digest: bytes) -> ApiKey:
        """Add a key; a project with this name is reused or else created (the result has the actual project_id)."""
        ...

    async def list(self) -> Sequence[ApiKey]:
        """All keys, newest first."""
        ...

    async def revoke(self, key_id: str, now: int) -> bool:
        """Revoke by id or by prefix; False if unknown."""
        ...

    async def touch(self, used: Mapping[str, int]) -> None:
        """Record when keys were last used: key id -> time."""
        ...

    async def secret(self, name: str, fallback: bytes) -> bytes:
        """The installation's secret with this name.

        If there is none yet, `fallback` (fresh random bytes) becomes it.
        """
        ...
