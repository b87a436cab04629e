"""The ports of files and vector stores: where bytes are kept, what is known about them, and how passages are found.

Every id is unique over all projects, and every method that takes an id takes the project, too: a foreign id is an unknown id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Shape (n, dimensions); every row has length 1."""

Attributes = dict[str, str | float | bool]


class Blobs(Protocol):
    """Bytes by the SHA-256 of what they are; the same content is kept once."""

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep the content; durable when this returns."""
        ...

    async def get(self, digest: str) -> AsyncIterator[bytes]:
        """The content in pieces. Raises KeyError."""
        ...

    async def delete(self, digest: str) -> None:
        """Forget the content, if it is there."""
        ...


class Passage(msgspec.Struct, frozen=True):
    """A piece of a file's text, as it is searched and shown."""

    position: int
    """Its number in the file, from 0."""
    text: str


class Hit(msgspec.Struct, frozen=True):
    """A passage that fits a query."""

    vector_store_id: str
    file_id: str
    filename: str
    attributes: Attributes
    position: int
    text: str
    score: float
    """0 to 1."""


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """One query over some vector stores of one project, whose existence and owner have been checked."""

    vector_store_ids: tuple[str, ...]
    text: str
    vector: Vectors
    """Shape (1, dimensions)."""
    limit: int
    filters: Mapping[str, object] | None = None
    """A comparison (`type`, `key`, `value`) or a compound (`type` and/or, `filters`), checked."""
    score_threshold: float = 0.0
    embedding_weight: float = 1.0
    text_weight: float = 1.0


class PassageIndex(Protocol):
    """Passages with their vectors and words."""

    async def replace(
        self, vector_store_id: str, file_id: str, filename: str, attributes: Attributes, entries: Sequence[tuple[Passage, Vectors]]
    ) -> None:
        """Make these the file's passages in this store, in place of all earlier ones; in one transaction."""
        ...

    async def describe(self, vector_store_id: str, file_id: str, attributes: Attributes) -> None:
        """Change the attributes of a file's passages."""
        ...

    async def remove(self, vector_store_id: str, file_id: str | None) -> None:
        """Forget a file's passages, or with None the whole store's."""
        ...

    async def passages(self, vector_store_id: str, file_id: str) -> Sequence[Passage]:
        """A file's passages in order."""
        ...

    async def search(self, search: Search) -> Sequence[Hit]:
        """The best passages by meaning and by words together, best first, at most `limit`."""
        ...


class Embedder(Protocol):
    """Texts to vectors. Raises EmbeddingFailed."""

    name: str
    """Of the model: vectors of different names cannot be compared."""

    async def passages(self, texts: Sequence[str]) -> Vectors:
        """One row for each text of a document."""
        ...

    async def query(self, text: str) -> Vectors:
        """One row for a question."""
        ...

    async def aclose(self) -> None:
        """Free what it holds."""
        ...


class EmbeddingFailed(Exception):
    """The model did not answer; the same call may succeed later. The message is without internals."""
