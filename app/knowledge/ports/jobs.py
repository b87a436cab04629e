"""The port of jobs: what must be done before files can be searched, or to remove them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from app.knowledge.ports.stores import LastError


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A task for a file in a store, as it was claimed. It belongs to the claim for the time of a lease."""

    kind: Literal["ingest", "empty", "remove"]  # `empty`: delete the passages; `remove`: and the attachment, too
    vector_store_id: str
    file_id: str
    project_id: str
    owner: str
    """Names the claim, no other."""
    attempts: int  # including this one
    attributes: bytes
    chunk_size: int
    chunk_overlap: int


class JobLost(Exception):
    """The job is no longer the worker's: the file was removed, changed or cancelled, or another has taken over."""


class Jobs(Protocol):
    """The queue, shared by all replicas. Leases are measured by the clock of the database.

    With `takeover` jobs whose lease is over are due, too. What is written for a job that is no longer ours has no
    effect.
    """

    async def waiting(self, *, takeover: bool) -> Sequence[str]:
        """The projects that have jobs due, longest due first."""
        ...

    async def claim(self, project_id: str, lease_seconds: float, *, takeover: bool) -> Job | None:
        """The project's job that has been due longest."""
        ...

    async def renew(self, job: Job, lease_seconds: float) -> bool:
        """Extend the lease; False if the job is no longer ours (the file was removed, added again, cancelled)."""
        ...

    async def complete(self, job: Job, usage_bytes: int, note: str | None) -> bool:
        """The file can be searched; `note` says which content is missing from its text.

        False if the job is no longer ours.
        """
        ...

    async def fail(self, job: Job, code: LastError, message: str) -> None:
        """It will not be retried."""
        ...

    async def postpone(self, job: Job, pause_seconds: float) -> None:
        """Return it for a retry after a pause."""
        ...

    async def release(self, job: Job, pause_seconds: float = 0.0) -> None:
        """Return it, not counted as an attempt, to be done after a pause."""
        ...

    async def settle(self, job: Job) -> None:
        """The passages of a job other than `ingest` have been deleted."""
        ...
