"""The part of the passage index shared by both databases: whose passages they are, their texts, and how they are
searched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
from sqlalchemy import ColumnElement, Insert, RowMapping, and_, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.searching import POSITION_BITS, SEGMENT
from app.db.tables import passage_files, passage_stores, passages
from app.knowledge._database import database_errors, fetch
from app.knowledge.ports.errors import KnowledgeUnavailable
from app.knowledge.ports.jobs import Job, JobLost
from app.knowledge.ports.passages import Attributes, Hit, Passage, Search, Vectors
from app.knowledge.ranking import choose, fuse
from app.knowledge.records_jobs import fence
from app.knowledge.relevance import FITTING, SCALES, Relevance
from app.knowledge.scope import Scope, Version, belongs, marked
from app.knowledge.word_search import WordSearch
from app.knowledge.words import words_of_all
from app.offload.protocol import Limits
from app.offload.workers import OffloadFailed, Workers
from app.protocol.wire.errors import InvalidRequest
from app.protocol.wire.filters import fits

FLOAT = 4
"""Bytes per number in `Vectors`."""

_WORKERS = Workers(Limits(seconds=120.0))
_FEWEST_CANDIDATES = 60
_CANDIDATES = 4
"""This multiple of the requested passages is taken from each of the two searches."""
_FEWEST_READ = 40
_SPARE = 2
"""This multiple of the requested passages is read, since neighbours that repeat each other are dropped."""

_decode_attributes = msgspec.json.Decoder(Attributes).decode


class SqlPassages(ABC):
    """A passage index in SQL; subclasses add what differs between SQLite and Postgres."""

    def __init__(self, database: Database, words: WordSearch) -> None:
        self._database = database
        self._words = words

    async def replace(self, job: Job, filename: str, batches: AsyncIterator[tuple[Sequence[Passage], Vectors]]) -> None:
        """Store a file's passages and vectors as a draft, then publish them, replacing the earlier ones in one
        transaction.

        Who began a draft and lost the job cannot add to it: the next worker makes it `gone` before anything else.
        """
        await self._require()
        async with self._held(job) as connection:
            abandoned = await _hide(connection, job, "draft")
        await self._erase_all(abandoned)
        draft: Version | None = None
        size = 0
        async for texts, vectors in _segments(batches):
            if draft is None:
                draft = await self._begin(job, filename, await self._store(job.vector_store_id, vectors))
            await self._add(draft, size, texts, vectors)
            size += len(texts)
        async with self._held(job) as connection:
            earlier = await _hide(connection, job, "ready")
            if draft is not None:
                await _change_draft(connection, draft, state="ready")
        await self._erase_all(earlier)

    async def describe(self, vector_store_id: str, file_id: str, attributes: Attributes) -> None:
        """Replace the attributes of a file's passages."""
        changed = update(passage_files).where(_of_file(vector_store_id, file_id))
        async with self._transaction() as connection:
            await connection.execute(changed.values(attributes=msgspec.json.encode(attributes)))

    async def remove(self, job: Job) -> None:
        """Hide the passages at once, then delete their rows."""
        async with self._held(job) as connection:
            gone = await _hide(connection, job, "draft", "ready")
        if gone:
            await self._require()
        await self._erase_all(gone)

    async def passages(self, vector_store_id: str, file_id: str) -> Sequence[Passage]:
        """The passages of a file, in order."""
        ready = select(passage_files.c.id, passage_files.c.store_id).where(
            _of_file(vector_store_id, file_id), passage_files.c.state == "ready"
        )
        found: list[Passage] = []
        for version in map(_version, await fetch(self._database, ready)):
            rows = await fetch(self._database, select(passages).where(belongs(version)).order_by(passages.c.number))
            found += [Passage(row["number"] & (1 << POSITION_BITS) - 1, row["text"]) for row in rows]
        return found

    async def models(self, vector_store_ids: Sequence[str]) -> Mapping[str, str]:
        """The embedding model of each store that has passages."""
        await self._require()
        statement = select(passage_stores.c.vector_store_id, passage_stores.c.model).where(
            passage_stores.c.vector_store_id.in_(vector_store_ids)
        )
        return {row["vector_store_id"]: row["model"] for row in await fetch(self._database, statement)}

    async def search(self, search: Search) -> Sequence[Hit]:
        """The best passages for a query, best first."""
        await self._require()
        scope = await self._scope(search)
        if not scope.size:
            return ()
        count = max(_FEWEST_CANDIDATES, _CANDIDATES * search.limit)
        near = await self._nearest(scope, search, count) if search.embedding_weight > 0 else ()
        worded = await self._words.search(self._database, scope, search.text, count) if search.text_weight > 0 else ()
        scores = fuse([(near, search.embedding_weight), (worded, search.text_weight)])
        hits = await self._hits(search, dict(list(scores.items())[: max(_FEWEST_READ, _SPARE * search.limit)]))
        ranked = _rated(search, hits, dict(near), dict(worded))
        return choose((hit for hit in ranked if hit.score >= search.score_threshold), search.limit)

    @abstractmethod
    async def _require(self) -> None:
        """Raise Unavailable if the database lacks what searching needs."""

    @abstractmethod
    async def _index(self, connection: AsyncConnection, first: int, words: Sequence[str], vectors: Vectors) -> None:
        """Index passages, whose numbers count from `first`; `words` are those of each, joined by spaces."""

    @abstractmethod
    async def _erase(self, version: Version) -> None:
        """Remove the passages of a version and their index entries."""

    @abstractmethod
    async def _nearest(self, scope: Scope, search: Search, count: int) -> Sequence[tuple[int, float]]:
        """The passages with the nearest vectors, best first, each with its similarity."""

    async def _scope(self, search: Search) -> Scope:
        wanted = [passage_stores.c.id.label("store"), passage_stores.c.model, passage_files.c.id, passage_files.c.size]
        if search.filters is not None:
            wanted.append(passage_files.c.attributes)
        statement = (
            select(*wanted)
            .join_from(passage_stores, passage_files, passage_files.c.store_id == passage_stores.c.id)
            .where(passage_stores.c.vector_store_id.in_(search.vector_store_ids), passage_files.c.state == "ready")
        )
        stores: dict[int, list[int]] = {}
        fitting: list[int] = []
        size = 0
        for row in await fetch(self._database, statement):
            _same_model(row["model"], search.vector)
            stores.setdefault(row["store"], []).append(row["id"])
            if search.filters is None or fits(search.filters, _decode_attributes(row["attributes"])):
                fitting.append(row["id"])
                size += row["size"]
        return Scope(stores, fitting, size)

    async def _hits(self, search: Search, scores: Mapping[int, float]) -> dict[int, Hit]:
        """The found passages, best first, by number; without those removed meanwhile or in none of the stores."""
        told = (
            passage_files.c.file_id,
            passage_files.c.filename,
            passage_files.c.attributes,
            passage_stores.c.vector_store_id,
        )
        statement = (
            select(passages, *told)
            .join_from(
                passages, passage_files, passage_files.c.id == passages.c.number.op(">>")(literal(POSITION_BITS))
            )
            .join(passage_stores, passage_stores.c.id == passage_files.c.store_id)
            .where(
                passages.c.number.in_(list(scores)),
                passage_files.c.state == "ready",
                passage_stores.c.vector_store_id.in_(search.vector_store_ids),
            )
        )
        hits = {row["number"]: _hit(row, scores[row["number"]]) for row in await fetch(self._database, statement)}
        return {number: hits[number] for number in scores if number in hits}

    async def _store(self, vector_store_id: str, vectors: Vectors) -> int:
        statement = select(passage_stores).where(passage_stores.c.vector_store_id == vector_store_id)
        rows = await fetch(self._database, statement)
        if not rows:
            values = {"vector_store_id": vector_store_id, "model": vectors.model, "dimensions": vectors.dimensions}
            try:
                async with self._transaction() as connection:
                    return await _insert(connection, insert(passage_stores).values(values))
            except KnowledgeUnavailable:  # perhaps another file of the store was faster
                rows = await fetch(self._database, statement)
                if not rows:
                    raise
        _same_model(rows[0]["model"], vectors)
        return rows[0]["id"]

    async def _begin(self, job: Job, filename: str, store: int) -> Version:
        """A draft without passages."""
        values = {
            "store_id": store,
            "file_id": job.file_id,
            "filename": filename,
            "attributes": job.attributes,
            "state": "draft",
            "size": 0,
        }
        async with self._held(job) as connection:
            return Version(await _insert(connection, insert(passage_files).values(values)), store)

    async def _add(self, draft: Version, position: int, texts: Sequence[str], vectors: Vectors) -> None:
        words = [f"{marked(draft.store)} {found}" for found in await words_apart(texts)]
        first = draft.number(position)
        async with self._transaction() as connection:
            await _change_draft(connection, draft, size=position + len(texts))
            await connection.execute(
                insert(passages), [{"number": first + n, "text": one} for n, one in enumerate(texts)]
            )
            await self._index(connection, first, words, vectors)

    async def _erase_all(self, versions: Sequence[Version]) -> None:
        for version in versions:
            await self._erase(version)

    @asynccontextmanager
    async def _held(self, job: Job) -> AsyncGenerator[AsyncConnection]:
        """A transaction in which the job stays the worker's. Raises JobLost and KnowledgeUnavailable."""
        async with self._transaction() as connection:
            await fence(connection, job)
            yield connection

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[AsyncConnection]:
        """Raises KnowledgeUnavailable."""
        with database_errors():
            async with self._database.transaction() as connection:
                yield connection


