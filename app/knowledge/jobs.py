"""The port of jobs: what has to be done before files can be searched, or forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from app.knowledge.ports.stores import LastError


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be done for a file in a store, which only the holder of `owner` does, as long as its lease lasts."""

    kind: Literal["ingest", "empty", "remove"]  # `empty`: forget the passages; `remove`: and the attachment, too
    vector_store_id: str
    file_id: str
    project_id: str
    owner: str
    attempts: int  # this one included
    attributes: bytes
    chunk_size: int
    chunk_overlap: int


class Jobs(Protocol):
    """What is to be done, shared by all replicas. A job whose holder has died is due again after its lease."""

    async def waiting(self, now: int) -> Sequence[str]:
        """The projects that have jobs due, first the one whose job has been due for longest."""
        ...

    async def claim(self, owner: str, now: int, until: int, project_id: str) -> Job | None:
        """The project's job that has been due for longest, for nobody else until that time. `owner` is new for every claim."""
        ...

    async def renew(self, job: Job, until: int) -> bool:
        """Hold it longer; False when it is ours no more (the file was removed, added again, cancelled)."""
        ...

    async def complete(self, job: Job, usage_bytes: int, note: str | None) -> bool:
        """The file can be searched; `note` says what of it is not in its text. False when the job is ours no more."""
        ...

    async def fail(self, job: Job, code: LastError, message: str) -> None:
        """It will not be tried again."""
        ...

    async def postpone(self, job: Job, due: int) -> None:
        """Let it be tried again from that time."""
        ...

    async def release(self, job: Job, due: int = 0) -> None:
        """Give it back, as if it had not been tried, to be done from that time."""
        ...

    async def settle(self, job: Job) -> None:
        """The passages of a job other than `ingest` are forgotten."""
        ...
