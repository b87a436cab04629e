"""Files and vector stores as the gateway puts them together, with an index in memory that can be held up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec

from app.db.engine import Database
from app.documents.base import UnreadableDocument
from app.engine.files.ingestion import Ingestion, Pipeline
from app.engine.files.store_files import StoreFiles
from app.engine.files.uploads import NewFile, UploadedFiles
from app.engine.files.vector_stores import StorePorts, VectorStores
from app.fairness import Busy
from app.jobs.outages import Outages
from app.knowledge.blobs import StoredBlobs
from app.knowledge.ports.embedder import EmbeddingFailed
from app.knowledge.ports.files import FileRecord
from app.knowledge.ports.jobs import Job
from app.knowledge.ports.passages import Attributes, Hit, Passage, Search, Vectors
from app.knowledge.records_attachments import SqlAttachments
from app.knowledge.records_files import SqlFileRecords
from app.knowledge.records_jobs import SqlJobs, fence
from app.knowledge.records_stores import SqlStoreRecords
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.filters import fits

PROJECT = "project-a"
LEASE = 3
READ_BYTES = 100_000


class Clock:
    """A time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        self.now += 0.001  # ids sort by the millisecond
        return self.now


class MemoryIndex:
    """The passages of files; a search finds those that have a word of the query."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.files: dict[tuple[str, str], tuple[str, Attributes, list[Passage]]] = {}
        self.replaced = 0
        self.model_of: dict[str, str] = {}
        """Of stores whose vectors are of another model than "words"."""

    async def replace(self, job: Job, filename: str, batches: AsyncIterator[tuple[Sequence[Passage], Vectors]]) -> None:
        passages = [passage async for some, _ in batches for passage in some]
        if any("another model" in passage.text for passage in passages):
            raise InvalidRequest("The store holds vectors of another model.")
        attributes = msgspec.json.decode(job.attributes, type=Attributes)
        async with self._database.transaction() as connection:
            await fence(connection, job)
            self.files[job.vector_store_id, job.file_id] = (filename, attributes, passages)
        self.replaced += 1

    async def describe(self, vector_store_id: str, file_id: str, attributes: Attributes) -> None:
        if (vector_store_id, file_id) in self.files:
            filename, _, passages = self.files[vector_store_id, file_id]
            self.files[vector_store_id, file_id] = (filename, attributes, passages)

    async def remove(self, job: Job) -> None:
        async with self._database.transaction() as connection:
            await fence(connection, job)
            self.files.pop((job.vector_store_id, job.file_id), None)

    async def passages(self, vector_store_id: str, file_id: str) -> Sequence[Passage]:
        return self.files[vector_store_id, file_id][2]

    async def models(self, vector_store_ids: Sequence[str]) -> Mapping[str, str]:
        return {store: self.model_of.get(store, "words") for store, _ in self.files if store in vector_store_ids}

    async def search(self, search: Search) -> Sequence[Hit]:
        words = set(search.text.lower().split())
        found: list[Hit] = []
        for (store, file), (filename, attributes, passages) in self.files.items():
            if store not in search.vector_store_ids or (
                search.filters is not None and not fits(search.filters, attributes)
            ):
                continue
            for passage in passages:
                score = len(words & set(passage.text.lower().split())) / len(words)
                if score > search.score_threshold:
                    found.append(Hit(store, file, filename, attributes, passage.position, passage.text, score))
        return sorted(found, key=lambda hit: hit.score, reverse=True)[: search.limit]


class Killed(BaseException):
    """The end of a worker that has no time to say anything."""


class Embedder:
    """Answers with one number a text, once it is let; a text that says so fails."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()
        self.calls = 0
        self.failing = False
        self.deadly = False
        self.busy: set[str] = set()
        self.models: list[str | None] = []
        """Those that were asked for."""

    async def passages(self, texts: Sequence[str], *, model: str | None = None) -> Vectors:
        self.calls += 1
        self.models.append(model)
        self.asked.set()
        await self.open.wait()
        if self.deadly:
            raise Killed
        if self.failing:
            raise EmbeddingFailed("The embedding server is away.")
        return Vectors("words", 1, bytes(4 * len(texts)))

    async def query(self, text: str, *, model: str | None = None, project: str = "") -> Vectors:
        self.models.append(model)
        if project in self.busy:
            raise Busy("Later.")
        if self.failing:
            raise EmbeddingFailed("The embedding server is away.")
        return Vectors("words", 1, bytes(4))

    async def aclose(self) -> None:
        return


class Library(msgspec.Struct, frozen=True):
    """Everything, with the parts that tests look at."""

    clock: Clock
    files: UploadedFiles
    stores: VectorStores
    store_files: StoreFiles
    ingestion: Ingestion
    index: MemoryIndex
    embedder: Embedder

    async def upload(
        self, content: bytes, name: str = "notes.txt", *, project: str = PROJECT, purpose: str = "user_data"
    ) -> FileRecord:
        """A new file."""
        return await self.files.create(project, await self.files.take(pieces(content)), NewFile(name, purpose))


def build(database: Database, directory: Path, *, shared: Library | None = None) -> Library:
    """A replica; `shared` is another one, whose index and time it has in common."""
    clock = shared.clock if shared else Clock()
    index = shared.index if shared else MemoryIndex(database)
    embedder = Embedder()
    blobs = StoredBlobs(str(directory))
    records, attachments = SqlFileRecords(database), SqlAttachments(database)
    pipeline = Pipeline(
        jobs=SqlJobs(database),
        files=records,
        blobs=blobs,
        read=read_text,
        split=split_lines,
        embedder=embedder,
        index=index,
    )
    ingestion = Ingestion(pipeline, Outages(LEASE, alone=False, clock=clock), read_bytes=READ_BYTES, clock=clock)
    files = UploadedFiles(records, blobs, upload_bytes=1_000_000, read_bytes=READ_BYTES, clock=clock)
    store_files = StoreFiles(attachments, index, clock, ingestion.wake)
    ports = StorePorts(stores=SqlStoreRecords(database), attachments=attachments, index=index, embedder=embedder)
    return Library(
        clock, files, VectorStores(ports, files, store_files, clock), store_files, ingestion, index, embedder
    )


async def pieces(content: bytes) -> AsyncGenerator[bytes]:
    """The content as a network brings it."""
    for start in range(0, len(content), 16_384):
        yield content[start : start + 16_384]


async def read_text(content: bytes, *, filename: str, project: str) -> str:
    """Text files only."""
    del project
    if not filename.endswith(".txt"):
        raise UnreadableDocument("The format of the file is not supported.")
    return content.decode()


async def split_lines(text: str, *, size: int, overlap: int, project: str) -> Sequence[Passage]:
    """A passage a line."""
    del size, overlap, project
    return [Passage(number, line) for number, line in enumerate(text.splitlines())]
