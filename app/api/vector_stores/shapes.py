"""Vector stores in requests and responses: the openai SDK's `types/vector_stores`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from app.api.dependencies import ID
from app.api.metadata import Key, Metadata, Value
from app.api.paging import ObjectList, TwoWayPageQuery
from app.engine.files.store_files import Batch, Chunking, NewStoreFile
from app.engine.files.vector_stores import Store
from app.knowledge.ports.stores import Attachment, StoreTotals
from app.tools.ports.files import FileHit

_BATCH_FILES = 2000
_STORE_FILES = 500
_DESCRIPTION = 4096
_QUERY = 4096
_QUERIES = 16

Text = Annotated[str, StringConstraints(max_length=256)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
AttributeMap = Annotated[dict[Key, Value | _Number | bool], Field(max_length=16)]
FileIdText = Annotated[str, StringConstraints(pattern=ID)]
Status = Literal["in_progress", "completed", "failed", "cancelled"]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StoreExpiry(_Sent):
    """When a store expires."""

    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


def days(expiry: StoreExpiry | None) -> int | None:
    """Days after the last use; None: never."""
    return expiry.days if expiry is not None else None


class Static(_Sent):
    """How a text is split into chunks."""

    max_chunk_size_tokens: int = Field(default=800, ge=100, le=4096)
    chunk_overlap_tokens: int = Field(default=400, ge=0)

    @model_validator(mode="after")
    def _at_most_half(self) -> Static:
        if self.chunk_overlap_tokens > self.max_chunk_size_tokens // 2:
            raise ValueError("chunk_overlap_tokens must not exceed half of max_chunk_size_tokens")
        return self


class ChunkingStrategy(_Sent):
    """`auto` means chunks of 800 tokens with an overlap of 400."""

    type: Literal["auto", "static"]
    static: Static | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ChunkingStrategy:
        if (self.type == "static") != (self.static is not None):
            raise ValueError("'static' is required with the type 'static', and allowed only with it")
        return self


class NewStoreBody(_Sent):
    """A vector store to create."""

    name: Text | None = None
    description: Annotated[str, StringConstraints(max_length=_DESCRIPTION)] | None = None
    file_ids: list[FileIdText] = Field(default=[], max_length=_STORE_FILES)
    chunking_strategy: ChunkingStrategy | None = None
    expires_after: StoreExpiry | None = None
    metadata: Metadata | None = None


class StoreChangeBody(_Sent):
    """Changes to a vector store; omitted fields stay unchanged."""

    name: Text | None = None
    expires_after: StoreExpiry | None = None
    metadata: Metadata | None = None


class NewFileBody(_Sent):
    """A file to add."""

    file_id: FileIdText
    attributes: AttributeMap | None = None
    chunking_strategy: ChunkingStrategy | None = None

    def new(self) -> NewStoreFile:
        """The request in the engine's types."""
        return NewStoreFile(self.file_id, dict(self.attributes or {}), chunking(self.chunking_strategy))


class FileChangeBody(_Sent):
    """Changes to a file in a store."""

    attributes: AttributeMap | None


class NewBatchBody(_Sent):
    """Files to add together: `file_ids` with common options, or `files` with their own options."""

    file_ids: list[FileIdText] | None = Field(default=None, min_length=1, max_length=_BATCH_FILES)
    files: list[NewFileBody] | None = Field(default=None, min_length=1, max_length=_BATCH_FILES)
    attributes: AttributeMap | None = None
    chunking_strategy: ChunkingStrategy | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> NewBatchBody:
        if (self.file_ids is None) == (self.files is None):
            raise ValueError("send either file_ids or files")
        return self

    def new(self) -> list[NewStoreFile]:
        """The request in the engine's types."""
        if self.files is not None:
            return [file.new() for file in self.files]
        cut = chunking(self.chunking_strategy)
        return [NewStoreFile(file_id, dict(self.attributes or {}), cut) for file_id in self.file_ids or ()]


class RankingOptions(_Sent):
    """How hits are ranked."""

    ranker: Literal["none", "auto", "default-2024-11-15"] = "auto"
    score_threshold: float = Field(default=0.0, ge=0, le=1)


class SearchBody(_Sent):
    """A search."""

    query: (
        Annotated[str, StringConstraints(min_length=1, max_length=_QUERY)]
        | Annotated[
            list[Annotated[str, StringConstraints(min_length=1, max_length=_QUERY)]],
            Field(min_length=1, max_length=_QUERIES),
        ]
    )
    filters: dict[str, Any] | None = None
    max_num_results: int = Field(default=10, ge=1, le=50)
    ranking_options: RankingOptions = RankingOptions()
    rewrite_query: bool = False

    @property
    def queries(self) -> tuple[str, ...]:
        """All queries of the request."""
        return (self.query,) if isinstance(self.query, str) else tuple(self.query)


