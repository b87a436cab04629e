"""The port to an embedding model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.knowledge.ports.passages import Vectors


class Embedder(Protocol):
    """Texts to vectors. Raises EmbeddingFailed.

    `model`: the one whose vectors the store holds. An embedder that does not have it takes its own, which the index then refuses.
    """

    async def passages(self, texts: Sequence[str], *, model: str | None = None) -> Vectors:
        """One vector for each text of a document; however many there are."""
        ...

    async def query(self, text: str, *, model: str | None = None, project: str = "") -> Vectors:
        """One vector for a question; `project`: whose turn it is. Raises Busy."""
        ...

    async def aclose(self) -> None:
        """Free what it holds."""
        ...


class EmbeddingFailed(Exception):
    """The model did not answer; the same call may succeed later. The message is without internals."""
