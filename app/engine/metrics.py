"""The metrics: requests, tokens, times, state. Served at `/metrics` in the Prometheus format and listed in
`docs/operations.md`.

Counting happens on one thread, so it is a plain addition; `app.telemetry.table` merges the numbers of several
processes.
"""

from __future__ import annotations

from collections.abc import Callable

from app import __version__
from app.protocol.wire.items import OutputItem
from app.protocol.wire.response import Response, Usage
from app.providers.base import UpstreamError
from app.telemetry import process
from app.telemetry.metrics import Labels, Registry
from app.telemetry.request import current
from app.telemetry.table import Table

_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1)
_STORE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_MOST_UNLISTED = 50
_MOST_CODES = 100
_OTHER = "other"
_KINDS = ("input", "cached", "output", "reasoning")
"""Of tokens."""


class _Bounded:
    """Bounds the values of a label that others choose: further ones become `other`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._told: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._told:
            return value
        if len(self._told) >= self._most:
            return _OTHER
        self._told.add(value)
        return value


class Metrics:
    """The server's metrics."""

    def __init__(self, table: Table | None = None) -> None:
        """`table`: the numbers shared with other processes, if there are any."""
        self.registry = registry = Registry(table or Table())
        self.is_listed: Callable[[str], bool] = lambda _: False
        """Whether an upstream lists the model. Other names, which clients can make up, are limited in number."""
        self._unlisted = _Bounded(_MOST_UNLISTED)
        self._code = _Bounded(_MOST_CODES)
        self._count_responses(registry)
        self._count_service(registry)
        self._count_storage(registry)
        self._read_process(registry)

    def _count_responses(self, registry: Registry) -> None:
        where = ("model", "upstream")
        self._responses = registry.counter(
            "gateway_responses", "Finished responses, by status.", *where, "status", "code", "stream"
        )
        self._tokens = registry.counter(
            "gateway_tokens",
            "Tokens as upstreams reported them; cached ones are also input, reasoning ones also output.",
            *where,
            "kind",
        )
        self._token_places: dict[tuple[str, str], list[int]] = {}
        """For each model and upstream, where its tokens are counted, in the order of `_KINDS`."""
        self._seconds = registry.histogram(
            "gateway_response_seconds", "From request to the end of the answer.", *where, "stream", bounds=_SECONDS
        )
        self._first = registry.histogram(
            "gateway_first_token_seconds", "From request to the upstream's first answer.", *where, bounds=_SECONDS
        )
        self._per_token = registry.histogram(
            "gateway_time_per_token_seconds",
            "Mean time between the tokens of a streamed response.",
            *where,
            bounds=_TOKEN_SECONDS,
        )
        self._tools = registry.counter(
            "gateway_tool_calls", "Calls of built-in tools that ran here, by status.", "tool", "status"
        )
        self._tool_seconds = registry.histogram(
            "gateway_tool_seconds", "How long calls of built-in tools took.", "tool", bounds=_SECONDS
        )

    def _count_service(self, registry: Registry) -> None:
        self._requests = registry.counter(
            "gateway_http_requests", "HTTP requests by status.", "route", "method", "status", "code"
        )
        self._failures = registry.counter(
            "gateway_upstream_failures", "Failed attempts and interrupted answers, by upstream.", "upstream", "code"
        )
        self._taken_over = registry.counter(
            "gateway_background_takeovers",
            "Background responses taken over from another process, by what was done.",
            "how",
        )
        self._lost = registry.counter(
            "gateway_background_losses", "Background responses that another process has taken over."
        )
        self.running = registry.gauge("gateway_responses_running", "Responses being generated.")
        self.background = registry.gauge(
            "gateway_background_responses_running", "Background responses being generated."
        )
        self.waiting = registry.gauge(
            "gateway_background_responses_waiting", "Background responses that wait, of all processes.", merge=max
        )
        self.streams = registry.gauge("gateway_streams_open", "Open streams of new responses.")

    def _count_storage(self, registry: Registry) -> None:
        self._store = registry.histogram(
            "gateway_store_seconds", "Duration of database operations.", "operation", bounds=_STORE_SECONDS
        )
        self._store_failures = registry.counter("gateway_store_failures", "Failed database operations.", "operation")
        self._log = registry.histogram(
            "gateway_event_log_seconds",
            "Duration of operations of the log of live streams.",
            "operation",
            bounds=_STORE_SECONDS,
        )
        self._log_failures = registry.counter(
            "gateway_event_log_failures", "Failed operations of the log of live streams.", "operation"
        )
        self._purged = registry.counter("gateway_purged_responses", "Expired stored responses that were deleted.")
        self.connections = registry.gauge(
            "gateway_database_connections", "Connections of the database's pool.", "state"
        )
        self.pool_size = registry.gauge("gateway_database_pool_size", "Maximum number of connections in the pool.")
        self.expired = registry.gauge(
            "gateway_expired_responses", "Expired stored responses not deleted yet.", merge=max
        )
        self.cache_failures = registry.gauge("gateway_cache_failures", "Failed Redis operations since the start.")

    def _read_process(self, registry: Registry) -> None:
        def only(read: Callable[[], float]) -> Callable[[], dict[Labels, float]]:
            return lambda: {(): read()}

        registry.counter("gateway_process_cpu_seconds", "CPU time used.").follow(process.cpu_seconds)
        memory = registry.gauge("gateway_process_resident_memory_bytes", "Memory in use.")
        memory.set_function(only(process.resident_bytes))
        descriptors = registry.gauge("gateway_process_open_fds", "Open files and sockets.")
        descriptors.set_function(only(process.open_descriptors))
        most = registry.gauge("gateway_process_max_fds", "Maximum number of open files and sockets.")
        most.set_function(only(process.most_descriptors))
        registry.gauge("gateway_workers", "Running worker processes.").set_function(only(lambda: 1.0))
        registry.gauge(
            "gateway_build_info", "The version, as a label; the value is 1.", "version", merge=max
        ).set_function(lambda: {(__version__,): 1.0})

    def model(self, name: str) -> str:
        """The label of a model that an upstream has answered for."""
        return name if self.is_listed(name) else self._unlisted(name)

    def answered(self, route: str, method: str, status: int) -> None:
        """Count an HTTP request; the error code is from the request's summary."""
        code = current.get().code
        self._requests.add(1, route, method, str(status), self._code(code) if code else "")

    def upstream_failed(self, upstream: str, error: UpstreamError) -> None:
        """Count a failure of an upstream."""
        self._failures.add(1, upstream, self._code(error.code or "upstream_error"))
        current.get().upstream = upstream

    def tool_called(self, tool: str, status: str, seconds: float) -> None:
        """Count a call of a built-in tool."""
        self._tools.add(1, tool, status)
        self._tool_seconds.observe(seconds, tool)

    def stored(self, operation: str, seconds: float, *, failed: bool) -> None:
        """Count an operation of the database."""
        self._store.observe(seconds, operation)
        if failed:
            self._store_failures.add(1, operation)

    def logged(self, operation: str, seconds: float, *, failed: bool) -> None:
        """Count an operation of the log of live streams."""
        self._log.observe(seconds, operation)
        if failed:
            self._log_failures.add(1, operation)

    def taken_over(self, how: str) -> None:
        """Count a background response of an owner that is gone: `repeated` from its beginning, or `ended`."""
        self._taken_over.add(1, how)

    def lost(self) -> None:
        """Count a background response that is generated by another process now."""
        self._lost.add(1)

    def purged(self, count: int) -> None:
        """Count expired responses that were deleted."""
        self._purged.add(count)

    def first_token(self, seconds: float, *where: str) -> None:
        """Record the time until the upstream began to answer. `where`: model and upstream, here and below."""
        self._first.observe(seconds, *where)

    def responded(self, response: Response, seconds: float, code: str, where: tuple[str, str], *, stream: bool) -> None:
        """Count a finished response; `code` is the error code if it failed, otherwise empty."""
        kind = "true" if stream else "false"
        self._responses.add(1, *where, response.status, self._code(code) if code else "", kind)
        self._seconds.observe(seconds, *where, kind)
        if response.usage is not None:
            self._count_tokens(response.usage, where)

    def per_token(self, seconds: float, *where: str) -> None:
        """Record the mean time between two tokens."""
        self._per_token.observe(seconds, *where)

    def _count_tokens(self, usage: Usage, where: tuple[str, str]) -> None:
        places = self._token_places.get(where)
        if places is None:
            places = self._token_places[where] = [self._tokens.place((*where, kind)) for kind in _KINDS]
        cached, reasoning = usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens
        self._tokens.add_each((usage.input_tokens, cached, usage.output_tokens, reasoning), places)

    def render(self) -> bytes:
        """The text for a scrape."""
        return self.registry.render()


