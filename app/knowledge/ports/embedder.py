"""The port to an embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.knowledge.ports.passages import Vectors


class Embedder(Protocol):
    """Texts to vectors. Raises EmbeddingFailed.

    `model`: the one whose vectors the store has. An embedder without it uses its own model, whose vectors the index
    then refuses.
    """

    async def passages(self, texts: Sequence[str], *, model: str | None = None) -> Vectors:
        """One vector for each text of a document; any number of texts."""
        ...

    async def query(self, text: str, *, model: str | None = None, project: str = "") -> Vectors:
        """The vector of a query; `project`: for fair scheduling. Raises Busy."""
        ...

    async def aclose(self) -> None:
        """Release resources."""
        ...


class EmbeddingFailed(Exception):
    """The model did not answer; the same call may succeed later. The message contains no internals."""
