"""What is counted: requests, tokens, times, state. Served at `/metrics` in the Prometheus format.

Counting happens on one thread, so it is a dictionary's addition; the library's own counters lock, which costs ten times as much.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app import __version__
from app.protocol.response import Usage

_MOST_MODELS = 200
_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600)


class _Counts(Collector):
    """A counter with labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._about = (name, text)
        self._labels = labels
        self._values: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def add(self, count: float, *labels: str) -> None:
        """Count."""
        self._values[labels] = self._values.get(labels, 0) + count

    def collect(self) -> Iterator[Metric]:
        """What is exposed."""
        family = CounterMetricFamily(*self._about, labels=self._labels)
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value)
        yield family


class _Times(Collector):
    """A histogram of seconds with labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._about = (name, text)
        self._labels = labels
        self._buckets: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def observe(self, seconds: float, *labels: str) -> None:
        """Count a duration."""
        buckets = self._buckets.get(labels)
        if buckets is None:
            buckets = self._buckets[labels] = [0] * (len(_SECONDS) + 1)
        buckets[bisect_left(_SECONDS, seconds)] += 1
        self._sums[labels] = self._sums.get(labels, 0) + seconds

    def collect(self) -> Iterator[Metric]:
        """What is exposed."""
        family = HistogramMetricFamily(*self._about, labels=self._labels)
        bounds = [*map(str, map(float, _SECONDS)), "+Inf"]
        for labels, buckets in list(self._buckets.items()):
            family.add_metric(labels, list(zip(bounds, accumulate(buckets), strict=True)), self._sums[labels])
        yield family


class Metrics:
    """The process's metrics."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        labels = ("model", "status", "stream")
        self._responses = _Counts("gateway_responses", "Responses by model, status and kind of answer.", labels, registry)
        self._tokens = _Counts(
            "gateway_tokens", "Tokens by model and direction, as upstreams reported them.", ("model", "direction"), registry
        )
        self._seconds = _Times("gateway_response_seconds", "From request to the end of the answer.", ("stream",), registry)
        self._first = _Times("gateway_first_token_seconds", "From request to the upstream's first answer.", (), registry)
        self._tools = _Counts(
            "gateway_tool_calls", "Calls of built-in tools that ran here, by how they ended.", ("tool", "status"), registry
        )
        self._tool_seconds = _Times("gateway_tool_seconds", "How long calls of built-in tools took.", ("tool",), registry)
        self._requests = _Counts(
            "gateway_http_requests", "HTTP requests by route, method and status.", ("route", "method", "status"), registry
        )
        self.upstream_failures = Counter("gateway_upstream_failures", "Failed upstream attempts.", ("upstream",), registry=registry)
        self.running = Gauge("gateway_responses_running", "Responses being generated now.", registry=registry)
        self.expired = Gauge("gateway_expired_responses", "Stored responses past their time that are not purged yet.", registry=registry)
        self.purged = Counter("gateway_purged_responses", "Stored responses removed after their time.", registry=registry)
        self.cache_failures = Gauge("gateway_cache_failures", "Failed operations on Redis since the start.", registry=registry)
        Gauge("gateway_build_info", "Always 1; the version is in the label.", ("version",), registry=registry).labels(__version__).set(1)
        self._models: set[str] = set()

    def responded(self, model: str, status: str, *, stream: bool, seconds: float, usage: Usage | None) -> None:
        """Count a response that ended."""
        if model not in self._models:
            # Clients choose model names: a label for each could fill the memory.
            model = "other" if len(self._models) >= _MOST_MODELS else model
            self._models.add(model)
        kind = "true" if stream else "false"
        self._responses.add(1, model, status, kind)
        self._seconds.observe(seconds, kind)
        if usage is not None:
            self._tokens.add(usage.input_tokens, model, "input")
            self._tokens.add(usage.output_tokens, model, "output")

    def first_token(self, seconds: float) -> None:
        """Note how long the upstream took to answer."""
        self._first.observe(seconds)

    def tool_called(self, tool: str, status: str, seconds: float) -> None:
        """Count a call of a built-in tool."""
        self._tools.add(1, tool, status)
        self._tool_seconds.observe(seconds, tool)

    def answered(self, route: str, method: str, status: int) -> None:
        """Count an HTTP request."""
        self._requests.add(1, route, method, str(status))

    def render(self) -> bytes:
        """The text for a scrape."""
        return generate_latest(self.registry)