async def words_apart(texts: Sequence[str]) -> list[str]:
    """The words of each text, joined by spaces; in a worker process."""
    try:
        return await _WORKERS.run(words_of_all, texts)
    except OffloadFailed as error:
        raise KnowledgeUnavailable(f"indexing the words of a text failed: {error}") from error


async def _segments(
    batches: AsyncIterator[tuple[Sequence[Passage], Vectors]],
) -> AsyncIterator[tuple[list[str], Vectors]]:
    """The texts and their vectors, in groups of the size that is written at once."""
    texts: list[str] = []
    data = bytearray()
    vectors: Vectors | None = None
    async for batch, vectors in batches:
        if len(vectors.data) != len(batch) * vectors.dimensions * FLOAT:
            raise ValueError("every passage needs one vector")
        texts += [passage.text for passage in batch]
        data += vectors.data
        width = SEGMENT * vectors.dimensions * FLOAT
        while len(texts) >= SEGMENT:
            yield texts[:SEGMENT], Vectors(vectors.model, vectors.dimensions, bytes(data[:width]))
            del texts[:SEGMENT], data[:width]
    if texts and vectors is not None:
        yield texts, Vectors(vectors.model, vectors.dimensions, bytes(data))


async def _insert(connection: AsyncConnection, statement: Insert) -> int:
    return (await connection.execute(statement.returning(statement.table.c.id))).scalar_one()


