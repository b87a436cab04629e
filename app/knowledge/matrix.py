"""The vectors of a store in memory, a byte a number, for the exact search on SQLite.

100,000 vectors of 384 numbers take 38 MB and are compared with a query in some 10 ms. Rounding to bytes moves a likeness by 0.002 at
most; so the best few hundred are looked at again in full (see `index_sqlite.py`), and the order is that of a search without rounding.
numpy is imported where it is used: a gateway that searches no files never loads it. Everything here is for a thread.
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
    """Of vectors: their passages' numbers, their own rounded to bytes, and what those have to be multiplied by."""

_BLOCK = 1024
"""Rows at a time: they stay in the processor's cache while they are widened and multiplied."""
_LARGEST = 127


class Matrix:
    """The vectors of some files. It never changes: files that come and go make another."""

    def __init__(self, files: frozenset[int], numbers: NDArray[np.int64], rows: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        self.files = files
        self._numbers = numbers
        """Of the passages; beyond the lowest 24 bits, of their files."""
        self._rows = rows
        self._scales = scales
        """What a row's numbers have to be multiplied by."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self._rows.nbytes + self._numbers.nbytes + self._scales.nbytes

    def changed(self, files: frozenset[int], added: Sequence[Rows]) -> Matrix:
        """With these files and no others; `added` are the vectors of the new ones."""
        import numpy as np  # noqa: PLC0415 - see the module's docstring

        kept = slice(None) if self.files <= files else np.isin(self._numbers >> POSITION_BITS, list(files))
        parts = [(self._numbers[kept], self._rows[kept], self._scales[kept]), *added]
        numbers, rows, scales = (np.concatenate(one) for one in zip(*parts, strict=True))
        return Matrix(files, numbers, rows, scales)

    def nearest(self, query: bytes, count: int, files: frozenset[int]) -> list[int]:
        """The numbers of the `count` vectors in those files that are most like the query (float32), in no order."""
        import numpy as np  # noqa: PLC0415 - see the module's docstring

        numbers, rows, scales = self._numbers, self._rows, self._scales
        if not self.files <= files:
            wanted = np.flatnonzero(np.isin(numbers >> POSITION_BITS, list(files)))
            numbers, rows, scales = numbers[wanted], rows[wanted], scales[wanted]
        if len(numbers) <= count:
            return numbers.tolist()
        vector = np.frombuffer(query, np.float32)
        likeness = np.empty(len(rows), np.float32)
        wide = np.empty((_BLOCK, len(vector)), np.float32)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            np.copyto(wide[: len(block)], block)
            np.matmul(wide[: len(block)], vector, out=likeness[start : start + len(block)])
        return numbers[np.argpartition(likeness * scales, -count)[-count:]].tolist()


def empty(dimensions: int) -> Matrix:
    """Of no files."""
    import numpy as np  # noqa: PLC0415 - see the module's docstring

    return Matrix(frozenset(), np.empty(0, np.int64), np.empty((0, dimensions), np.int8), np.empty(0, np.float32))


def rounded(segments: Sequence[tuple[int, bytes]], dimensions: int) -> list[Rows]:
    """Segments as they are stored, each with its first number, rounded to bytes."""
    import numpy as np  # noqa: PLC0415 - see the module's docstring

    found: list[Rows] = []
    for first, data in segments:
        segment = np.frombuffer(data, np.float16).reshape(-1, dimensions).astype(np.float32)
        scale = np.divide(np.maximum(np.abs(segment).max(axis=1), np.finfo(np.float32).tiny), _LARGEST, dtype=np.float32)
        found.append((np.arange(first, first + len(segment)), np.rint(segment / scale[:, None]).astype(np.int8), scale))
    return found


def in_order(query: bytes, candidates: Sequence[tuple[int, bytes]]) -> list[tuple[int, float]]:
    """Candidates with their likeness, best first; a candidate is a number and a vector as it is stored."""
    import numpy as np  # noqa: PLC0415 - see the module's docstring

    if not candidates:
        return []
    vectors = np.frombuffer(b"".join(data for _, data in candidates), np.float16).reshape(len(candidates), -1)
    likeness = (vectors.astype(np.float32) @ np.frombuffer(query, np.float32)).tolist()
    return sorted(zip((number for number, _ in candidates), likeness, strict=True), key=lambda found: (-found[1], found[0]))


def stored(vectors: bytes) -> bytes:
    """Vectors (float32) as they are stored: float16, which moves a likeness by less than 0.0001."""
    import numpy as np  # noqa: PLC0415 - see the module's docstring

    return np.frombuffer(vectors, np.float32).astype(np.float16).tobytes()


class Shelf:
    """The matrices of the stores that were searched last, as many as fit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._matrices: OrderedDict[int, Matrix] = OrderedDict()

    def get(self, store: int) -> Matrix | None:
        """The store's, which counts as used."""
        found = self._matrices.get(store)
        if found is not None:
            self._matrices.move_to_end(store)
        return found

    def put(self, store: int, matrix: Matrix) -> None:
        """Keep it; those that were not used for longest go. One that is larger than all is not kept."""
        self._matrices[store] = matrix
        self._matrices.move_to_end(store)
        while self._matrices and sum(one.size for one in self._matrices.values()) > self._limit:
            self._matrices.popitem(last=False)
