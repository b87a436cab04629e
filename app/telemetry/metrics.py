"""Counters, gauges and histograms in a `Table`, exposed by the Prometheus client.

The client's own metrics take a lock for each addition, and in multiprocess mode also write to a file, which costs ten
times as much.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from operator import add
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.telemetry.table import Key, Table

Labels = tuple[str, ...]
Merged = Mapping[Labels, Sequence[float]]
Read = Callable[[], Mapping[Labels, float]]
Merge = Callable[[float, float], float]


class _Family:
    """One metric, exposed as a gauge unless a subclass differs; `_width` numbers for each combination of labels."""

    def __init__(self, table: Table, name: str, text: str, labels: Labels) -> None:
        self.name = name
        self._text = text
        self.labels = labels
        self._width, self._lasting = 1, True
        self.merge: Merge = add
        """Merges the numbers of two processes."""
        self._table = table
        self._values = table.values
        self._places: dict[Labels, int] = {}

    def place(self, labels: Labels) -> int:
        """The position of the numbers for these labels."""
        place = self._places[labels] = self._table.place(Key(self.name, labels, self._width, self._lasting))
        return place

    def metric(self, merged: Merged) -> Metric:
        """The metric as exposed to Prometheus."""
        family = GaugeMetricFamily(self.name, self._text, labels=self.labels)
        for labels, values in merged.items():
            family.add_metric(labels, values[0])
        return family


_F = TypeVar("_F", bound=_Family)


class Counter(_Family):
    """Counts up."""

    _followed: Callable[[], float] | None = None
    _seen = 0.0

    def follow(self, read: Callable[[], float]) -> None:
        """Mirror another counter of this process; it is read whenever gauges are."""
        self._followed = read

    def sample(self) -> None:
        """Read the followed counter."""
        if self._followed is not None:
            now = self._followed()
            self.add(now - self._seen)
            self._seen = now

    def add(self, count: float, *labels: str) -> None:
        """Count."""
        place = self._places.get(labels)
        self._values[self.place(labels) if place is None else place] += count

    def add_each(self, counts: Iterable[float], places: Iterable[int]) -> None:
        """Count at several places, which the caller has looked up once."""
        values = self._values
        for place, count in zip(places, counts, strict=True):
            values[place] += count

    def metric(self, merged: Merged) -> Metric:
        """The metric as exposed to Prometheus."""
        family = CounterMetricFamily(self.name, self._text, labels=self.labels)
        for labels, values in merged.items():
            family.add_metric(labels, values[0])
        return family


class Gauge(_Family):
    """A value read on demand; other processes see the last value read."""

    def __init__(self, table: Table, name: str, text: str, labels: Labels) -> None:
        super().__init__(table, name, text, labels)
        self._lasting = False
        self._read: Read = dict

    def set_function(self, read: Read) -> None:
        """Set the function that returns the numbers by label values."""
        self._read = read

    def sample(self) -> None:
        """Read."""
        for labels, value in self._read().items():
            place = self._places.get(labels)
            self._values[self.place(labels) if place is None else place] = value


class Histogram(_Family):
    """Durations in seconds: the count up to each bound, and their sum."""

    def __init__(self, table: Table, name: str, text: str, labels: Labels, bounds: Sequence[float]) -> None:
        super().__init__(table, name, text, labels)
        self._bounds = bounds
        self._width = len(bounds) + 2

    def observe(self, seconds: float, *labels: str) -> None:
        """Count a duration."""
        place = self._places.get(labels)
        if place is None:
            place = self.place(labels)
        values = self._values
        values[place + bisect_left(self._bounds, seconds)] += 1
        values[place + self._width - 1] += seconds

    def metric(self, merged: Merged) -> Metric:
        """The metric as exposed to Prometheus."""
        family = HistogramMetricFamily(self.name, self._text, labels=self.labels)
        names = [*map(str, map(float, self._bounds)), "+Inf"]
        for labels, values in merged.items():
            family.add_metric(labels, list(zip(names, accumulate(values[:-1]), strict=True)), values[-1])
        return family


class Registry(Collector):
    """All metrics of the server."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._families: dict[str, _Family] = {}
        self._exposed = CollectorRegistry()
        self._exposed.register(self)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """A counter; `name` is without `_total`."""
        return self._add(Counter(self._table, name, text, labels))

    def gauge(self, name: str, text: str, *labels: str, merge: Merge = add) -> Gauge:
        """A gauge; for several processes the sum, or another `merge` of two numbers."""
        gauge = self._add(Gauge(self._table, name, text, labels))
        gauge.merge = merge
        return gauge

    def histogram(self, name: str, text: str, *labels: str, bounds: Sequence[float]) -> Histogram:
        """A histogram of seconds."""
        return self._add(Histogram(self._table, name, text, labels, bounds))

    def sample(self) -> None:
        """Read all gauges and followed counters, for other processes to see."""
        for family in self._families.values():
            if isinstance(family, Gauge | Counter):
                family.sample()

    def collect(self) -> Iterator[Metric]:
        """The exposed metrics, of all processes together."""
        self.sample()
        merged: dict[str, dict[Labels, list[float]]] = defaultdict(dict)
        for key, values in self._table.rows():
            family, known = self._families.get(key.name), merged[key.name].get(key.labels)
            if family is not None:
                merged[key.name][key.labels] = values if known is None else list(map(family.merge, known, values))
        for name, family in self._families.items():
            yield family.metric(merged[name])

    def describe(self) -> Sequence[Metric]:
        """Nothing to check at registration: the names are this module's."""
        return ()

    def render(self) -> bytes:
        """The text for a scrape."""
        return generate_latest(self._exposed)

    @property
    def names(self) -> Mapping[str, Labels]:
        """Every sample name that a scrape may contain, and its labels."""
        return {name: family.labels for family in self._families.values() for name in _sample_names(family)}

    def _add(self, family: _F) -> _F:
        self._families[family.name] = family
        if not family.labels and not isinstance(family, Gauge):
            family.place(())  # shown from the start: events that have not happened yet are 0, not missing
        return family


def _sample_names(family: _Family) -> Sequence[str]:
    match family:
        case Counter():
            return (f"{family.name}_total",)
        case Histogram():
            return [f"{family.name}_{part}" for part in ("bucket", "count", "sum")]
        case _:
            return (family.name,)
