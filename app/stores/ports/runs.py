"""The port to background runs that have not ended.

A run has a row from its acceptance to its end. Whoever works on it owns it for the time of a lease, which the owner
renews. Every change of owner makes the run's fence larger, and whoever writes anything of the run names the fence it
has: an older one is refused, so that an owner that was believed dead can do no harm when it wakes up. Leases are
measured by the store's own clock. Every read for a client takes the project; another project's run is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from app.stores.ports.responses import ResponseRecord


class StoredRun(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to run a response, or to run it again: it never changes."""

    id: str
    """The response's id, canonical UUID text."""
    project_id: str
    previous_id: str | None
    """The previous turn. It is kept as long as the run, even if it expires."""
    created_at: int
    """Integer Unix seconds."""
    lane: int = 0
    """How soon it is to run: 0 as soon as possible, 1 within two hours, 2 within eight."""
    streamed: bool = False
    lenient: bool = False
    request: bytes
    """The request's body as sent."""
    seed: bytes
    """The response as it began, JSON."""


class Claim(msgspec.Struct, frozen=True):
    """A run that its claimer now owns."""

    run: StoredRun
    fence: int
    progress: bytes | None = None
    """What an owner has noted last."""


class Held(msgspec.Struct, frozen=True):
    """A run that was renewed.

    A fence that is not the caller's own says that the run is lost, to another with the same name.
    """

    fence: int
    cancelled: bool
    """Somebody asked for its cancellation."""


class RunState(msgspec.Struct, frozen=True):
    """A run that has not ended."""

    run: StoredRun
    owner: str | None
    """None: it is waiting."""
    fence: int
    cancelled: bool
    lease_seconds: float
    """What is left of the owner's lease, negative if it is over; 0 if it is waiting."""


class RunStore(Protocol):
    """Runs of all projects. Safe to call concurrently. Every method may raise StoreUnavailable."""

    async def create(self, run: StoredRun, owner: str | None, lease_seconds: float) -> None:
        """Add a run: owned already, with fence 1, or waiting, with fence 0.

        Durable when this returns. Raises RecordRefused.
        """
        ...

    async def claim(
        self, owner: str, lease_seconds: float, most: int, *, lanes: int = 2, takeover: bool
    ) -> Sequence[Claim]:
        """Own up to `most` runs of the lanes up to `lanes`: by lane, then the oldest first.

        Waiting ones; with `takeover` also those whose lease is over. No run is given to two claimers.
        """
        ...

    async def renew(self, owner: str, ids: Sequence[str], lease_seconds: float) -> Mapping[str, Held]:
        """Extend the leases of these runs, as far as the owner still has them: an id that is missing in the result is
        lost, or settled.
        """
        ...

    async def request_cancel(self, project_id: str, run_id: str) -> RunState | None:
        """Tell the run's owner, with its next renewal, to cancel it. None if there is no such run."""
        ...

    async def seize(self, run_id: str, fence: int, owner: str, lease_seconds: float) -> Claim | None:
        """Own this run, if its fence is still this one, whoever owns it and whether or not the lease is over.

        None if it is not.
        """
        ...

    async def release(self, owner: str, run_id: str, fence: int) -> bool:
        """Give it back: it is waiting again. False if it was not the owner's any more."""
        ...

    async def note(self, run_id: str, fence: int, progress: bytes) -> bool:
        """Keep what the run has finished, for the next owner.

        False if the run was not owned with this fence any more.
        """
        ...

    async def settle(self, record: ResponseRecord, fence: int) -> bool:
        """End the run: its record is stored and the run is gone, both or neither. Raises RecordRefused.

        False if the run was not owned with this fence any more; nothing is written then. A repetition of what succeeded
        is True.
        """
        ...

    async def get(self, project_id: str, run_id: str) -> RunState | None:
        """The run, or None if it is unknown, settled or another project's."""
        ...

    async def waiting(self) -> int:
        """How many runs are waiting, in all lanes and projects."""
        ...
