"""Authentication: maps API keys to projects."""

from __future__ import annotations

import hmac
import secrets
import time
from hashlib import sha256

import msgspec

from app.protocol.wire.errors import Unauthorized
from app.stores.ports.keys import ApiKey, KeyStore

_REMEMBERED_SECONDS = 5.0
"""How long a checked key is cached: the longest time a revoked key still works."""
_REMEMBERED_KEYS = 10_000
_PREFIX = 12


class Principal(msgspec.Struct, frozen=True):
    """The project and key of a request."""

    project_id: str
    key_id: str


ADMIN = Principal("admin", "admin")
ANYONE = Principal("default", "anyone")


class Access:
    """Checks keys and caches them for a few seconds."""

    def __init__(self, keys: KeyStore, *, admin_key: str | None, required: bool) -> None:
        self._keys = keys
        self._admin = sha256(admin_key.encode()).digest() if admin_key else None
        self._required = required
        self._known: dict[bytes, tuple[float, Principal | None]] = {}
        self._used: dict[str, int] = {}

    async def principal(self, authorization: bytes | None) -> Principal:
        """The principal of this `Authorization` header. Raises Unauthorized."""
        if authorization is None:
            if not self._required:
                return ANYONE
            raise Unauthorized(
                "You didn't provide an API key. Send it as 'Authorization: Bearer sk-…'.", code="missing_api_key"
            )
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            raise Unauthorized("Malformed Authorization header: expected 'Bearer sk-…'.", code="invalid_api_key")
        digest = sha256(key.strip()).digest()
        now = time.monotonic()
        known = self._known.get(digest)
        if known is None or known[0] < now:
            known = (now + _REMEMBERED_SECONDS, await self._look_up(digest))
            if len(self._known) >= _REMEMBERED_KEYS:
                self._known.clear()
            self._known[digest] = known
        if known[1] is None:
            if not self._required:
                return ANYONE
            raise Unauthorized("Incorrect API key provided: it is unknown, expired or revoked.", code="invalid_api_key")
        return known[1]

    async def flush(self) -> None:
        """Store when keys were last used."""
        used, self._used = self._used, {}
        if used:
            await self._keys.touch(used)

    async def _look_up(self, digest: bytes) -> Principal | None:
        if self._admin and hmac.compare_digest(digest, self._admin):
            return ADMIN
        key = await self._keys.find(digest)
        now = int(time.time())
        if key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            return None
        self._used[key.id] = now
        return Principal(key.project_id, key.id)


class NewKey(msgspec.Struct, frozen=True):
    """A key just created; `secret` is shown once and never stored."""

    key: ApiKey
    secret: str


async def create_key(keys: KeyStore, *, project: str, name: str, expires_at: int | None = None) -> NewKey:
    """Create a key for a project; the project is created if it does not exist."""
    secret = f"sk-{secrets.token_urlsafe(32)}"
    key = ApiKey(
        id=f"key_{secrets.token_hex(12)}",
        project_id=f"proj_{secrets.token_hex(12)}",
        project=project,
        name=name,
        prefix=secret[:_PREFIX],
        created_at=int(time.time()),
        expires_at=expires_at,
    )
    return NewKey(await keys.create(key, sha256(secret.encode()).digest()), secret)
