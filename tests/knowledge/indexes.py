"""What tests of the passage index share: an index on either database, and vectors that point where a test wants
them.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import msgspec
from sqlalchemy import text as sql

from app.db.engine import Database
from app.knowledge.index_postgres import PostgresIndex
from app.knowledge.index_sqlite import SqliteIndex
from app.knowledge.passages import SqlPassages
from app.knowledge.ports.jobs import Job
from app.knowledge.ports.passages import Attributes, Hit, Passage, Search, Vectors
from app.protocol.wire.filters import Filter

MODEL = "test-model"


def index_of(database: Database) -> SqlPassages:
    """The index that the gateway would use."""
    return SqliteIndex(database, memory=10_000_000) if database.embedded else PostgresIndex(database)


def vectors(*rows: Sequence[float], model: str = MODEL) -> Vectors:
    """Rows of any length, as an embedder gives them."""
    data = array("f")
    for row in rows:
        length = math.hypot(*row)
        data.extend(number / length for number in row)
    return Vectors(model, len(rows[0]), data.tobytes())


_NEW_STORE = sql(
    "INSERT INTO vector_stores (id, project_id, created_at, name, metadata, last_active_at) "
    "VALUES (:store, 'project-a', 0, '', :empty, 0) ON CONFLICT DO NOTHING"
)
_NEW_JOB = sql(
    "INSERT INTO vector_store_files (vector_store_id, file_id, project_id, created_at, status, attributes, chunk_size, "
    "chunk_overlap, usage_bytes, attempts, owner) "
    "VALUES (:store, :file, 'project-a', 0, 'in_progress', :empty, 800, 400, 0, 1, :owner) "
    "ON CONFLICT (vector_store_id, file_id) DO UPDATE SET owner = excluded.owner"
)


async def taken(index: SqlPassages, store: str, file: str, attributes: Attributes | None = None) -> Job:
    """The job of this file, taken over from whoever had it."""
    database, owner = index._database, uuid4().hex  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    async with database.transaction() as connection:
        await connection.execute(_NEW_STORE, {"store": store, "empty": b"{}"})
        await connection.execute(_NEW_JOB, {"store": store, "file": file, "empty": b"{}", "owner": owner})
    return Job(
        kind="ingest",
        vector_store_id=store,
        file_id=file,
        project_id="project-a",
        owner=owner,
        attempts=1,
        attributes=msgspec.json.encode(attributes or {}),
        chunk_size=800,
        chunk_overlap=400,
    )


async def add(
    index: SqlPassages,
    store: str,
    file: str,
    passages: Sequence[tuple[str, Sequence[float]]],
    attributes: Attributes | None = None,
    *,
    model: str = MODEL,
) -> None:
    """Put a file into a store, a passage a batch."""

    async def batches() -> AsyncIterator[tuple[Sequence[Passage], Vectors]]:
        for position, (text, vector) in enumerate(passages):
            yield [Passage(position, text)], vectors(vector, model=model)

    await index.replace(await taken(index, store, file, attributes), f"{file}.txt", batches())


async def find(  # noqa: PLR0913 - as many as a search has
    index: SqlPassages,
    text: str,
    vector: Sequence[float] = (1, 0, 0),
    *,
    stores: tuple[str, ...] = ("vs_a",),
    limit: int = 10,
    filters: Filter | None = None,
    weights: tuple[float, float] = (1, 1),
    threshold: float = 0,
) -> Sequence[Hit]:
    """Search as the engine does."""
    return await index.search(
        Search(
            vector_store_ids=stores,
            text=text,
            vector=vectors(vector),
            limit=limit,
            filters=filters,
            embedding_weight=weights[0],
            text_weight=weights[1],
            score_threshold=threshold,
        )
    )
