"""The port to the records of uploaded files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from app.protocol.wire.paging import Page


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded file. Times are integer Unix seconds. Ids grow with time, so that they order a list."""

    id: str
    project_id: str
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    size: int
    digest: str


class FileRecords(Protocol):
    """The uploaded files. Expired ones count as absent."""

    async def reserve(self, record: FileRecord) -> None:
        """Record that a file is about to have this content: from now on the content is not deleted.

        The file is not visible yet.
        """
        ...

    async def publish(self, file_id: str) -> None:
        """The content is in place: make the file visible."""
        ...

    async def get(self, project_id: str, file_id: str, now: int) -> FileRecord | None:
        """The file."""
        ...

    async def list(self, project_id: str, purpose: str | None, page: Page, now: int) -> Sequence[FileRecord]:
        """Files in the order of creation, at most `page.limit`."""
        ...

    async def delete(self, project_id: str, file_id: str, forget: Callable[[str], Awaitable[None]]) -> bool:
        """Remove the file, also from every vector store; False if there is none.

        `forget` is called with its digest if no other file has this content; while it runs nobody can reserve the
        content. If it raises, the file is kept.
        """
        ...

    async def expired(self, now: int, limit: int) -> Sequence[FileRecord]:
        """Expired files, and those that were reserved and never published."""
        ...
