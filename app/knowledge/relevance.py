"""How well a passage fits a query, as a number that is comparable across queries.

Ranks only say which passage fits best, even if none does. The similarity of two vectors says more, but every model has
its own scale, and within a model every pair of scripts: with e5, completely unrelated English texts have a similarity
of 0.78, Chinese ones 0.83. So it is measured from the similarity of unrelated texts, with figures for the built-in
models (`benchmarks/retrieval.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

from app.knowledge.words import DENSE

FITTING = 0.25
"""Below this a passage hardly answers; `benchmarks/retrieval.py` counts how often that is right and wrong."""

_DENSE = re.compile(f"[{DENSE}]")
_SHARE_OF_DENSE = 0.3


class Scale(msgspec.Struct, frozen=True):
    """A model's scale of similarities."""

    latin: float
    """Unrelated texts, both in scripts with spaces."""
    dense: float
    """Both in scripts without spaces."""
    mixed: float
    """One of each kind."""
    step: float
    """The similarity above that of unrelated texts at which the score is one half."""
    width: float
    """How steeply the score rises."""


SCALES: Mapping[str, Scale] = {
    "universal-sentence-encoder-multilingual-3": Scale(latin=0.023, dense=0.065, mixed=0.023, step=0.15, width=0.045),
    "multilingual-e5-small": Scale(latin=0.776, dense=0.832, mixed=0.752, step=0.033, width=0.009),
}
"""By model. Other models have ranks only."""


class Relevance:
    """The passages of one search."""

    def __init__(self, scale: Scale, query: str, *, meaning: float, words: float) -> None:
        """`meaning`, `words`: the weights of the two."""
        heavier = max(meaning, words)
        self._scale = scale
        self._dense = _is_dense(query)
        self._meaning = meaning / heavier
        self._words = words / heavier

    def of(self, text: str, likeness: float | None, share: float) -> float:
        """0 to 1.

        `likeness`: of the vectors, None if not among the nearest; `share`: of the query's words, weighted by rarity.
        """
        scale = self._scale
        dense = _is_dense(text)
        alike = scale.dense if dense else scale.latin
        unrelated = alike if dense is self._dense else scale.mixed
        near = 0.0 if likeness is None else 1 / (1 + math.exp((unrelated + scale.step - likeness) / scale.width))
        return 1 - (1 - self._meaning * near) * (1 - self._words * share)


def _is_dense(text: str) -> bool:
    return len(_DENSE.findall(text)) > _SHARE_OF_DENSE * len(text)
