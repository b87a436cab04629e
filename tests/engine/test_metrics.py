"""What is counted, as a scrape shows it."""

from __future__ import annotations

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from app.engine.metrics import Metrics, ResponseMeter
from app.protocol.wire.items import FunctionCallItem
from app.protocol.wire.response import InputTokensDetails, OutputTokensDetails, Response, Usage
from app.providers.base import UpstreamError
from app.telemetry.request import RequestSummary, current

USAGE = Usage(10, InputTokensDetails(4), 3, OutputTokensDetails(2), 13)
DONE = Response(id="r", created_at=0, status="completed", model="m", usage=USAGE)


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Label values -> value, of one sample name."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        tuple(value for _, value in sorted(s.labels.items())): s.value
        for family in families
        for s in family.samples
        if s.name == name
    }


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def respond(metrics: Metrics, response: Response, *, model: str = "m", failure: str | None = None) -> RequestSummary:
    """A streamed response whose first token takes half a second, and which takes two; its request's summary."""
    clock = Clock()
    summary = RequestSummary("req")
    token = current.set(summary)
    meter = ResponseMeter(metrics, clock, clock(), stream=True)
    clock.now += 0.5
    meter.accepted(model, "u")
    clock.now += 1.5
    if failure is not None:
        meter.failed(failure, "It failed.")
    meter.ended(response)
    current.reset(token)
    return summary


def test_responses_and_their_tokens_are_counted() -> None:
    metrics = Metrics()
    respond(metrics, DONE)
    respond(metrics, DONE)
    respond(metrics, msgspec.structs.replace(DONE, status="failed", usage=None), failure="upstream_stalled")

    assert samples(metrics, "gateway_responses_total") == {
        ("", "m", "completed", "true", "u"): 2,
        ("upstream_stalled", "m", "failed", "true", "u"): 1,
    }
    tokens = {kind: value for (kind, *_), value in samples(metrics, "gateway_tokens_total").items()}
    assert tokens == {"input": 20, "cached": 8, "output": 6, "reasoning": 4}
    assert samples(metrics, "gateway_response_seconds_sum") == {("m", "true", "u"): 6}
    assert samples(metrics, "gateway_first_token_seconds_sum") == {("m", "u"): 1.5}
    assert samples(metrics, "gateway_time_per_token_seconds_sum") == {("m", "u"): 1.5}


def test_the_summary_says_what_a_response_was() -> None:
    call = FunctionCallItem(id="fc", status="completed", call_id="c", name="f", arguments="{}")
    metrics = Metrics()
    summary = respond(metrics, msgspec.structs.replace(DONE, output=(call,)), failure="model_failure")

    assert (summary.upstream, summary.first_token_ms, summary.outcome, summary.tool_calls) == ("u", 500, "completed", 1)
    assert (summary.input_tokens, summary.cached_tokens, summary.output_tokens, summary.reasoning_tokens) == (
        10,
        4,
        3,
        2,
    )
    assert (summary.code, summary.reason) == ("model_failure", "It failed.")
    assert not samples(metrics, "gateway_time_per_token_seconds_count")  # the client's tools took part of the time


def test_requests_are_counted_with_their_error() -> None:
    metrics = Metrics()
    for status, code in ((200, None), (200, None), (404, "response_not_found")):
        token = current.set(RequestSummary("req", code=code))
        metrics.answered("/v1/responses", "POST", status)
        current.reset(token)
    assert samples(metrics, "gateway_http_requests_total") == {
        ("", "POST", "/v1/responses", "200"): 2,
        ("response_not_found", "POST", "/v1/responses", "404"): 1,
    }


def test_a_failure_is_counted_at_the_upstream_that_failed() -> None:
    metrics = Metrics()
    metrics.upstream_failed("a", UpstreamError("Busy.", status=503, code="server_is_overloaded"))
    metrics.upstream_failed("b", UpstreamError("Gone.", status=503, code="upstream_unreachable"))
    assert samples(metrics, "gateway_upstream_failures_total") == {
        ("server_is_overloaded", "a"): 1,
        ("upstream_unreachable", "b"): 1,
    }


def test_made_up_names_cannot_fill_the_memory() -> None:
    metrics = Metrics()
    metrics.is_listed = "listed".__eq__
    for number in range(1000):
        respond(metrics, DONE, model=f"model-{number}", failure=f"code-{number}")
    respond(metrics, DONE, model="listed")
    counted = samples(metrics, "gateway_responses_total")
    assert len({model for _, model, *_ in counted}) == 52
    assert len({code for code, *_ in counted}) <= 102
    assert sum(counted.values()) == 1001
    assert ("listed", "u") in samples(metrics, "gateway_response_seconds_count") or ("listed", "true", "u") in samples(
        metrics, "gateway_response_seconds_count"
    )
