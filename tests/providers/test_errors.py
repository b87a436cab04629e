"""What upstream error bodies become."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.providers.base import ModelCall, UpstreamError
from app.providers.dashscope import PROVIDER as DASHSCOPE
from app.providers.errors import error_from_reply, error_in_stream
from app.providers.openai import PROVIDER as OPENAI
from app.providers.spec import ProviderSpec
from tests.providers.chat_upstream import HELLO, ask
from tests.support.script import Reply
from tests.support.upstream import ScriptedUpstream


def nested(message: str, code: Any = None, kind: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}, "request_id": "r-1"}


def flat(message: str, code: Any = None, kind: str | None = None) -> dict[str, Any]:
    return {"code": code, "type": kind, "message": message, "request_id": "r-1"}


def mapped(status: int, body: dict[str, Any] | bytes, **headers: str) -> UpstreamError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_from_reply(status, names, body if isinstance(body, bytes) else json.dumps(body).encode())


REJECTED = [
    (400, nested("Model not exist.", "invalid_parameter_error"), 404, "model_not_found", "model"),
    (
        404,
        nested("Unsupported model `x` for OpenAI compatibility mode.", "model_not_found"),
        404,
        "model_not_found",
        "model",
    ),
    (404, nested("The model `x` does not exist.", 404, "NotFoundError"), 404, "model_not_found", "model"),
    (404, nested("model 'x' not found, try pulling it first", None, "api_error"), 404, "model_not_found", "model"),
    (
        400,
        nested("Range of input length should be [1, 98304]", "invalid_parameter_error"),
        400,
        "context_length_exceeded",
        "input",
    ),
    (
        400,
        nested("request (9 tokens) exceeds the available context size", 400, "exceed_context_size_error"),
        400,
        "context_length_exceeded",
        "input",
    ),
    (
        400,
        nested("This model's maximum context length is 4096 tokens.", 400, "BadRequestError"),
        400,
        "context_length_exceeded",
        "input",
    ),
    (
        400,
        flat("The input (9 tokens) is longer than the model's context length (8 tokens).", 400),
        400,
        "context_length_exceeded",
        "input",
    ),
    (
        400,
        nested("Range of max_tokens should be [1, 8192]", "invalid_parameter_error"),
        400,
        "invalid_value",
        "max_output_tokens",
    ),
    (
        400,
        nested(
            "'max_tokens' or 'max_completion_tokens' is too large: 9. This model's maximum context length is 8 tokens.",
            400,
        ),
        400,
        "invalid_value",
        "max_output_tokens",
    ),
    (
        400,
        nested("Input data may contain inappropriate content.", "data_inspection_failed"),
        400,
        "content_policy_violation",
        "input",
    ),
    (400, flat("Blocked.", "DataInspectionFailed"), 400, "content_policy_violation", "input"),
    (400, flat("Download timed out.", "InvalidParameter.DataInspection"), 400, "InvalidParameter.DataInspection", None),
    (
        500,
        nested("image input is not supported - hint: you may need to provide the mmproj", 500, "server_error"),
        400,
        "unsupported_image",
        "input",
    ),
    (422, {"detail": "Field required"}, 400, "upstream_rejected", None),
    (400, nested("'messages' is required", 400, "invalid_request_error"), 400, "upstream_rejected", None),
    (
        500,
        nested("<400> InternalError.Algo.InvalidParameter: Bad tool.", "internal_error"),
        400,
        "internal_error",
        None,
    ),
]


@pytest.mark.parametrize(("status", "body", "answer", "code", "param"), REJECTED)
def test_mistakes_of_the_request_stay_the_clients(
    status: int, body: dict[str, Any], answer: int, code: str, param: str | None
) -> None:
    error = mapped(status, body)

    assert (error.status, error.code, error.param, error.retryable) == (answer, code, param, False)


OPERATORS = [
    (401, nested("Incorrect API key provided: sk-abcdefgh.", "invalid_api_key"), "upstream_authentication"),
    (401, flat("No API-key provided.", "InvalidApiKey"), "upstream_authentication"),
    (403, flat("Access denied.", "AccessDenied"), "upstream_authentication"),
    (403, flat("Please purchase.", "AccessDenied.Unpurchased"), "upstream_billing"),
    (402, nested("Insufficient Balance", "invalid_request_error"), "upstream_billing"),
    (403, nested("Sorry, your account balance is insufficient.", ""), "upstream_billing"),
    (501, nested("This server does not support tools.", "not_supported_error"), "upstream_unsupported"),
    (400, flat("Access denied, please make sure your account is in good standing.", "Arrearage"), "upstream_billing"),
    (403, flat("The free tier is used up.", "AllocationQuota.FreeTierOnly"), "upstream_billing"),
    (429, nested("Free allocated quota exceeded.", "insufficient_quota"), "upstream_billing"),
    (429, flat("Overdue.", "PostpaidBillOverdue"), "upstream_billing"),
    (429, flat("Not bought.", "CommodityNotPurchased"), "upstream_billing"),
    (404, nested("File Not Found", 404, "not_found_error"), "upstream_error"),
    (405, flat("Method 'GET' is not allowed.", "Method Not Allowed"), "upstream_error"),
    (302, b"", "upstream_error"),
]


@pytest.mark.parametrize(("status", "body", "code"), OPERATORS)
def test_the_operators_mistakes_are_not_the_clients(status: int, body: dict[str, Any] | bytes, code: str) -> None:
    error = mapped(status, body)

    assert (error.status, error.code, error.retryable, error.retry_after) == (502, code, False, None)


PASSING = [
    (429, flat("Slow down.", "Throttling.RateQuota"), 429, "rate_limit_exceeded", 1.0),
    (
        429,
        nested("You exceeded your current quota, please check your plan.", "insufficient_quota"),
        429,
        "rate_limit_exceeded",
        1.0,
    ),
    (400, flat("Too fast.", "LimitRequests"), 429, "rate_limit_exceeded", 1.0),
    (403, nested("Burst.", "limit_burst_rate"), 429, "rate_limit_exceeded", 1.0),
    (429, b"slow down", 429, "rate_limit_exceeded", 1.0),
    (
        500,
        flat("Requests are being throttled due to system capacity limits.", "ServiceUnavailable"),
        503,
        "server_is_overloaded",
        None,
    ),
    (503, nested("Loading model", 503, "unavailable_error"), 503, "server_is_overloaded", None),
    (500, flat("Timed out.", "RequestTimeOut"), 504, "upstream_timeout", None),
    (504, b"<html>", 504, "upstream_timeout", None),
    (500, nested("list index out of range", "internal_error"), 502, "upstream_error", None),
    (502, b"<html>Bad Gateway</html>", 502, "upstream_error", None),
]


@pytest.mark.parametrize(("status", "body", "answer", "code", "wait"), PASSING)
def test_what_passes_may_be_tried_again(
    status: int, body: dict[str, Any] | bytes, answer: int, code: str, wait: float | None
) -> None:
    error = mapped(status, body)

    assert (error.status, error.code, error.retryable, error.retry_after) == (answer, code, True, wait)


SPENT = nested(
    "You exceeded your current quota, please check your plan and billing details.",
    "insufficient_quota",
    "insufficient_quota",
)
"""OpenAI's sentence for a balance that is spent, and DashScope's for a limit of the minute."""


def test_a_spent_quota_is_no_limit_that_passes() -> None:
    body = json.dumps(SPENT).encode()

    for error in (
        error_from_reply(429, {"retry-after": "7"}, body, quota_passes=False),
        error_in_stream(body, quota_passes=False),
    ):
        assert (error.status, error.code, error.retryable, error.retry_after) == (502, "upstream_billing", False, None)
    for error in (error_from_reply(429, {}, body), error_in_stream(body)):
        assert (error.status, error.code, error.retryable, error.retry_after) == (429, "rate_limit_exceeded", True, 1.0)


def test_a_quota_without_that_sentence_may_be_a_limit() -> None:
    error = error_from_reply(
        429, {}, json.dumps(nested("Slow down.", "insufficient_quota")).encode(), quota_passes=False
    )

    assert (error.status, error.code, error.retryable) == (429, "rate_limit_exceeded", True)


@pytest.mark.parametrize("status", [200, 429])
@pytest.mark.parametrize(
    ("spec", "code"), [(OPENAI, "upstream_billing"), (DASHSCOPE, "rate_limit_exceeded")], ids=["openai", "dashscope"]
)
async def test_which_upstreams_call_a_limit_a_quota(
    upstream: ScriptedUpstream, spec: ProviderSpec, code: str, status: int
) -> None:
    upstream.script(Reply.error(status, SPENT))

    with pytest.raises(UpstreamError) as caught:
        await ask(spec, upstream, ModelCall(model="m", messages=HELLO))

    assert caught.value.code == code


def test_the_upstream_says_when() -> None:
    assert mapped(429, b"", retry_after="7").retry_after == 7
    assert mapped(503, b"", retry_after="30").retry_after == 30
    assert mapped(429, b"", retry_after="9", retry_after_ms="1500").retry_after == 1.5
    assert mapped(429, b"", retry_after="Wed, 21 Oct 2026 07:28:00 GMT").retry_after == 1


MESSAGES = {
    "<400> InternalError.Algo.InvalidParameter: Bad tool.": "Bad tool.",
    "Model not exist. For details, see: https://help.example.com/errors#x": "Model not exist.",
    "Bad value, please refer to https://help.example.com/a": "Bad value",
    "Incorrect key sk-abc***def given.": "Incorrect key [key] given.",
    "Failed (request id: 0f2d-4a-11).": "Failed.",
    "Failed. Request ID: b8c4f2d0-1111-2222": "Failed.",
    "": "The upstream answered with status 400.",
}


@pytest.mark.parametrize(("said", "shown"), MESSAGES.items())
def test_the_vendors_sentence_without_its_secrets(said: str, shown: str) -> None:
    assert mapped(400, nested(said)).message == shown


def test_an_authentication_error_says_whose_key() -> None:
    assert (
        mapped(401, flat("Invalid API-key provided.")).message
        == "The upstream refused the gateway's credentials: Invalid API-key provided."
    )


def test_markup_is_never_shown() -> None:
    assert mapped(502, b"<html>internal-host-7</html>").message == "The upstream answered with status 502."


def test_an_endless_message_is_cut() -> None:
    assert len(mapped(400, nested("x" * 1_000_000)).message) == 2000


MISSING: dict[str, Any] = {
    "loc": ["body", "messages", 0, "content"],
    "msg": "Field required",
    "type": "missing",
    "input": {},
}
TOO_HOT: dict[str, Any] = {
    "loc": ["body", "temperature"],
    "msg": "Input should be less than or equal to 2",
    "type": "less_than_equal",
    "ctx": {"le": 2},
}


COMPLAINTS: list[tuple[Any, str, str | None]] = [
    ({"detail": [MISSING]}, "messages.0.content: Field required", "input"),
    (
        {"detail": [TOO_HOT, MISSING]},
        "temperature: Input should be less than or equal to 2; messages.0.content: Field required",
        "temperature",
    ),
    ({"detail": [{**TOO_HOT, "loc": ["body"]}]}, "Input should be less than or equal to 2", None),
    (
        {"detail": [{**TOO_HOT, "loc": ["body", "max_tokens"]}]},
        "max_tokens: Input should be less than or equal to 2",
        "max_output_tokens",
    ),
    ({"detail": {"message": "Too hot."}}, "Too hot", None),
    ({"detail": {"error": {"message": "Too hot."}}}, "Too hot", None),
    ({"detail": ["Too hot.", "Too long."]}, "Too hot.; Too long", None),
    ({"detail": [{"nothing": 1}]}, "The upstream answered with status 422", None),
    ({"error": {"message": [MISSING]}}, "messages.0.content: Field required", None),
    ({"error": {"message": "Too hot.", "param": "temperature"}}, "Too hot", "temperature"),
    ({"error": {"message": "Bad.", "param": "messages[0].content"}}, "Bad", "input"),
    ([{"error": {"message": "Too hot.", "code": 422}}], "Too hot", None),
    ({"msg": "Too hot."}, "Too hot", None),
]


@pytest.mark.parametrize(("body", "message", "param"), COMPLAINTS)
def test_complaints_are_put_into_a_sentence(body: Any, message: str, param: str | None) -> None:
    error = mapped(422, json.dumps(body).encode())

    assert (error.status, error.message.rstrip("."), error.param) == (400, message, param)


def test_complaints_inside_a_stream_are_the_requests_fault() -> None:
    error = error_in_stream(json.dumps({"detail": [TOO_HOT]}).encode())

    assert (error.status, error.code, error.param) == (400, "upstream_rejected", "temperature")


def test_a_nest_of_errors_ends() -> None:
    body: Any = "deep"
    for _ in range(500):
        body = {"error": body}

    assert mapped(400, json.dumps(body).encode()).status == 400


IN_STREAM = [
    ({"error": {"message": "bad", "code": 400}}, None, 400),
    (flat("Bad.", "InvalidParameter"), None, 400),
    (flat("No.", "InvalidApiKey"), None, 502),
    (flat("No.", "Model.AccessDenied"), None, 502),
    (flat("Wait.", "Throttling"), 200, 429),
    (flat("Bad.", "Odd"), 400, 400),
    ({"error": "boom"}, None, 502),
    ({"status": "failed", "error": {"message": "Unsupported model: 'x'", "code": "InvalidParameter"}}, None, 404),
]


@pytest.mark.parametrize(("body", "status", "answer"), IN_STREAM)
def test_errors_without_a_status_of_their_own(body: dict[str, Any], status: int | None, answer: int) -> None:
    assert error_in_stream(json.dumps(body).encode(), status).status == answer
