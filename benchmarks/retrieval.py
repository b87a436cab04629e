"""The quality of `file_search` with each built-in model, in two languages: `python -m benchmarks.retrieval`; prints
Markdown.

The set (`retrieval.toml`) asks in other words than the passages, in the passage's language and in the other, and
contains questions that no passage answers. The whole pipeline runs: model, words, the index on SQLite and the ranking.
Then the time for about 36 KB of this documentation, split as files are by default.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from app.db.engine import Database
from app.db.migrate import upgrade_apart
from app.knowledge.chunking import passages
from app.knowledge.embed_local import MODELS, LocalEmbedder
from app.knowledge.index_sqlite import SqliteIndex
from app.knowledge.passages import SqlPassages
from app.knowledge.ports.passages import Hit, Passage, Search, Vectors
from app.offload.protocol import Limits
from app.offload.workers import Workers
from benchmarks.embedding import cost
from tests.knowledge.indexes import taken

_SET = Path(__file__).with_suffix(".toml")
_MEMORY = 64 * 1024 * 1024
_WAYS = {"meaning": (1.0, 0.0), "words": (0.0, 1.0), "both": (1.0, 1.0)}
_STORES = {"en": ("en",), "zh": ("zh",), "en and zh": ("en", "zh")}
_LANGUAGES = ("en", "zh")
_PAGES = Path(__file__).parents[1] / "docs"
_CHARACTERS = 36 * 1024
_CHUNKS = (800, 400)


class Topic(msgspec.Struct, frozen=True):
    """A passage and a question about it, in both languages."""

    en: str
    zh: str
    asked_en: str
    asked_zh: str


class Unanswered(msgspec.Struct, frozen=True):
    """A question that no passage answers."""

    en: str
    zh: str


class RetrievalSet(msgspec.Struct, frozen=True):
    """The whole set."""

    topics: tuple[Topic, ...]
    unanswered: tuple[Unanswered, ...]


class Found(msgspec.Struct, frozen=True):
    """Results for some questions in one language, in one store."""

    first: int
    """Questions whose passage was first."""
    reciprocal: float
    """Mean of 1 / its rank."""
    doubted: int
    """Questions whose first result was marked as one that hardly fits."""


def load() -> RetrievalSet:
    """The set, from its file."""
    return msgspec.convert(tomllib.loads(_SET.read_text()), RetrievalSet)


class Bench:
    """Passages in stores, and questions with their vectors."""

    def __init__(self, index: SqlPassages, known: RetrievalSet, model: str) -> None:
        self._index = index
        self._set = known
        self._embedder = LocalEmbedder(model)
        self._vectors: dict[str, Vectors] = {}

    async def fill(self) -> None:
        """A store for each set of languages; the passage of topic n is file n."""
        for store, languages in _STORES.items():
            for language in languages:
                for number, topic in enumerate(self._set.topics):
                    text: str = getattr(topic, language)
                    job = await taken(self._index, store, f"{language}-{number}")
                    await self._index.replace(job, str(number), self._batch(text))

    async def answered(self, store: str, language: str, way: str) -> Found:
        """Ask for every topic."""
        places: list[float] = []
        doubted = 0
        for number, topic in enumerate(self._set.topics):
            hits = await self._search(store, getattr(topic, f"asked_{language}"), way)
            names = [hit.filename for hit in hits]
            places.append(1 / (names.index(str(number)) + 1) if str(number) in names else 0.0)
            doubted += not hits or not hits[0].fits
        return Found(places.count(1.0), sum(places) / len(places), doubted)

    async def unanswered(self, store: str, language: str) -> int:
        """How often the result says that nothing fits."""
        found = [await self._search(store, getattr(one, language), "both") for one in self._set.unanswered]
        return sum(not hits or not hits[0].fits for hits in found)

    async def _search(self, store: str, text: str, way: str) -> Sequence[Hit]:
        if text not in self._vectors:
            self._vectors[text] = await self._embedder.query(text)
        meaning, words = _WAYS[way]
        search = Search(
            vector_store_ids=(store,),
            text=text,
            vector=self._vectors[text],
            limit=20,
            embedding_weight=meaning,
            text_weight=words,
        )
        return await self._index.search(search)

    async def _batch(self, text: str) -> AsyncIterator[tuple[Sequence[Passage], Vectors]]:
        if text not in self._vectors:
            self._vectors[text] = await self._embedder.passages([text])
        yield [Passage(0, text)], self._vectors[text]


async def report() -> str:
    """Two Markdown tables."""
    known = load()
    asked, missing = len(known.topics), len(known.unanswered)
    ways = " | ".join(f"{way}: first, MRR" for way in _WAYS)
    lines = [
        (
            f"| model | passages in | questions in | {ways} | said to hardly fit, of {asked} answered | of {missing} "
            f"that nothing answers |"
        ),
        "|---|---|---|" + "---|" * (len(_WAYS) + 2),
    ]
    for model in MODELS:
        lines += await _quality(model, known)
    cut = passages("".join(page.read_text() for page in sorted(_PAGES.glob("*.md")))[:_CHARACTERS], *_CHUNKS)
    lines += [
        "",
        f"| model | CPU seconds for {_CHARACTERS} characters in {len(cut)} passages | MB in memory |",
        "|---|---|---|",
    ]
    for model in MODELS:
        seconds, megabytes = await Workers(Limits(seconds=600)).run(cost, model, [passage.text for passage in cut])
        lines.append(f"| {model} | {seconds:.1f} | {megabytes:.0f} |")
    return "\n".join(lines) + "\n"


async def _quality(model: str, known: RetrievalSet) -> list[str]:
    """The rows of a model."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{folder}/gateway.db"
        await asyncio.to_thread(upgrade_apart, url)
        database = Database(url)
        bench = Bench(SqliteIndex(database, memory=_MEMORY), known, model)
        await bench.fill()
        for store in _STORES:
            for language in _LANGUAGES:
                found = {way: await bench.answered(store, language, way) for way in _WAYS}
                shown = " | ".join(f"{one.first}, {one.reciprocal:.3f}" for one in found.values())
                silent = await bench.unanswered(store, language)
                lines.append(f"| {model} | {store} | {language} | {shown} | {found['both'].doubted} | {silent} |")
        await database.aclose()
    return lines


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(report()))
