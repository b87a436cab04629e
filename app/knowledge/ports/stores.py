"""The ports to the records of vector stores and of the files in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from app.protocol.wire.paging import Page


class StoreRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A vector store. Times are integer Unix seconds."""

    id: str
    project_id: str
    created_at: int
    name: str
    description: str | None
    metadata: bytes  # a JSON object of strings
    expires_days: int | None  # after the last use
    last_active_at: int
    expires_at: int | None


IngestionStatus = Literal["in_progress", "completed", "cancelled", "failed"]

LastError = Literal["server_error", "unsupported_file", "invalid_file"]


class StoreTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a store, or of a batch."""

    in_progress: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0
    usage_bytes: int = 0

    @property
    def total(self) -> int:
        """The number of files."""
        return self.in_progress + self.completed + self.cancelled + self.failed


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a vector store."""

    vector_store_id: str
    file_id: str
    project_id: str
    batch_id: str | None
    created_at: int
    status: IngestionStatus
    attributes: bytes  # a JSON object
    chunk_size: int
    chunk_overlap: int
    """Both in tokens, see `Split`."""
    usage_bytes: int = 0
    error_code: LastError | None = None
    error_message: str | None = None
    """Why it failed; for a completed file, which of its content is missing from its text."""


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Files that were added to a store together."""

    id: str
    vector_store_id: str
    project_id: str
    created_at: int
    cancelled: bool


class StoreRecords(Protocol):
    """The vector stores. Deleted ones count as absent; expired ones remain, without their files."""

    async def create(self, record: StoreRecord) -> None:
        """Add a store."""
        ...

    async def get(self, project_id: str, store_id: str) -> StoreRecord | None:
        """The store."""
        ...

    async def list(self, project_id: str, page: Page) -> Sequence[StoreRecord]:
        """Stores in the order of creation, at most `page.limit`."""
        ...

    async def update(self, record: StoreRecord) -> None:
        """Change name, metadata and expiry."""
        ...

    async def touch(self, store_ids: Sequence[str], now: int) -> None:
        """Record a use of the stores: their expiry is counted from now."""
        ...

    async def delete(self, project_id: str, store_id: str, now: int) -> bool:
        """Hide the store, and schedule the removal of its passages; False if there is none."""
        ...

    async def totals(self, store_ids: Sequence[str]) -> Mapping[str, StoreTotals]:
        """The contents of each store."""
        ...

    async def expire(self, now: int, limit: int) -> int:
        """Schedule the removal of expired stores' files, and remove deleted and long-expired empty stores.

        Returns how many changed.
        """
        ...


class Attachments(Protocol):
    """Which files are in which vector stores."""

    async def attach(self, attachments: Sequence[Attachment], batch: BatchRecord | None, now: int) -> None:
        """Add files to one store, to be ingested immediately; a file that is already there is ingested again.

        Raises KeyError with the id of a file, or of the store, that does not exist.
        """
        ...

    async def get(self, project_id: str, store_id: str, file_id: str) -> Attachment | None:
        """The file in the store."""
        ...

    async def list(
        self,
        project_id: str,
        store_id: str,
        page: Page,
        *,
        status: IngestionStatus | None = None,
        batch_id: str | None = None,
    ) -> Sequence[Attachment]:
        """A store's or a batch's files in the order they were added, at most `page.limit`.

        Raises KeyError for an unknown `after`.
        """
        ...

    async def completed(self, project_id: str, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Which of these (store, file) pairs exist and can be searched."""
        ...

    async def describe(self, project_id: str, store_id: str, file_id: str, attributes: bytes) -> bool:
        """Change a file's attributes; False if it is not in the store."""
        ...

    async def detach(self, project_id: str, store_id: str, file_id: str) -> bool:
        """Take the file out of the store and schedule the removal of its passages; False if it is not there."""
        ...

    async def batch(self, project_id: str, store_id: str, batch_id: str) -> tuple[BatchRecord, StoreTotals] | None:
        """The batch and the counts of its files by status."""
        ...

    async def cancel(self, project_id: str, store_id: str, batch_id: str) -> bool:
        """Cancel every file of the batch that is not ingested yet; False if there is no such batch."""
        ...
