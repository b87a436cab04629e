"""The numbers behind the metrics: in a list for one process, in files readable by all for several workers.

Counting is an addition in memory either way: a worker's file is mapped, so whichever worker is scraped reads current
values. A new worker takes over the file of one that has ended, so that counters never decrease and there are no more
files than workers.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

try:
    import fcntl
except ImportError:  # Windows: each worker exposes only its own numbers
    fcntl = None

DIRECTORY_VARIABLE = "RESPONSES_GATEWAY_METRICS_DIR"
"""The environment variable with the directory of the workers' numbers, set by `serve`."""
_SLOTS = 1 << 17
_SCRAP = 64
"""Slots at the end for numbers that do not fit; more than any key needs."""
_NUMBER_BYTES = 8


class Key(msgspec.Struct, frozen=True, array_like=True):
    """Identifies consecutive numbers."""

    name: str
    labels: tuple[str, ...]
    width: int
    lasting: bool
    """They continue in the process that takes over; gauges end with their process."""


Row = tuple[Key, list[float]]


class Numbers(Protocol):
    """The common interface of a list and a mapped file."""

    def __getitem__(self, place: int, /) -> float:
        """The number at that position."""
        ...

    def __setitem__(self, place: int, number: float, /) -> None:
        """Set the number at that position."""
        ...


class Table:
    """The numbers of this process and of its siblings."""

    def __init__(self) -> None:
        self._own: list[float] = []
        self.values: Numbers = self._own
        self._keys: list[Key] = []
        self._places: dict[tuple[str, tuple[str, ...]], int] = {}
        self._used = 0

    def place(self, key: Key) -> int:
        """Position of the key's numbers in `values`; initially zeros."""
        found = self._places.get((key.name, key.labels))
        return self._add(key) if found is None else found

    def rows(self) -> Iterator[Row]:
        """The numbers of all processes."""
        start = 0
        for key in self._keys:
            yield key, [self.values[place] for place in range(start, start + key.width)]
            start += key.width

    def _add(self, key: Key) -> int:
        self._reserve(key.width)
        place, self._used = self._used, self._used + key.width
        self._keys.append(key)
        self._places[key.name, key.labels] = place
        return place

    def _reserve(self, width: int) -> None:
        self._own.extend([0.0] * width)


class SharedTable(Table):
    """A table in a directory that the workers of one server share."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._numbers, self._names, self._lock = _claim(directory)
        self._map = mmap.mmap(self._lock, _SLOTS * _NUMBER_BYTES)
        self.values = memoryview(self._map).cast("d")
        for key in _read_keys(self._names):
            place = super()._add(key)
            if not key.lasting:
                for number in range(place, place + key.width):
                    self.values[number] = 0.0

    def rows(self) -> Iterator[Row]:
        """The numbers of all workers; of ended ones only the lasting numbers."""
        yield from super().rows()
        for numbers in sorted(self._directory.glob("*.numbers")):
            if numbers != self._numbers:
                yield from _read_rows(numbers)

    def _add(self, key: Key) -> int:
        if self._used + key.width > _SLOTS - _SCRAP:
            return _SLOTS - _SCRAP  # a label has too many values: what does not fit is not exposed
        place = super()._add(key)
        with self._names.open("ab") as names:  # the numbers are written before their name
            names.write(msgspec.json.encode(key) + b"\n")
        return place

    def _reserve(self, width: int) -> None:
        """Nothing to do: the file has a fixed size."""


def table() -> Table:
    """The table, shared if `serve` has set the directory."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    return SharedTable(Path(directory)) if directory and fcntl is not None else Table()


def _claim(directory: Path) -> tuple[Path, Path, int]:
    """The first file that no running process holds: (numbers, names, descriptor). The lock ends with the process."""
    number = 0
    while True:
        numbers = directory / f"{number}.numbers"
        descriptor = os.open(numbers, os.O_RDWR | os.O_CREAT, 0o600)
        if _locked(descriptor):
            os.truncate(descriptor, _SLOTS * _NUMBER_BYTES)  # sparse, so it takes no space
            return numbers, _names_of(numbers), descriptor
        os.close(descriptor)
        number += 1


def _locked(descriptor: int) -> bool:
    """Whether the file could be locked, since no other process holds it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _names_of(numbers: Path) -> Path:
    return numbers.with_suffix(".names")


def _read_keys(names: Path) -> list[Key]:
    text = names.read_bytes() if names.exists() else b""
    # an unfinished line is after the last line break
    return [msgspec.json.decode(line, type=Key) for line in text.split(b"\n")[:-1]]


def _read_rows(numbers: Path) -> Iterator[Row]:
    keys = _read_keys(_names_of(numbers))
    with numbers.open("rb") as file:
        ended = _locked(file.fileno())
        data = file.read(sum(key.width for key in keys) * _NUMBER_BYTES)
    values = list(memoryview(data).cast("d"))
    start = 0
    for key in keys:
        if key.lasting or not ended:
            yield key, values[start : start + key.width]
        start += key.width
