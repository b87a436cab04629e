"""The passage index on SQLite: vectors compared one by one in memory, words in FTS5."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import delete, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.searching import POSITION_BITS, SEGMENT
from app.db.tables import passage_files, passages
from app.knowledge import matrix
from app.knowledge._database import fetch
from app.knowledge.passages import SqlPassages, words_apart
from app.knowledge.ports.passages import Search, Vectors
from app.knowledge.scope import Scope, Version, belongs, marked
from app.knowledge.word_search import WordSearch
from app.knowledge.words import is_beginning

_HALF = 2
"""Bytes per stored number."""
_COARSE = 4
"""This multiple of the requested vectors is compared again in full precision."""

_READ = 32
"""Files whose vectors are read at once."""

_SEGMENTS = text(
    "SELECT v.number, v.data FROM json_each(:files) AS f CROSS JOIN passage_index_vectors AS v "
    "ON v.number >= f.value << :bits AND v.number < (f.value + 1) << :bits"
)
_FULL = text(
    "SELECT w.value AS number, substr(v.data, 1 + (w.value - v.number) * :width, :width) AS data FROM "
    "json_each(:numbers) AS w CROSS JOIN passage_index_vectors AS v ON v.number = w.value - w.value % :segment"
)
_ADD_WORDS = text("INSERT INTO passage_index_words (rowid, words) VALUES (:number, :words)")
_DROP_WORDS = text(
    "INSERT INTO passage_index_words (passage_index_words, rowid, words) VALUES ('delete', :number, :words)"
)
_ADD_VECTORS = text("INSERT INTO passage_index_vectors (number, data) VALUES (:number, :data)")
_DROP_VECTORS = text("DELETE FROM passage_index_vectors WHERE number >= :first AND number < :last")


class _SqliteWords(WordSearch):
    """Words in FTS5."""

    def containing(self, name: str) -> str:
        return f"SELECT rowid AS number FROM passage_index_words WHERE passage_index_words MATCH :{name}"  # noqa: S608 - a name of our own

    def of_files(self) -> str:
        return f"number >> {POSITION_BITS} IN (SELECT value FROM json_each(:files))"  # noqa: S608 - a number of our own

    def query(self, stores: Sequence[str], word: str) -> str:
        marks = " OR ".join(f'"{store}"' for store in stores)
        return f'({marks}) AND "{word}"{"*" if is_beginning(word) else ""}'

    def files(self, files: Sequence[int]) -> object:
        return json.dumps(list(files))


class SqliteIndex(SqlPassages):
    """Passages in SQLite: full text by FTS5, vectors in memory."""

    def __init__(self, database: Database, *, memory: int) -> None:
        """`memory`: bytes for the cached vectors of searched stores."""
        super().__init__(database, _SqliteWords())
        self._matrices = matrix.MatrixCache(memory)
        self._loading: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def _require(self) -> None:
        """SQLite needs no extension."""

    async def _index(self, connection: AsyncConnection, first: int, words: Sequence[str], vectors: Vectors) -> None:
        await connection.execute(_ADD_WORDS, [{"number": first + n, "words": found} for n, found in enumerate(words)])
        data = await asyncio.to_thread(matrix.stored, vectors.data)
        await connection.execute(_ADD_VECTORS, {"number": first, "data": data})

    async def _erase(self, version: Version) -> None:
        """A few at a time, since the write lock blocks all other writers. FTS5 must be given the words to delete."""
        some = select(passages).where(belongs(version)).order_by(passages.c.number).limit(SEGMENT)
        while rows := await fetch(self._database, some):
            numbers = [row["number"] for row in rows]
            words = [f"{marked(version.store)} {found}" for found in await words_apart([row["text"] for row in rows])]
            await self._erase_some(numbers, words)
        async with self._transaction() as connection:
            await connection.execute(delete(passage_files).where(passage_files.c.id == version.id))

    async def _erase_some(self, numbers: Sequence[int], words: Sequence[str]) -> None:
        """The passages of one segment, unless another worker was faster."""
        first = numbers[0]
        gone = [{"number": number, "words": found} for number, found in zip(numbers, words, strict=True)]
        async with self._transaction() as connection:
            there = await connection.execute(select(passages.c.number).where(passages.c.number == first))
            if there.first():
                await connection.execute(_DROP_WORDS, gone)
                await connection.execute(delete(passages).where(passages.c.number.in_(numbers)))
                await connection.execute(_DROP_VECTORS, {"first": first, "last": first + SEGMENT})

    async def _nearest(self, scope: Scope, search: Search, count: int) -> Sequence[tuple[int, float]]:
        wanted = frozenset(scope.wanted)
        coarse: list[int] = []
        for store, versions in scope.stores.items():
            vectors = await self._matrix(store, frozenset(versions), search.vector.dimensions)
            coarse += await asyncio.to_thread(vectors.nearest, search.vector.data, _COARSE * count, wanted)
        parameters = {"numbers": json.dumps(coarse), "width": search.vector.dimensions * _HALF, "segment": SEGMENT}
        rows = await fetch(self._database, _FULL, parameters)
        found = await asyncio.to_thread(
            matrix.in_order, search.vector.data, [(row["number"], row["data"]) for row in rows]
        )
        return found[:count]

    async def _matrix(self, store: int, versions: frozenset[int], dimensions: int) -> matrix.Matrix:
        """The store's vectors: those in memory, and those added since."""
        async with self._loading[store]:
            known = self._matrices.get(store) or await asyncio.to_thread(matrix.empty, dimensions)
            if known.files == versions:
                return known
            current = await self._grown(known, versions, dimensions)
            self._matrices.put(store, current)
            return current

    async def _grown(self, known: matrix.Matrix, versions: frozenset[int], dimensions: int) -> matrix.Matrix:
        new = sorted(versions - known.files)
        added: list[matrix.Rows] = []
        for start in range(0, len(new), _READ):
            some = json.dumps(new[start : start + _READ])
            rows = await fetch(self._database, _SEGMENTS, {"files": some, "bits": POSITION_BITS})
            segments = [(row["number"], row["data"]) for row in rows]
            added += await asyncio.to_thread(matrix.rounded, segments, dimensions)
        return await asyncio.to_thread(known.changed, versions, added)
