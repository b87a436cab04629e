"""The passage index on Postgres: vectors in pgvector, words in text search vectors.

Vectors are compared one by one, by two or three of the server's processes. That is exact, works with every filter and
length, costs nothing when files are added, and depends only on the stores searched: 0.06 to 0.12 s for 100,000 vectors
of 384 dimensions. An HNSW index would answer in 2 ms, but shares its candidates among all stores and filters, and makes
adding a passage cost milliseconds.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import searching
from app.db.engine import Database
from app.db.searching import POSITION_BITS
from app.db.tables import passage_files, passages
from app.knowledge._database import fetch
from app.knowledge.passages import FLOAT, SqlPassages
from app.knowledge.ports.passages import Search, Vectors
from app.knowledge.scope import Scope, Version, belongs
from app.knowledge.word_search import WordSearch
from app.knowledge.words import is_beginning
from app.protocol.wire.errors import Unavailable

_ADD_WORDS = text(
    "INSERT INTO passage_index_words (number, file, words) VALUES (:number, :file, "
    "array_to_tsvector(string_to_array(:words, ' ')))"
)
_ADD_VECTORS = text(
    "INSERT INTO passage_index_vectors (number, file, embedding) VALUES (:number, :file, CAST(:embedding AS halfvec))"
)
_DROP = (
    text("DELETE FROM passage_index_words WHERE file = :file"),
    text("DELETE FROM passage_index_vectors WHERE file = :file"),
)

# Vectors have length 1: the inner product is the cosine, and is faster to compute.
_NEAREST = text(
    "SELECT number, -(embedding <#> CAST(:vector AS halfvec)) AS likeness FROM passage_index_vectors "
    "WHERE file = ANY(CAST(:files AS bigint[])) ORDER BY embedding <#> CAST(:vector AS halfvec) LIMIT :count"
)


class _PostgresWords(WordSearch):
    """Words in text search vectors."""

    def containing(self, name: str) -> str:
        return f"SELECT number, file FROM passage_index_words WHERE words @@ CAST(:{name} AS tsquery)"  # noqa: S608 - a name of our own

    def of_files(self) -> str:
        return "file = ANY(CAST(:files AS bigint[]))"

    def query(self, stores: Sequence[str], word: str) -> str:
        marks = " | ".join(f"'{store}'" for store in stores)
        return f"({marks}) & '{word}'{':*' if is_beginning(word) else ''}"

    def files(self, files: Sequence[int]) -> object:
        return list(files)


class PostgresIndex(SqlPassages):
    """Passages in Postgres: full-text search and vectors."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, _PostgresWords())
        self._is_there = False

    async def _require(self) -> None:
        """Create the search tables that the migration could not create without pgvector, if it has been installed
        since.
        """
        if self._is_there:
            return
        found = await fetch(self._database, text("SELECT to_regclass('passage_index_vectors') IS NOT NULL AS found"))
        if not found[0]["found"]:
            async with self._transaction() as connection:
                trouble = await connection.run_sync(searching.create)
            if trouble:
                raise Unavailable(trouble, code="pgvector_missing")
        self._is_there = True

    async def _index(self, connection: AsyncConnection, first: int, words: Sequence[str], vectors: Vectors) -> None:
        numbers = [{"number": first + n, "file": first >> POSITION_BITS} for n in range(len(words))]
        await connection.execute(
            _ADD_WORDS, [{**one, "words": found} for one, found in zip(numbers, words, strict=True)]
        )
        texts = _texts(vectors)
        await connection.execute(
            _ADD_VECTORS, [{**one, "embedding": vector} for one, vector in zip(numbers, texts, strict=True)]
        )

    async def _erase(self, version: Version) -> None:
        async with self._transaction() as connection:
            for drop in _DROP:
                await connection.execute(drop, {"file": version.id})
            await connection.execute(delete(passages).where(belongs(version)))
            await connection.execute(delete(passage_files).where(passage_files.c.id == version.id))

    async def _nearest(self, scope: Scope, search: Search, count: int) -> Sequence[tuple[int, float]]:
        parameters = {"vector": _texts(search.vector)[0], "files": list(scope.wanted), "count": count}
        rows = await fetch(self._database, _NEAREST, parameters)
        return [(row["number"], row["likeness"]) for row in rows]


def _texts(vectors: Vectors) -> list[str]:
    """Each vector in pgvector's text format."""
    width = vectors.dimensions * FLOAT
    rows = (vectors.data[start : start + width] for start in range(0, len(vectors.data), width))
    return [msgspec.json.encode(array("f", row).tolist()).decode() for row in rows]
