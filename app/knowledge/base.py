"""The ports of files and vector stores: where bytes are kept, what is known about them, and how passages are found.

Every id is unique over all projects, and every method that takes an id takes the project, too: a foreign id is an unknown id.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from app.protocol.wire.filters import Filter
from app.protocol.wire.paging import Page

Attributes = dict[str, str | float | bool]


class KnowledgeUnavailable(Exception):
    """The database or the storage cannot be reached or cannot work; the same call may succeed later. Every method may raise it."""


class Staged(msgspec.Struct, frozen=True):
    """Content that has arrived, but belongs to nobody yet."""

    key: str
    digest: str  # SHA-256, 64 hex digits
    size: int


class Blobs(Protocol):
    """Bytes by the SHA-256 of what they are; the same content is kept once."""

    async def stage(self, chunks: AsyncIterator[bytes]) -> Staged:
        """Take the content in, piece by piece; when `chunks` raises, nothing of it stays."""
        ...

    async def keep(self, staged: Staged) -> None:
        """Make it the content of its digest, in one step."""
        ...

    async def drop(self, staged: Staged) -> None:
        """Forget what was staged."""
        ...

    async def get(self, digest: str) -> AsyncGenerator[bytes]:
        """The content in pieces. Raises KeyError."""
        ...

    async def delete(self, digest: str) -> None:
        """Forget the content, if it is there."""
        ...

    async def sweep(self, before: int, limit: int) -> int:
        """Drop at most `limit` contents that were staged before that time and then forgotten (the process ended); how many."""
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
    """Which files there are. An expired one is not there."""

    async def reserve(self, record: FileRecord) -> None:
        """Note that a file is about to have this content: from now on the content will not be deleted. Nobody sees the file yet."""
        ...

    async def publish(self, file_id: str) -> None:
        """The content is there: show the file."""
        ...

    async def get(self, project_id: str, file_id: str, now: int) -> FileRecord | None:
        """The file."""
        ...

    async def list(self, project_id: str, purpose: str | None, page: Page, now: int) -> Sequence[FileRecord]:
        """Files in the order of their making, at most `page.limit`."""
        ...

    async def delete(self, project_id: str, file_id: str, forget: Callable[[str], Awaitable[None]]) -> bool:
        """Remove the file, and let every vector store forget it; False when there is none.

        `forget` is called with its digest when no other file has this content; while it runs nobody can reserve the content. When it
        raises, the file stays.
        """
        ...

    async def expired(self, now: int, limit: int) -> Sequence[FileRecord]:
        """Files past their time, and those that were reserved and never published."""
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
    """What is in a store, or in a batch."""

    in_progress: int = 0
    completed: int = 0
    cancelled: int = 0
    failed: int = 0
    usage_bytes: int = 0

    @property
    def total(self) -> int:
        """How many files."""
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
    """Why it failed; of a completed file, what of it is not in its text."""


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Files that were added to a store together."""

    id: str
    vector_store_id: str
    project_id: str
    created_at: int
    cancelled: bool


class StoreRecords(Protocol):
    """Which vector stores there are. A deleted one is not there; an expired one is, without its files."""

    async def create(self, record: StoreRecord) -> None:
        """Add a store."""
        ...

    async def get(self, project_id: str, store_id: str) -> StoreRecord | None:
        """The store."""
        ...

    async def list(self, project_id: str, page: Page) -> Sequence[StoreRecord]:
        """Stores in the order of their making, at most `page.limit`."""
        ...

    async def update(self, record: StoreRecord) -> None:
        """Change name, metadata and expiry."""
        ...

    async def touch(self, store_ids: Sequence[str], now: int) -> None:
        """The stores are used: their time begins again."""
        ...

    async def delete(self, project_id: str, store_id: str, now: int) -> bool:
        """Hide the store, and let its files' passages be forgotten; False when there is none."""
        ...

    async def totals(self, store_ids: Sequence[str]) -> Mapping[str, StoreTotals]:
        """What is in each store."""
        ...

    async def expire(self, now: int, limit: int) -> int:
        """Let expired stores lose their files, and remove deleted and long expired stores that are empty; how many were touched."""
        ...


