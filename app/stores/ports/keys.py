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
    """The first characters, for people to recognise the key by."""
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None


class KeyStore(Protocol):
    """Projects and their API keys. Only SHA-256 digests of keys are kept. Every method may raise StoreUnavailable."""

    async def find(self, digest: bytes) -> ApiKey | None:
        """The key with this SHA-256 digest, revoked and expired ones included; the caller judges."""
        ...

    async def create(self, key: ApiKey, digest: bytes) -> ApiKey:
        """Add a key; the project is made when there is none of that name, else reused (the answer holds the real project_id)."""
        ...

    async def list(self) -> Sequence[ApiKey]:
        """All keys, newest first."""
        ...

    async def revoke(self, key_id: str, now: int) -> bool:
        """Revoke by id or by prefix; False when unknown."""
        ...

    async def touch(self, used: Mapping[str, int]) -> None:
        """Note when keys were last used: key id -> time."""
        ...

    async def secret(self, name: str, fallback: bytes) -> bytes:
        """The installation's secret of that name; `fallback` (fresh random bytes) becomes it when there is none yet."""
        ...
