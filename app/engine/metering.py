"""What is counted: requests, tokens, times, state. Served at `/metrics` in the Prometheus format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app import __version__
from app.protocol.response import Usage

_MOST_MODELS = 200
_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600)


class Metrics:
    """The process's metrics. Children of the labels that occur are kept, since looking them up costs more than counting."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._responses = Counter(
            "gateway_responses", "Responses by model, status and kind of answer.", ("model", "status", "stream"), registry=registry
        )
        self._tokens = Counter(
            "gateway_tokens", "Tokens by model and direction, as upstreams reported them.", ("model", "direction"), registry=registry
        )
        self._seconds = Histogram(
            "gateway_response_seconds", "From request to the end of the answer.", ("stream",), buckets=_SECONDS, registry=registry
        )
        self._first = Histogram(
            "gateway_first_token_seconds", "From request to the upstream's first answer.", buckets=_SECONDS, registry=registry
        )
        self.requests = Counter(
            "gateway_http_requests", "HTTP requests by route, method and status.", ("route", "method", "status"), registry=registry
        )
        self.upstream_failures = Counter("gateway_upstream_failures", "Failed upstream attempts.", ("upstream",), registry=registry)
        self.running = Gauge("gateway_responses_running", "Responses being generated now.", registry=registry)
        self.expired = Gauge("gateway_expired_responses", "Stored responses past their time that are not purged yet.", registry=registry)
        self.purged = Counter("gateway_purged_responses", "Stored responses removed after their time.", registry=registry)
        self.cache_failures = Gauge("gateway_cache_failures", "Failed operations on Redis since the start.", registry=registry)
        Gauge("gateway_build_info", "Always 1; the version is in the label.", ("version",), registry=registry).labels(__version__).set(1)
        self._models: set[str] = set()
        self._children: dict[tuple[int | str, ...], Counter] = {}
        self._durations = {stream: self._seconds.labels(str(stream).lower()) for stream in (True, False)}
        self._http: dict[tuple[str, str, int], Counter] = {}

    def responded(self, model: str, status: str, *, stream: bool, seconds: float, usage: Usage | None) -> None:
        """Count a response that ended."""
        if model not in self._models:
            # Clients choose model names: a label for each could fill the memory.
            model = "other" if len(self._models) >= _MOST_MODELS else model
            self._models.add(model)
        self._child(self._responses, model, status, "true" if stream else "false").inc()
        self._durations[stream].observe(seconds)
        if usage is not None:
            self._child(self._tokens, model, "input").inc(usage.input_tokens)
            self._child(self._tokens, model, "output").inc(usage.output_tokens)

    def first_token(self, seconds: float) -> None:
        """Note how long the upstream took to answer."""
        self._first.observe(seconds)

    def answered(self, route: str, method: str, status: int) -> None:
        """Count an HTTP request."""
        key = (route, method, status)
        child = self._http.get(key)
        if child is None:
            child = self._http[key] = self.requests.labels(route, method, str(status))
        child.inc()

    def render(self) -> bytes:
        """The text for a scrape."""
        return generate_latest(self.registry)

    def _child(self, counter: Counter, *labels: str) -> Counter:
        key = (id(counter), *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = counter.labels(*labels)
        return child
