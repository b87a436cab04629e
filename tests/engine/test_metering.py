"""What is counted, as a scrape shows it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from app.engine.metering import Metrics
from app.protocol.response import InputTokensDetails, OutputTokensDetails, Usage

USAGE = Usage(10, InputTokensDetails(), 3, OutputTokensDetails(), 13)


def samples(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Label values -> value, of one sample name."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {tuple(value for _, value in sorted(s.labels.items())): s.value for family in families for s in family.samples if s.name == name}


def test_responses_and_their_tokens_are_counted() -> None:
    metrics = Metrics()
    metrics.responded("m", "completed", stream=True, seconds=0.1, usage=USAGE)
    metrics.responded("m", "completed", stream=True, seconds=0.1, usage=USAGE)
    metrics.responded("m", "failed", stream=False, seconds=0.1, usage=None)
    assert sorted(samples(metrics, "gateway_responses_total").values()) == [1, 2]
    assert sorted(samples(metrics, "gateway_tokens_total").values()) == [6, 20]
    assert sum(samples(metrics, "gateway_response_seconds_count").values()) == 3


def test_requests_and_first_tokens_are_counted() -> None:
    metrics = Metrics()
    for status in (200, 200, 404):
        metrics.answered("/v1/responses", "POST", status)
    metrics.first_token(0.2)
    assert samples(metrics, "gateway_http_requests_total") == {("POST", "/v1/responses", "200"): 2, ("POST", "/v1/responses", "404"): 1}
    assert samples(metrics, "gateway_first_token_seconds_count") == {(): 1}


def test_made_up_model_names_cannot_fill_the_memory() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.responded(f"model-{number}", "completed", stream=False, seconds=0.1, usage=None)
    counted = samples(metrics, "gateway_responses_total")
    assert len(counted) <= 201
    assert sum(counted.values()) == 1000