class FilesQuery(TwoWayPageQuery):
    """Which page of the files."""

    filter: Status | None = Field(default=None, description="Only files with this status.")


class FileCounts(BaseModel):
    """Files by status."""

    in_progress: int
    completed: int
    cancelled: int
    failed: int
    total: int


class StoreObject(BaseModel):
    """A vector store."""

    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    description: str | None
    status: Literal["expired", "in_progress", "completed"]
    usage_bytes: int
    file_counts: FileCounts
    last_active_at: int
    expires_after: StoreExpiry | None
    expires_at: int | None
    metadata: dict[str, str]


class LastError(BaseModel):
    """Why a file cannot be searched."""

    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class StaticStrategy(BaseModel):
    """How a file was split into chunks."""

    type: Literal["static"] = "static"
    static: Static


class StoreFileObject(BaseModel):
    """A file in a vector store."""

    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    created_at: int
    vector_store_id: str
    status: Status
    usage_bytes: int
    last_error: LastError | None
    x_not_in_text: str | None = Field(
        description="Content of a completed file that is not in the searched text, such as `page 2 (an image; no "
        "text)`."
    )
    attributes: dict[str, str | float | bool]
    chunking_strategy: StaticStrategy


class BatchObject(BaseModel):
    """A batch of files."""

    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: Status
    file_counts: FileCounts


class StoreList(ObjectList):
    """A page of vector stores."""

    data: Sequence[StoreObject]


class StoreFileList(ObjectList):
    """A page of files in a vector store."""

    data: Sequence[StoreFileObject]


class StoreDeleted(BaseModel):
    """Confirms that the vector store was deleted."""

    id: str
    object: Literal["vector_store.deleted"] = "vector_store.deleted"
    deleted: Literal[True] = True


class FileRemoved(BaseModel):
    """Confirms that the file was removed from the vector store."""

    id: str
    object: Literal["vector_store.file.deleted"] = "vector_store.file.deleted"
    deleted: Literal[True] = True


class TextContent(BaseModel):
    """A passage."""

    type: Literal["text"] = "text"
    text: str


class FileTexts(BaseModel):
    """The text of a file."""

    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[TextContent]
    has_more: Literal[False] = False
    next_page: None = None


class SearchResult(BaseModel):
    """A matching passage."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, str | float | bool]
    content: list[TextContent]


class SearchResults(BaseModel):
    """Matching passages, best first."""

    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[SearchResult]
    has_more: Literal[False] = False
    next_page: None = None


def chunking(strategy: ChunkingStrategy | None) -> Chunking:
    """The chunking strategy in the engine's type."""
    if strategy is None or strategy.static is None:
        return Chunking()
    return Chunking(strategy.static.max_chunk_size_tokens, strategy.static.chunk_overlap_tokens)


def shown_store(store: Store) -> StoreObject:
    """The store as the API returns it."""
    record, expiry = store.record, None
    if record.expires_days is not None:
        expiry = StoreExpiry(anchor="last_active_at", days=record.expires_days)
    return StoreObject(
        id=record.id,
        created_at=record.created_at,
        name=record.name,
        description=record.description,
        status=store.status,
        usage_bytes=store.totals.usage_bytes,
        file_counts=_counts(store.totals),
        last_active_at=record.last_active_at,
        expires_after=expiry,
        expires_at=record.expires_at,
        metadata=msgspec.json.decode(record.metadata),
    )


def shown_file(file: Attachment) -> StoreFileObject:
    """The file of a store as the API returns it."""
    error = None
    if file.error_code is not None:
        error = LastError(code=file.error_code, message=file.error_message or "")
    return StoreFileObject(
        id=file.file_id,
        created_at=file.created_at,
        vector_store_id=file.vector_store_id,
        status=file.status,
        usage_bytes=file.usage_bytes,
        last_error=error,
        x_not_in_text=file.error_message if file.status == "completed" else None,
        attributes=msgspec.json.decode(file.attributes),
        chunking_strategy=StaticStrategy(
            static=Static(max_chunk_size_tokens=file.chunk_size, chunk_overlap_tokens=file.chunk_overlap)
        ),
    )


def shown_batch(batch: Batch) -> BatchObject:
    """The batch as the API returns it."""
    record = batch.record
    return BatchObject(
        id=record.id,
        created_at=record.created_at,
        vector_store_id=record.vector_store_id,
        status=batch.status,
        file_counts=_counts(batch.totals),
    )


def shown_hit(hit: FileHit) -> SearchResult:
    """The search result as the API returns it."""
    content = [TextContent(text=hit.text)]
    return SearchResult(
        file_id=hit.file_id, filename=hit.filename, score=hit.score, attributes=hit.attributes, content=content
    )


def _counts(totals: StoreTotals) -> FileCounts:
    return FileCounts(
        in_progress=totals.in_progress,
        completed=totals.completed,
        cancelled=totals.cancelled,
        failed=totals.failed,
        total=totals.total,
    )
