"""What tests of the passage index share: an index on either database, and vectors that point where a test wants
them.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import AsyncIterator, Sequence

from app.db.engine import Database
from app.knowledge.index_postgres import PostgresIndex
from app.knowledge.index_sqlite import SqliteIndex
from app.knowledge.ports.passages import Attributes, Hit, Passage, PassageIndex, Search, Vectors
from app.protocol.wire.filters import Filter

MODEL = "test-model"


def index_of(database: Database) -> PassageIndex:
    """The index that the gateway would use."""
    return SqliteIndex(database, memory=10_000_000) if database.embedded else PostgresIndex(database)


def vectors(*rows: Sequence[float], model: str = MODEL) -> Vectors:
    """Rows of any length, as an embedder gives them."""
    data = array("f")
    for row in rows:
        length = math.hypot(*row)
        data.extend(number / length for number in row)
    return Vectors(model, len(rows[0]), data.tobytes())


async def add(
    index: PassageIndex,
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

    await index.replace(store, file, f"{file}.txt", attributes or {}, batches())


async def find(  # noqa: PLR0913 - as many as a search has
    index: PassageIndex,
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
