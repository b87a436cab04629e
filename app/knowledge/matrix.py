"""The vectors of a store in memory, a byte a number, for the exact search on SQLite.

100,000 vectors of 384 numbers take 38 MB and are compared with a query in some 10 ms. Rounding to bytes moves a likeness by 0.002 at
most; so the best few hundred are looked at again in full (see `index_sqlite.py`), and the order is that of a search without rounding.
numpy is imported where it is used: a gateway that searches no files never loads it. Everything here is for a thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from app.db.searching import SEGMENT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK = 1024
"""Rows at a time: they stay in the processor's cache while they are widened and multiplied."""


class Matrix:
    """The vectors of some files. It never changes: files that come and go make another."""

    def __init__(
        self, files: Collection[int], numbers: NDArray[np.int64], rows: NDArray[np.int8], scales: NDArray[np.float32]
    ) -> None:
        self.files = frozenset(files)
        self._numbers = numbers
        self._rows = rows
        self._scales = scales

    @property
    def size(self) -> int:
        """Bytes."""
        return self._rows.nbytes + self._numbers.nbytes + self._scales.nbytes

    def nearest(self, query: bytes, count: int, files: Collection[int] | None, bits: int) -> list[tuple[int, float]]:
        """The numbers of the `count` vectors that are most like the query (float32), of some files or of all, each with its likeness."""
        import numpy as np  # noqa: PLC0415 - see the module's docstring

        wanted = slice(None) if files is None else np.flatnonzero(np.isin(self._numbers >> bits, list(files)))
        numbers, scales = self._numbers[wanted], self._scales[wanted]
        likeness = _products(self._rows, np.frombuffer(query, np.float32), None if files is None else wanted) * scales  # type: ignore[arg-type]
        best = np.argpartition(likeness, -count)[-count:] if count < len(numbers) else np.arange(len(numbers))
        return list(zip(numbers[best].tolist(), likeness[best].tolist(), strict=True))
