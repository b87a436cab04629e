"""The locks that this process holds in conversations."""

from __future__ import annotations

from app.stores.ports.conversations import ConversationStore

LEASE_SECONDS = 10.0
BEAT_SECONDS = 2.0
"""How often the leases are extended."""


class ConversationLocks:
    """Of responses that end with the process: their leases are extended until they are released."""

    def __init__(self, store: ConversationStore) -> None:
        self._store = store
        self._held: set[str] = set()

    def add(self, response_id: str) -> None:
        """Extend the lease of this response from now on."""
        self._held.add(response_id)

    def discard(self, response_id: str) -> None:
        """Extend it no longer."""
        self._held.discard(response_id)

    async def renew(self) -> None:
        """Extend the leases. Raises StoreUnavailable."""
        await self._store.renew(list(self._held), LEASE_SECONDS)
