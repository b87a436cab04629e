"""A store's vectors in memory, one byte per number, for the exact search on SQLite.

100,000 vectors of 384 dimensions take 38 MB and are compared with a query in about 10 ms. Rounding to bytes changes a
similarity by at most 0.002, so the best few hundred are compared again in full precision (see `index_sqlite.py`): the
order is that of an exact search. numpy is imported where it is used: a gateway that searches no files never loads it.
Call everything here in a thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.db.searching import POSITION_BITS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.float32]]
    """Of vectors: the numbers of their passages, the vectors rounded to bytes, and their scale factors."""

_BLOCK = 1024
"""Rows at a time: they stay in the processor's cache while they are converted and multiplied."""
_LARGEST = 127


class Matrix:
    """The vectors of some files. Immutable: adding or removing files makes a new one."""

    def __init__(
        self, files: frozenset[int], numbers: NDArray[np.int64], rows: NDArray[np.int8], scales: NDArray[np.float32]
    ) -> None:
        self.files = files
        self._numbers = numbers
        """Of the passages; without the lowest 24 bits, of their files."""
        self._rows = rows
        self._scales = scales
        """The scale factor of each row."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self._rows.nbytes + self._numbers.nbytes + self._scales.nbytes

    def changed(self, files: frozenset[int], added: Sequence[Rows]) -> Matrix:
        """With exactly these files; `added` are the vectors of the new ones."""
        import numpy as np  # noqa: PLC0415 - see the module's docstring

        kept = slice(None) if self.files <= files else np.isin(self._numbers >> POSITION_BITS, list(files))
        parts = [(self._numbers[kept], self._rows[kept], self._scales[kept]), *added]
        numbers, rows, scales = (np.concatenate(one) for one in zip(*parts, strict=True))
        return Matrix(files, numbers, rows, scales)

    def nearest(self, query: bytes, count: int, files: frozenset[int]) -> list[int]:
        """The numbers of the `count` vectors in those files that are most similar to the query (float32), unordered."""
        import numpy as np  # noqa: PLC0415 - see the module's docstring

        numbers, rows, scales = self._numbers, self._rows, self._scales
        if not self.files <= files:
            wanted = np.flatnonzero(np.isin(numbers >> POSITION_BITS, list(files)))
            numbers, rows, scales = numbers[wanted], rows[wanted], scales[wanted]
        if len(numbers) <= count:
            return numbers.tolist()
        likeness = _products(rows, np.frombuffer(query, np.float32)) * scales
        return numbers[np.argpartition(likeness, -count)[-count:]].tolist()


def empty(dimensions: int) -> Matrix:
    """The matrix without files."""
    import numpy as np  # noqa: PLC0415 - see the module's docstring

    return Matrix(frozenset(), np.empty(0, np.int64), np.empty((0, dimensions), np.int8), np.empty(0, np.float32))


def _products(rows: NDArray[np.int8], vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row with the vector."""
    import numpy as np  # noqa: PLC0415 - see the module's docstring

    products = np.empty(len(rows), np.float32)
    wide = np.empty((_BLOCK, len(vector)), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        np.copyto(wide[: len(block)], block)
        np.matmul(wide[: len(block)], vector, out=products[start : start + len(block)])
    return products


def rounded(segments: Sequence[tuple[int, bytes]], dimensions: int) -> list[Rows]:
    """Stored segments, each with its first number, rounded to bytes."""
    import numpy as np  # noqa: PLC0415 - see the module's docstring

    found: list[Rows] = []
    for first, data in segments:
        segment = np.frombuffer(data, np.float16).reshape(-1, dimensions).astype(np.float32)
        scale = np.divide(
            np.maximum(np.abs(segment).max(axis=1), np.finfo(np.float32).tiny), _LARGEST, dtype=np.float32
        )
        found.append((np.arange(first, first + len(segment)), np.rint(segment / scale[:, None]).astype(np.int8), scale))
    return found


def in_order(query: bytes, candidates: Sequence[tuple[int, bytes]]) -> list[tuple[int, float]]:
    """Candidates with their similarity, best first; a candidate is a number and a stored vector."""
    import numpy as np  # noqa: PLC0415 - see the module's docstring

    if not candidates:
        return []
    vectors = np.frombuffer(b"".join(data for _, data in candidates), np.float16).reshape(len(candidates), -1)
    likeness = vectors.astype(np.float32) @ np.frombuffer(query, np.float32)
    found = [(number, value) for (number, _), value in zip(candidates, likeness.tolist(), strict=True)]
    return sorted(found, key=lambda one: (-one[1], one[0]))


def stored(vectors: bytes) -> bytes:
    """Vectors (float32) in their stored form: float16, which changes a similarity by less than 0.0001."""
    import numpy as np  # noqa: PLC0415 - see the module's docstring

    return np.frombuffer(vectors, np.float32).astype(np.float16).tobytes()


class MatrixCache:
    """The matrices of the most recently searched stores, as many as fit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._matrices: OrderedDict[int, Matrix] = OrderedDict()

    def get(self, store: int) -> Matrix | None:
        """The store's matrix; counts as a use."""
        found = self._matrices.get(store)
        if found is not None:
            self._matrices.move_to_end(store)
        return found

    def put(self, store: int, matrix: Matrix) -> None:
        """Keep it; the least recently used ones are evicted. One that exceeds the limit by itself is not kept."""
        self._matrices[store] = matrix
        self._matrices.move_to_end(store)
        while self._matrices and sum(one.size for one in self._matrices.values()) > self._limit:
            self._matrices.popitem(last=False)
