"""The port to the index of passages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec

from app.knowledge.ports.jobs import Job
from app.protocol.wire.filters import Filter

Attributes = dict[str, str | float | bool]


class Passage(msgspec.Struct, frozen=True):
    """A piece of a file's text, as it is searched and shown."""

    position: int  # its index in the file, from 0
    text: str


class Split(Protocol):
    """Cuts a text into passages."""

    async def __call__(self, text: str, *, size: int, overlap: int, project: str) -> Sequence[Passage]:
        """Passages of at most `size` tokens, sharing `overlap` with the previous; none without words.

        `project`: for fair scheduling.
        """
        ...


class Vectors(msgspec.Struct, frozen=True):
    """Vectors of length 1, concatenated, as returned by one model. Bytes, since the gateway only passes them on."""

    model: str
    """Vectors of different models cannot be compared."""
    dimensions: int
    data: bytes  # float32 in native byte order, `dimensions` per vector


class Hit(msgspec.Struct, frozen=True):
    """A passage that matches a query."""

    vector_store_id: str
    file_id: str
    filename: str
    attributes: Attributes
    position: int
    text: str
    score: float
    """0 to 1."""
    fits: bool = True  # False: it is among the best, but hardly answers the query


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """One query over some vector stores of one project, whose existence and ownership have been checked."""

    vector_store_ids: tuple[str, ...]
    text: str
    vector: Vectors  # one
    limit: int
    filters: Filter | None = None
    score_threshold: float = 0.0
    embedding_weight: float = 1.0
    text_weight: float = 1.0


class PassageIndex(Protocol):
    """Passages with their vectors and words.

    Every method raises Unavailable, with a message for users, if the database lacks what it needs (Postgres without
    pgvector).
    """

    async def replace(self, job: Job, filename: str, batches: AsyncIterator[tuple[Sequence[Passage], Vectors]]) -> None:
        """Make these the passages of the job's file, replacing all earlier ones, with the job's attributes.
        `Passage.position` counts from 0 over all batches.

        They are written as they arrive and become searchable only when complete; if `batches` raises, the earlier ones
        stay. Raises JobLost, and then changes nothing; InvalidRequest if the store has vectors of another model.
        """
        ...

    async def describe(self, vector_store_id: str, file_id: str, attributes: Attributes) -> None:
        """Change the attributes of a file's passages."""
        ...

    async def remove(self, job: Job) -> None:
        """Delete the passages of the job's file. Raises JobLost, and then changes nothing."""
        ...

    async def passages(self, vector_store_id: str, file_id: str) -> Sequence[Passage]:
        """A file's passages in order."""
        ...

    async def models(self, vector_store_ids: Sequence[str]) -> Mapping[str, str]:
        """The name of the model of each store's vectors; stores that never had any are omitted."""
        ...

    async def search(self, search: Search) -> Sequence[Hit]:
        """The best passages by meaning and words combined, best first, at most `limit`.

        Raises InvalidRequest if a store has vectors of another model.
        """
        ...