class Attachments(Protocol):
    """Which files are in which vector stores."""

    async def attach(self, attachments: Sequence[Attachment], batch: BatchRecord | None, now: int) -> None:
        """Add files to one store, to be ingested at once; a file that is there already is ingested again.

        Raises KeyError with the id of a file, or of the store, that is not there.
        """
        ...

    async def get(self, project_id: str, store_id: str, file_id: str) -> Attachment | None:
        """The file in the store."""
        ...

    async def list(
        self, project_id: str, store_id: str, page: Page, *, status: IngestionStatus | None = None, batch_id: str | None = None
    ) -> Sequence[Attachment]:
        """A store's or a batch's files in the order of their adding, at most `page.limit`. Raises KeyError for an unknown `after`."""
        ...

    async def completed(self, project_id: str, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Which of these (store, file) are there and can be searched."""
        ...

    async def describe(self, project_id: str, store_id: str, file_id: str, attributes: bytes) -> bool:
        """Change a file's attributes; False when it is not there."""
        ...

    async def detach(self, project_id: str, store_id: str, file_id: str) -> bool:
        """Take the file out of the store and let its passages be forgotten; False when it is not there."""
        ...

    async def batch(self, project_id: str, store_id: str, batch_id: str) -> tuple[BatchRecord, StoreTotals] | None:
        """The batch and what has become of its files."""
        ...

    async def cancel(self, project_id: str, store_id: str, batch_id: str) -> bool:
        """Let every file of the batch that is not ingested yet be cancelled; False when there is no such batch."""
        ...


class Passage(msgspec.Struct, frozen=True):
    """A piece of a file's text, as it is searched and shown."""

    position: int  # its number in the file, from 0
    text: str


class Split(Protocol):
    """Cuts a text into passages."""

    async def __call__(self, text: str, *, size: int, overlap: int, project: str) -> Sequence[Passage]:
        """Passages of at most `size` tokens, sharing `overlap` with the one before; none without words. `project`: whose turn it is."""
        ...


class Vectors(msgspec.Struct, frozen=True):
    """Vectors of length 1, one after the other, as one model made them. Bytes, since the gateway itself only carries them."""

    model: str
    """Vectors of different models cannot be compared."""
    dimensions: int
    data: bytes  # float32 in this machine's order, `dimensions` of them a vector


class Hit(msgspec.Struct, frozen=True):
    """A passage that fits a query."""

    vector_store_id: str
    file_id: str
    filename: str
    attributes: Attributes
    position: int
    text: str
    score: float
    """0 to 1."""
    fits: bool = True  # False: it is among the best, and yet hardly answers the query


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """One query over some vector stores of one project, whose existence and owner have been checked."""

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

    Every method raises Unavailable, whose message is for people, where the database lacks what it needs (Postgres without pgvector).
    """

    async def replace(
        self,
        vector_store_id: str,
        file_id: str,
        filename: str,
        attributes: Attributes,
        batches: AsyncIterator[tuple[Sequence[Passage], Vectors]],
    ) -> None:
        """Make these the file's passages in this store, in place of all earlier ones. `Passage.position` counts from 0 over all batches.

        They are written as they come and are found only when all are there; when `batches` raises, the earlier ones stay.
        Raises InvalidRequest when the store holds vectors of another model.
        """
        ...

    async def describe(self, vector_store_id: str, file_id: str, attributes: Attributes) -> None:
        """Change the attributes of a file's passages."""
        ...

    async def remove(self, vector_store_id: str, file_id: str | None) -> None:
        """Forget a file's passages, or with None the whole store's."""
        ...

    async def passages(self, vector_store_id: str, file_id: str) -> Sequence[Passage]:
        """A file's passages in order."""
        ...

    async def models(self, vector_store_ids: Sequence[str]) -> Mapping[str, str]:
        """The name of the model of each store's vectors; a store that never had any is not there."""
        ...

    async def search(self, search: Search) -> Sequence[Hit]:
        """The best passages by meaning and by words together, best first, at most `limit`.

        Raises InvalidRequest when a store holds vectors of another model.
        """
        ...


class Embedder(Protocol):
    """Texts to vectors. Raises EmbeddingFailed.

    `model`: the one whose vectors the store holds. An embedder that does not have it takes its own, which the index then refuses.
    """

    async def passages(self, texts: Sequence[str], *, model: str | None = None) -> Vectors:
        """One vector for each text of a document; however many there are."""
        ...

    async def query(self, text: str, *, model: str | None = None, project: str = "") -> Vectors:
        """One vector for a question; `project`: whose turn it is. Raises Busy."""
        ...

    async def aclose(self) -> None:
        """Free what it holds."""
        ...


class EmbeddingFailed(Exception):
    """The model did not answer; the same call may succeed later. The message is without internals."""
