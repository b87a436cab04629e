"""Searching 100,000 passages on both databases: `python -m benchmarks.file_search`, or the case `files` of `python -m
benchmarks`.

The passages are synthetic: 60 words each, distributed like real words (Zipf), and vectors of 384 numbers in clusters,
like those of real texts. Embedding the queries is not measured. The searching process is fresh, and measured separately
from the loading one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.db.engine import Database
from app.db.migrate import upgrade_apart
from app.knowledge.index_postgres import PostgresIndex
from app.knowledge.index_sqlite import SqliteIndex
from app.knowledge.passages import SqlPassages
from app.knowledge.ports.passages import Passage, Search, Vectors
from tests.knowledge.indexes import taken
from tests.support.services import Postgres

PASSAGES = 100_000
DIMENSIONS = 384
_A_FILE = 200
_CLUSTERS = 400
_VOCABULARY = 50_000
_SEARCHES = 200
_LIMIT = 10
_MEMORY = 256 * 1024 * 1024
_MODEL = "made-up"
_WAYS = {"meaning": (1.0, 0.0), "words": (0.0, 1.0), "both": (1.0, 1.0)}


def report(passages: int = PASSAGES) -> str:
    """Load and search both databases; a Markdown table."""
    lines = [
        f"Searching {passages:,} passages ({DIMENSIONS} numbers a vector, {_LIMIT} results), one after the other:",
        "",
        "| database | loading | first search | memory | search by | p50 | p99 | gateway CPU | the best 10 found |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ("sqlite", "postgres"):
        with _database(name) as url:
            upgrade_apart(url)
            begun = time.monotonic()
            asyncio.run(_load(url, passages))
            loading = time.monotonic() - begun
            command = [sys.executable, "-m", "benchmarks.file_search", "--search", url, "--passages", str(passages)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)  # noqa: S603 - this program itself
        for way, values in found["ways"].items():
            lines.append(
                f"| {name} | {loading:.0f} s | {found['first']:.0f} ms | {found['before']:.0f} + {found['added']:.0f} "
                f"MB | {way} | {values['p50']:.1f} ms | {values['p99']:.1f} ms | {values['cpu']:.1f} ms | "
                f"{values['recall']} |"
            )
    return "\n".join(lines) + "\n"


@contextmanager
def _database(name: str) -> Generator[str]:
    if name == "postgres":
        with Postgres() as server:
            yield server.url()
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite+aiosqlite:///{folder}/gateway.db"


def _vectors(passages: int) -> NDArray[np.float32]:
    """The same in every process."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((_CLUSTERS, DIMENSIONS))
    near = centres[random.integers(0, _CLUSTERS, passages)] + 0.7 * random.standard_normal((passages, DIMENSIONS))
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


def _text(random: np.random.Generator, words: int) -> str:
    return " ".join(f"word{min(int(n), _VOCABULARY)}" for n in random.zipf(1.2, words))


async def _load(url: str, passages: int) -> None:
    vectors, random = _vectors(passages), np.random.default_rng(2)

    async def one_file(first: int) -> AsyncIterator[tuple[Sequence[Passage], Vectors]]:
        rows = vectors[first : first + _A_FILE]
        yield [Passage(n, _text(random, 60)) for n in range(len(rows))], Vectors(_MODEL, DIMENSIONS, rows.tobytes())

    database = Database(url)
    index = _index(database)
    for first in range(0, passages, _A_FILE):
        await index.replace(await taken(index, "vs_bench", f"file-{first}"), f"{first}.txt", one_file(first))
    await database.aclose()


def _index(database: Database) -> SqlPassages:
    return SqliteIndex(database, memory=_MEMORY) if database.embedded else PostgresIndex(database)


async def _search(url: str, passages: int) -> dict[str, Any]:
    """Run in a separate process."""
    vectors, random = _vectors(passages), np.random.default_rng(3)
    asked = [vectors[n] + 0.03 * random.standard_normal(DIMENSIONS) for n in random.integers(0, passages, _SEARCHES)]
    questions = [(vector / np.linalg.norm(vector)).astype(np.float32) for vector in asked]
    texts = [_text(random, 8) for _ in questions]
    best = [set(np.argsort(vectors @ vector)[-_LIMIT:].tolist()) for vector in questions]
    del vectors, asked
    database = Database(url)
    index = _index(database)
    before, begun = _resident(), time.perf_counter()
    await index.search(_query(texts[0], questions[0], "both"))
    found: dict[str, Any] = {"first": (time.perf_counter() - begun) * 1000, "before": before, "ways": {}}
    for way in _WAYS:
        seconds = array("d")
        right = 0
        cpu = time.process_time()
        for text, vector, expected in zip(texts, questions, best, strict=True):
            begun = time.perf_counter()
            hits = await index.search(_query(text, vector, way))
            seconds.append((time.perf_counter() - begun) * 1000)
            right += len({int(hit.filename.removesuffix(".txt")) + hit.position for hit in hits} & expected)
        recall = f"{right / (_SEARCHES * _LIMIT):.1%}" if way == "meaning" else ""
        p50, p99 = np.percentile(seconds, [50, 99])
        found["ways"][way] = {
            "p50": p50,
            "p99": p99,
            "cpu": (time.process_time() - cpu) * 1000 / _SEARCHES,
            "recall": recall,
        }
    found["added"] = _resident() - before
    await database.aclose()
    return found


def _query(text: str, vector: NDArray[np.float32], way: str) -> Search:
    by_meaning, by_words = _WAYS[way]
    return Search(
        vector_store_ids=("vs_bench",),
        text=text,
        vector=Vectors(_MODEL, DIMENSIONS, vector.tobytes()),
        limit=_LIMIT,
        embedding_weight=by_meaning,
        text_weight=by_words,
    )


def _resident() -> float:
    """MB used by this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    """Measure and print; `--search` is for the fresh process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.file_search", description=__doc__)
    parser.add_argument("--passages", type=int, default=PASSAGES)
    parser.add_argument("--search", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        sys.stdout.write(json.dumps(asyncio.run(_search(options.search, options.passages))))
    else:
        sys.stdout.write(report(options.passages))


if __name__ == "__main__":
    main()
