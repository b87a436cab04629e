"""The ports of files and vector stores: where content is stored, what is known about it, and how passages are found.

Every id is unique across projects, and every method that takes an id also takes the project: another project's id is unknown.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from app.protocol.filters import Filter
from app.protocol.paging import Page

Attributes = dict[str, str | float | bool]


class KnowledgeUnavailable(Exception):
    """The database or the storage cannot be reached or does not work; the same call may succeed later. Every method may raise it."""


class Staged(msgspec.Struct, frozen=True):
    """Content that has been received, but has no owner yet."""

    key: str
    digest: str  # SHA-256, 64 hex digits
    size: int


class Blobs(Protocol):
    """Content-addressed storage by SHA-256; identical content is stored once."""

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Receive the content in pieces; if `chunks` raises, nothing is kept."""
        ...

    async def keep(self, staged: Staged) -> None:
        """Make it the content of its digest, atomically."""
        ...

    async def drop(self, staged: Staged) -> None:
        """Discard staged content."""
        ...

    async def get(self, digest: str) -> AsyncGenerator[bytes]:
        """The content, in pieces. Raises KeyError."""
        ...

    async def delete(self, digest: str) -> None:
        """Delete the content, if it exists."""
        ...

    async def sweep(self, before: int, limit: int) -> int:
        """Discard up to `limit` contents that were staged before that time and abandoned (the process ended); returns how many."""
        ...


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
        """Record that a file is about to have this content: from now on the content is not deleted. The file is not visible yet."""
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

        `forget` is called with its digest if no other file has this content; while it runs nobody can reserve the content. If it
        raises, the file is kept.
        """
        ...

    async def expired(self, now: int, limit: int) -> Sequence[FileRecord]:
        """Expired files, and those that were reserved and never published."""
        ...


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
        """Schedule the removal of expired stores' files, and remove deleted and long-expired empty stores; returns how many changed."""
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
        self, project_id: str, store_id: str, page: Page, *, status: IngestionStatus | None = None, batch_id: str | None = None
    ) -> Sequence[Attachment]:
        """A store's or a batch's files in the order they were added, at most `page.limit`. Raises KeyError for an unknown `after`."""
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


class Passage(msgspec.Struct, frozen=True):
    """A piece of a file's text, as it is searched and shown."""

    position: int  # its index in the file, from 0
    text: str


class Split(Protocol):
    """Cuts a text into passages."""

    async def __call__(self, text: str, *, size: int, overlap: int, project: str) -> Sequence[Passage]:
        """Passages of at most `size` tokens, sharing `overlap` with the previous; none without words. `project`: for fair scheduling."""
        ...


class Vectors(msgspec.Struct, frozen=True):
    """Vectors of length 1, concatenated, as returned by one model. Bytes, since the gateway only passes them on."""

    model: str
    """Vectors of different models cannot be compared."""
    dimensions: int
    data: bytes  # float32 in native byte order, `dimensions` per vector


class Hit(msgspec.Struct, frozen=True):
    """A passage that matches a query."""

    vector_store_id: str
    file_id: str
    filename: str
    attributes: Attributes
    position: int
    text: str
    score: float
    """0 to 1."""
    fits: bool = True  # False: it is among the best, but hardly answers the query


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """One query over some vector stores of one project, whose existence and ownership have been checked."""

    vector_store_ids: tuple[str, ...]
    text: str
    vector: Vectors  # one
    limit: int
    filters: Filter | None = None
    score_threshold: float = 0.0
    embedding_weight: float = 1.0
    text_weight: float = 1.0


class PassageIndex(Protocol):
    """Passages with their vectors and words.

    Every method raises Unavailable, with a message for users, if the database lacks what it needs (Postgres without pgvector).
    """

    async def replace(
        self,
        vector_store_id: str,
        file_id: str,
        filename: str,
        attributes: Attributes,
        batches: AsyncIterator[tuple[Sequence[Passage], Vectors]],
    ) -> None:
        """Make these the file's passages in this store, replacing all earlier ones. `Passage.position` counts from 0 over all batches.

        They are written as they arrive and become searchable only when complete; if `batches` raises, the earlier ones stay.
        Raises InvalidRequest if the store has vectors of another model.
        """
        ...

    async def describe(self, vector_store_id: str, file_id: str, attributes: Attributes) -> None:
        """Change the attributes of a file's passages."""
        ...

    async def remove(self, vector_store_id: str, file_id: str | None) -> None:
        """Delete a file's passages, or with None the whole store's."""
        ...

    async def passages(self, vector_store_id: str, file_id: str) -> Sequence[Passage]:
        """A file's passages in order."""
        ...

    async def models(self, vector_store_ids: Sequence[str]) -> Mapping[str, str]:
        """The name of the model of each store's vectors; stores that never had any are omitted."""
        ...

    async def search(self, search: Search) -> Sequence[Hit]:
        """The best passages by meaning and words combined, best first, at most `limit`.

        Raises InvalidRequest if a store has vectors of another model.
        """
        ...


class Embedder(Protocol):
    """Texts to vectors. Raises EmbeddingFailed.

    `model`: the one whose vectors the store has. An embedder without it uses its own model, whose vectors the index then refuses.
    """

    async def passages(self, texts: Sequence[str], *, model: str | None = None) -> Vectors:
        """One vector for each text of a document; any number of texts."""
        ...

    async def query(self, text: str, *, model: str | None = None, project: str = "") -> Vectors:
        """The vector of a query; `project`: for fair scheduling. Raises Busy."""
        ...

    async def aclose(self) -> None:
        """Release resources."""
        ...


class EmbeddingFailed(Exception):
    """The model did not answer; the same call may succeed later. The message contains no internals."""
