"""The port of jobs: what must be done before files can be searched, or to remove them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from app.knowledge.ports.stores import LastError


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A task for a file in a store, which only the holder of `owner` may do, until its lease ends."""

    kind: Literal["ingest", "empty", "remove"]  # `empty`: delete the passages; `remove`: and the attachment, too
    vector_store_id: str
    file_id: str
    project_id: str
    owner: str
    attempts: int  # including this one
    attributes: bytes
    chunk_size: int
    chunk_overlap: int


class JobLost(Exception):
    """The job is no longer the worker's: the file was removed, changed or cancelled, or another has taken over."""


class Jobs(Protocol):
    """The queue, shared by all replicas. A job whose worker died is due again after its lease."""

    async def waiting(self, now: int) -> Sequence[str]:
        """The projects that have jobs due, longest due first."""
        ...

    async def claim(self, owner: str, now: int, until: int, project_id: str) -> Job | None:
        """The project's job that has been due longest, reserved until that time. `owner` is new for every claim."""
        ...

    async def renew(self, job: Job, until: int) -> bool:
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

    async def postpone(self, job: Job, due: int) -> None:
        """Retry from that time on."""
        ...

    async def release(self, job: Job, due: int = 0) -> None:
        """Return it, not counted as an attempt, to be done from that time on."""
        ...

    async def settle(self, job: Job) -> None:
        """The passages of a job other than `ingest` have been deleted."""
        ...
