"""The port to uploaded files and what is known from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec


class FileContent(msgspec.Struct, frozen=True):
    """An uploaded file."""

    file_id: str
    filename: str
    content: bytes


class FileHit(msgspec.Struct, frozen=True):
    """A passage of an uploaded file."""

    file_id: str
    filename: str
    score: float
    """0 to 1."""
    text: str
    attributes: dict[str, str | float | bool]
    fits: bool = True
    """False: it is among the best, but hardly answers the query."""


class FileQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query over vector stores."""

    vector_store_ids: tuple[str, ...]
    queries: tuple[str, ...]
    limit: int = 10
    filters: msgspec.Raw | None = None
    """As in the request: a comparison or compound filter over attributes."""
    score_threshold: float = 0.0
    embedding_weight: float = 1.0
    text_weight: float = 1.0
    ranker: Literal["auto", "default-2024-11-15", "none"] = "auto"


class Files(Protocol):
    """Uploaded files and their contents.

    Every method is scoped to the project; another project's id is treated as unknown.
    """

    async def read(self, project_id: str, file_id: str) -> FileContent:
        """The file. Raises NotFound."""
        ...

    async def check(self, project_id: str, vector_store_ids: Sequence[str]) -> None:
        """Raises NotFound for the first one that is unknown or expired."""
        ...

    async def search(self, project_id: str, query: FileQuery) -> Sequence[FileHit]:
        """The best passages, best first. Raises NotFound, InvalidRequest for a bad filter."""
        ...
