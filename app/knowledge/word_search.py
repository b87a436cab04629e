"""The search by words in SQL.

A word is weighted by its rarity among the passages searched (the logarithm in BM25), once per passage. Words that are
too common to be informative are not looked up, so that a query costs no more than its rare words.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from sqlalchemy import text

from app.db.engine import Database
from app.knowledge._database import fetch
from app.knowledge.scope import Scope, marked
from app.knowledge.words import asked

_MOST_WORDS = 32
"""Of a query."""
_LONGEST_QUERY = 2000
"""Characters of a query whose words are looked up."""
_UNKNOWN = 2
"""A word that no passage has is more informative than one that a single passage has."""
_COMMON = 10_000
"""A word in more passages than this is common."""


class WordSearch(ABC):
    """Finds passages by their words; subclasses write the conditions of their database."""

    async def search(self, database: Database, scope: Scope, query: str, count: int) -> Sequence[tuple[int, float]]:
        """The passages with the rarest words of the query, best first, each with its share of the query's
        total rarity.
        """
        stores = [marked(store) for store in scope.stores]
        words = asked(query[:_LONGEST_QUERY], _MOST_WORDS)
        queries = {f"w{number}": self.query(stores, word) for number, word in enumerate(words)}
        found = await self._count(database, queries)
        chosen = _telling(found)
        if not chosen:
            return ()
        rarity = {f"r{name}": math.log1p(scope.size / found[name]) for name in chosen}
        chosen_queries = {name: queries[name] for name in chosen}
        parameters = {**chosen_queries, **rarity, "files": self.files(scope.wanted), "count": count}
        rows = await fetch(database, text(self._ranking(chosen)), parameters)
        unknown = list(found.values()).count(0)
        total = sum(rarity.values()) + unknown * math.log1p(_UNKNOWN * scope.size)
        return [(row["number"], row["score"] / total) for row in rows]

    async def _count(self, database: Database, queries: Mapping[str, str]) -> dict[str, int]:
        """How many passages match each query, counted up to where they are too common."""
        if not queries:
            return {}
        matches = {name: f"SELECT 1 FROM ({self.containing(name)}) AS q LIMIT {_COMMON + 1}" for name in queries}  # noqa: S608 - names of our own
        counts = [f"SELECT '{name}' AS name, count(*) AS found FROM ({some}) AS c" for name, some in matches.items()]  # noqa: S608 - as above
        rows = await fetch(database, text(" UNION ALL ".join(counts)), queries)
        return {row["name"]: row["found"] for row in rows}

    def _ranking(self, names: Sequence[str]) -> str:
        matching = " UNION ALL ".join(self._matching(name) for name in names)
        sums = f"SELECT number, sum(rarity) AS score FROM ({matching}) AS m GROUP BY number"  # noqa: S608 - as above
        return f"{sums} ORDER BY score DESC, number LIMIT :count"

    def _matching(self, name: str) -> str:
        passages = f"SELECT number FROM ({self.containing(name)}) AS q WHERE {self.of_files()} LIMIT {_COMMON}"  # noqa: S608 - as above
        return f"SELECT number, CAST(:r{name} AS float) AS rarity FROM ({passages}) AS c"  # noqa: S608 - as above

    @abstractmethod
    def containing(self, name: str) -> str:
        """SQL: the numbers of the passages that match the query bound to that name."""

    @abstractmethod
    def of_files(self) -> str:
        """SQL: a condition on `number`, that it belongs to a file bound to `files`."""

    @abstractmethod
    def query(self, stores: Sequence[str], word: str) -> str:
        """The value bound for `containing`: one of the stores' marks, and the word."""

    @abstractmethod
    def files(self, files: Sequence[int]) -> object:
        """The value bound for `of_files`."""


def _telling(found: Mapping[str, int]) -> list[str]:
    """The rarest words, as many as are not common when taken together; at least one."""
    chosen: list[str] = []
    total = 0
    for name in sorted((name for name, count in found.items() if count), key=found.__getitem__):
        total += found[name]
        if chosen and total > _COMMON:
            break
        chosen.append(name)
    return chosen