async def _hide(connection: AsyncConnection, job: Job, *states: str) -> Sequence[Version]:
    """Versions of the file in these states are gone; returns all that are, and whose rows can be deleted."""
    found = await connection.execute(
        update(passage_files)
        .where(_of_file(job.vector_store_id, job.file_id), passage_files.c.state.in_((*states, "gone")))
        .values(state="gone")
        .returning(passage_files.c.id, passage_files.c.store_id)
    )
    return [_version(row) for row in found.mappings()]


async def _change_draft(connection: AsyncConnection, draft: Version, **values: object) -> None:
    """Raises JobLost if the next worker has discarded the draft."""
    is_draft = (passage_files.c.id == draft.id, passage_files.c.state == "draft")
    if (await connection.execute(update(passage_files).where(*is_draft).values(**values))).rowcount == 0:
        raise JobLost


def _of_file(vector_store_id: str, file_id: str) -> ColumnElement[bool]:
    store = select(passage_stores.c.id).where(passage_stores.c.vector_store_id == vector_store_id)
    return and_(passage_files.c.store_id == store.scalar_subquery(), passage_files.c.file_id == file_id)


def _version(row: RowMapping) -> Version:
    return Version(row["id"], row["store_id"])


def _same_model(model: str, vectors: Vectors) -> None:
    if model != vectors.model:
        raise InvalidRequest(
            f"The vector store was created with the embedding model '{model}', but the gateway now uses "
            f"'{vectors.model}'. Set GATEWAY_EMBEDDINGS_BASE_URL and GATEWAY_EMBEDDINGS_MODEL back, or create the "
            "vector store again.",
            code="embedding_model_changed",
            param="vector_store_ids",
        )


def _rated(
    search: Search, hits: Mapping[int, Hit], near: Mapping[int, float], shares: Mapping[int, float]
) -> Sequence[Hit]:
    """The hits with calibrated scores if the model's scale is known; otherwise scored by rank."""
    scale = SCALES.get(search.vector.model)
    if scale is None:
        return list(hits.values())
    relevance = Relevance(scale, search.text, meaning=search.embedding_weight, words=search.text_weight)
    rated = ((hit, relevance.of(hit.text, near.get(number), shares.get(number, 0.0))) for number, hit in hits.items())
    found = [msgspec.structs.replace(hit, score=score, fits=score >= FITTING) for hit, score in rated]
    return sorted(found, key=lambda hit: -hit.score)


def _hit(row: RowMapping, score: float) -> Hit:
    return Hit(
        vector_store_id=row["vector_store_id"],
        file_id=row["file_id"],
        filename=row["filename"],
        attributes=_decode_attributes(row["attributes"]),
        position=row["number"] & (1 << POSITION_BITS) - 1,
        text=row["text"],
        score=score,
    )
