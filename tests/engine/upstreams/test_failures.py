"""Failures, before the first byte and after it."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from openai.types.responses import ResponseError as SdkError

from app.engine.upstreams import failures
from app.engine.upstreams.failures import ModelFailure
from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.wire.errors import ApiError, InvalidRequest, NotFound, RateLimited, Unavailable
from app.protocol.wire.response import ResponseError
from app.providers.base import UpstreamError, UpstreamProtocolError

CASES: list[tuple[UpstreamError, type[ApiError], int, str | None, str]] = [
    (
        UpstreamError("m", status=400, code="context_length_exceeded", param="input"),
        InvalidRequest,
        400,
        "context_length_exceeded",
        "invalid_prompt",
    ),
    (UpstreamError("m", status=404), NotFound, 404, "model_not_found", "server_error"),
    (
        UpstreamError("m", status=429, code="rate_limit_exceeded"),
        RateLimited,
        429,
        "rate_limit_exceeded",
        "rate_limit_exceeded",
    ),
    (UpstreamError("m", status=502, code="upstream_error"), Unavailable, 502, "upstream_error", "server_error"),
    (UpstreamError("m", status=503, retry_after=7), Unavailable, 503, None, "server_error"),
    (UpstreamError("m", status=504), Unavailable, 504, None, "server_error"),
    (UpstreamProtocolError("m"), Unavailable, 502, "upstream_protocol_error", "server_error"),
]


@pytest.mark.parametrize(("error", "kind", "status", "code", "inside"), CASES)
def test_a_failure_becomes_an_http_error_or_part_of_the_response(
    error: UpstreamError, kind: type[ApiError], status: int, code: str | None, inside: str
) -> None:
    answer = failures.to_api(error)
    assert type(answer) is kind
    assert (answer.status, answer.code, answer.param) == (status, code, error.param)
    assert error.message in answer.message
    assert failures.inside(error, "r") == ResponseError(inside, error.message)
    annotation: Any = SdkError.model_fields["code"].annotation
    assert inside in get_args(annotation)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InvalidRequest("No such tool.", code="unsupported_tool"), "invalid_prompt", "No such tool."),
        (ModelFailure("It did not call."), "server_error", "It did not call."),
        (InvalidArguments("f"), "server_error", str(InvalidArguments("f"))),
    ],
)
def test_a_failure_of_the_request_or_the_model_is_told(error: Exception, code: str, message: str) -> None:
    assert failures.inside(error, "r") == ResponseError(code, message)


def test_a_mistake_of_ours_is_for_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    told = failures.inside(RuntimeError("a secret"), "r-17")
    assert told == ResponseError("server_error", "The gateway failed while generating the response.")
    assert "r-17" in caplog.text
    assert "a secret" in caplog.text


@pytest.mark.parametrize(("asked", "told"), [(None, 1.0), (2.5, 2.5)])
def test_a_throttle_says_when_to_come_back(asked: float | None, told: float) -> None:
    answer = failures.to_api(UpstreamError("Slow down.", status=429, retry_after=asked))
    assert answer.retry_after == told
    assert answer.message == f"Slow down. Please try again in {told:g}s."


def test_a_wait_that_the_upstream_asks_for_is_passed_on() -> None:
    assert failures.to_api(CASES[4][0]).retry_after == 7


def test_a_plain_answer_that_failed_is_an_http_error() -> None:
    cause = UpstreamError("Slow down.", status=429)
    assert failures.plain(ResponseError("rate_limit_exceeded", "Slow down."), cause).status == 429
    ours = failures.plain(ResponseError("server_error", "The model did not call."), None)
    assert (ours.status, ours.code, ours.message) == (502, "server_error", "The model did not call.")


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (UpstreamError("m", status=502, code="upstream_authentication"), False),
        (UpstreamError("m", status=502, code="upstream_billing"), False),
        (UpstreamError("m", status=400), False),
        (UpstreamError("m", status=404), False),
        (UpstreamError("m", status=502, code="upstream_error", retryable=True), None),
        (UpstreamError("m", status=504, code="upstream_stalled"), None),
        (UpstreamError("m", status=503), None),
        (UpstreamError("m", status=429), None),
        (UpstreamProtocolError("m"), None),
    ],
)
def test_what_cannot_pass_is_not_worth_another_try(error: UpstreamError, *, retryable: bool | None) -> None:
    assert failures.to_api(error).retryable is retryable
    assert failures.plain(ResponseError("server_error", "m"), error).retryable is retryable