class ResponseMeter:
    """Measures one response, for the metrics and for the request's line in the log."""

    __slots__ = ("_began", "_clock", "_code", "_first", "_metrics", "_stream", "_where")

    def __init__(self, metrics: Metrics, clock: Callable[[], float], began: float, *, stream: bool) -> None:
        """`clock` returns seconds; `began` is its value at the start."""
        self._metrics = metrics
        self._clock = clock
        self._began = began
        self._stream = stream
        self._first: float | None = None
        self._code = ""
        self._where = (_OTHER, "")

    def accepted(self, model: str, upstream: str) -> None:
        """The upstream has begun to answer."""
        self._first = first = self._clock() - self._began
        self._where = (self._metrics.model(model), upstream)
        self._metrics.first_token(first, *self._where)
        summary = current.get()
        summary.upstream, summary.first_token_ms = upstream, int(first * 1000)

    def failed(self, code: str, reason: str | None) -> None:
        """The response fails; see `RequestSummary.fail`."""
        self._code = code
        current.get().fail(code, reason)

    def ended(self, response: Response) -> None:
        """The response is over."""
        seconds, usage, summary = self._clock() - self._began, response.usage, current.get()
        self._metrics.responded(response, seconds, self._code, self._where, stream=self._stream)
        summary.outcome = response.status
        if self._first is not None:
            summary.upstream = self._where[1]  # a tool's question may have failed at another upstream since
        summary.tool_calls = sum(map(_is_call, response.output))
        if usage is None:
            return
        summary.input_tokens, summary.cached_tokens = usage.input_tokens, usage.input_tokens_details.cached_tokens
        summary.output_tokens, summary.reasoning_tokens = (
            usage.output_tokens,
            usage.output_tokens_details.reasoning_tokens,
        )
        if self._stream and self._first is not None and usage.output_tokens > 1 and not summary.tool_calls:
            self._metrics.per_token((seconds - self._first) / (usage.output_tokens - 1), *self._where)


def _is_call(item: OutputItem) -> bool:
    tag = item.__struct_config__.tag
    return isinstance(tag, str) and tag.endswith("_call")
