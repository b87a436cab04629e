"""An upstream that fails, in every way it can: an HTTP error before the first byte, a closed stream after it, never a
hang.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.e2e_dialects import ask, error_of, function, post, refused, sent, streamed, text_of
from tests.support.gateway import Gateway
from tests.support.script import Call, Cut, Gate, Piece, Raw, Reply, Text, Thought
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]
HASTY = "hasty/other"
"""One try, short time limits, plain answers asked for whole."""
HASTY_STREAMED = "hasty-dashscope/qwen-plus"
"""One try, short time limits, plain answers asked for as streams."""


def failure(message: str, **fields: Any) -> Json:
    return {"error": {"message": message, "type": "error", "param": None, "code": None, **fields}}


REFUSALS: list[tuple[int, Json, int, str, str]] = [
    (
        400,
        failure("Bad thing.", code="invalid_parameter_error"),
        400,
        "invalid_request_error",
        "invalid_parameter_error",
    ),
    (
        400,
        {"code": "InvalidParameter", "message": "Bad thing.", "request_id": "1"},
        400,
        "invalid_request_error",
        "InvalidParameter",
    ),
    (
        400,
        failure("Input data may contain inappropriate content."),
        400,
        "invalid_request_error",
        "content_policy_violation",
    ),
    (400, failure("Range of input length should be [1, 100]"), 400, "invalid_request_error", "context_length_exceeded"),
    (
        400,
        {"object": "error", "message": "Bad.", "type": "BadRequestError", "code": 400},
        400,
        "invalid_request_error",
        "upstream_rejected",
    ),
    (422, {"detail": "Bad thing."}, 400, "invalid_request_error", "upstream_rejected"),
    (401, failure("Incorrect API key provided: sk-1234567890abcdef."), 502, "server_error", "upstream_authentication"),
    (403, failure("Access denied."), 502, "server_error", "upstream_authentication"),
    (404, failure("The model `other` does not exist."), 404, "invalid_request_error", "model_not_found"),
    (405, failure("Method not allowed."), 502, "server_error", "upstream_error"),
    (429, failure("Slow down."), 429, "rate_limit_error", "rate_limit_exceeded"),
    (
        429,
        failure("You exceeded your current quota.", code="insufficient_quota"),
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
    ),
    (
        429,
        failure("Free allocated quota exceeded.", code="insufficient_quota"),
        502,
        "server_error",
        "upstream_billing",
    ),
    (500, failure("Oops."), 502, "server_error", "upstream_error"),
    (500, {"error": "Oops."}, 502, "server_error", "upstream_error"),
    (502, {}, 502, "server_error", "upstream_error"),
    (503, failure("Busy."), 503, "server_error", "server_is_overloaded"),
    (504, failure("Late."), 504, "server_error", "upstream_timeout"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [HASTY, HASTY_STREAMED])
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_is_an_http_error(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, refusal: tuple[int, Json, int, str, str], *, stream: bool
) -> None:
    status, body, expected, kind, code = refusal
    upstream.script(Reply.error(status, body))

    error = await refused(dialects, expected, model=model, stream=stream)

    assert (error["type"], error["code"]) == (kind, code)
    assert "sk-1234567890abcdef" not in error["message"]


async def test_a_page_of_html_is_an_error_too(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(status=502, headers={"content-type": "text/html"}, body=b"<html>\xff Bad gateway</html>"))

    error = await refused(dialects, 502, model=HASTY)

    assert "<html>" not in error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_limit_says_when_to_come_back(dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool) -> None:
    upstream.script(Reply.error(429, failure("Slow down."), {"retry-after": "30"}))

    answer = await post(dialects, model="vllm/other", stream=stream)

    error = error_of(answer, 429)
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("30", "30000")
    assert "Please try again in 30s." in error["message"]
    assert len(upstream.requests) == 1, "so long a wait is the client's"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        Reply.error(429, failure("Slow down."), {"retry-after-ms": "10"}),
        Reply.error(500, failure("Oops.")),
        Reply.error(503, failure("Busy."), {"retry-after": "0.01"}),
        Reply(pieces=[Cut()]),
        Reply(pieces=[Raw(b'data: {"error": {"message": "Busy.", "code": "ServiceUnavailable"}}\n\n')]),
        Reply(pieces=[Text("")], usage=None),
    ],
)
async def test_what_may_pass_is_tried_again_before_the_first_byte(
    dialects: Gateway, upstream: ScriptedUpstream, fault: Reply, *, stream: bool
) -> None:
    upstream.script(fault, Reply.say("Now."))

    response = await ask(dialects, model="dashscope/qwen-plus", stream=stream)

    assert text_of(response) == "Now."
    assert sent(upstream, 0) == sent(upstream, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_no_more_often_than_allowed(dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool) -> None:
    upstream.script(*[Reply.error(503, failure("Busy."), {"retry-after": "0.01"})] * 3)

    await refused(dialects, 503, model="vllm/other", stream=stream)

    assert len(upstream.requests) == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["vllm/other", "dashscope/qwen-plus"])
async def test_an_answer_with_nothing_in_it_is_none(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, *, stream: bool
) -> None:
    upstream.script(*[Reply(pieces=[Text("")], usage=None)] * 3)

    error = await refused(dialects, 502, model=model, stream=stream)

    assert (error["code"], len(upstream.requests)) == ("upstream_protocol_error", 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_counted_may_be_empty(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Text("")]))

    response = await ask(dialects, model="vllm/other", stream=stream)

    assert (response["status"], response["usage"]["input_tokens"], len(upstream.requests)) == ("completed", 9, 1)


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_what_will_not_pass_is_not_tried_again(
    dialects: Gateway, upstream: ScriptedUpstream, status: int
) -> None:
    upstream.script(Reply.error(status, failure("No.")))

    assert not (await post(dialects, model="vllm/other")).is_success
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_nobody_is_there(dialects: Gateway, *, stream: bool) -> None:
    error = await refused(dialects, 503, model="nowhere/other", stream=stream)

    assert (error["type"], error["code"]) == ("server_error", "upstream_unreachable")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", [HASTY, HASTY_STREAMED])
async def test_the_answer_does_not_begin(
    dialects: Gateway, upstream: ScriptedUpstream, model: str, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Gate()]))

    error = await refused(dialects, 504, model=model, stream=stream)

    assert error["code"] == "upstream_timeout"
    assert (await upstream.hang_up()).body["model"] == model


def chunk(**fields: Any) -> Raw:
    return Raw(f"data: {json.dumps(fields)}\n\n".encode())


VENDOR_ERROR = Raw(
    b"id:1\nevent:error\n:HTTP_STATUS/429\n"
    b'data:{"request_id":"1","code":"Throttling.AllocationQuota","message":"Allocated quota exceeded."}\n\n'
)
FAULTS: dict[str, tuple[list[Piece], int, str, str]] = {
    # The pieces; for a plain answer status and code; for a stream the response's code.
    "cut": ([Cut()], 502, "upstream_protocol_error", "server_error"),
    "malformed chunk": ([Raw(b"data: {oops\n\n")], 502, "upstream_protocol_error", "server_error"),
    "chunk of another kind": ([Raw(b'data: {"choices": 5}\n\n')], 502, "upstream_protocol_error", "server_error"),
    "bad utf-8": (
        [Raw(b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n')],
        502,
        "upstream_protocol_error",
        "server_error",
    ),
    "nested error": ([chunk(**failure("Oops.", code="internal_error"))], 502, "upstream_error", "server_error"),
    "vendor error": ([VENDOR_ERROR], 429, "rate_limit_exceeded", "rate_limit_exceeded"),
    "flat error": ([chunk(code="InternalError", message="Oops.")], 502, "upstream_error", "server_error"),
    "inappropriate": (
        [chunk(**failure("Output data may contain inappropriate content.", code="DataInspectionFailed"))],
        400,
        "content_policy_violation",
        "invalid_prompt",
    ),
    "stall": ([Gate()], 504, "upstream_stalled", "server_error"),
    "abort": (
        [chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "abort"}])],
        502,
        "upstream_error",
        "server_error",
    ),
}
BEGUN: dict[str, tuple[list[Piece], list[str]]] = {
    "text": ([Text("Once "), Text("upon")], ["message"]),
    "thinking": ([Thought("Hm.")], ["reasoning"]),
    "thinking and text": ([Thought("Hm."), Text("Once")], ["reasoning", "message"]),
    "call": ([Text("I look."), Call("weather", ['{"ci'])], ["message", "function_call"]),
}


@pytest.mark.parametrize("begun", BEGUN)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_after_the_first_byte_ends_the_stream(
    dialects: Gateway, upstream: ScriptedUpstream, fault: str, begun: str
) -> None:
    pieces, _, _, code = FAULTS[fault]
    before, items = BEGUN[begun]
    upstream.script(Reply(pieces=[*before, *pieces], finish_reason=None, done=False))

    judged = await streamed(dialects, model=HASTY_STREAMED, tools=[function("weather")])

    response = judged.events[-1]["response"]
    assert judged.types[-2:] == ["error", "response.failed"]
    assert (response["status"], response["error"]["code"]) == ("failed", code)
    assert judged.events[-2]["error"]["type"] in ("server_error", "rate_limit_error", "invalid_request_error")
    assert [item["type"] for item in response["output"]] == items
    assert response["output"][-1]["status"] == "incomplete"
    async with dialects.http() as http:
        assert (await http.get(f"/v1/responses/{response['id']}")).json() == response
        replayed = await http.get(f"/v1/responses/{response['id']}", params={"stream": "true"})
        assert replayed.text.count("event: response.failed\n") == 1
        assert (await http.get(f"/v1/responses/{response['id']}/input_items")).json()["data"][0]["role"] == "user"


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "stall"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_fault_before_the_first_byte_is_an_http_error(
    dialects: Gateway, upstream: ScriptedUpstream, fault: str, *, stream: bool
) -> None:
    pieces, status, code, _ = FAULTS[fault]
    upstream.script(Reply(pieces=[Text(""), *pieces], finish_reason=None, done=False))

    error = await refused(dialects, status, model=HASTY_STREAMED, stream=stream)

    assert error["code"] == code


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_in_a_plain_answer_is_an_http_error(
    dialects: Gateway, upstream: ScriptedUpstream, fault: str
) -> None:
    pieces, status, code, _ = FAULTS[fault]
    upstream.script(Reply(pieces=[Text("Once upon"), *pieces], finish_reason=None, done=False))

    error = await refused(dialects, status, model=HASTY_STREAMED)

    assert error["code"] == code


@pytest.mark.parametrize("stream", [False, True])
async def test_without_a_finish_reason_an_answer_is_none(
    dialects: Gateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    upstream.script(Reply(pieces=[Text("Once upon")], finish_reason=None))

    if stream:
        judged = await streamed(dialects, model=HASTY_STREAMED)
        assert judged.types[-1] == "response.failed"
        assert judged.text == "Once upon"
    else:
        assert (await refused(dialects, 502, model=HASTY_STREAMED))["code"] == "upstream_protocol_error"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"oops", b'{"choices": []}', b'{"choices": [{"message": {"content": "Hi"}}]}', b"\xff"]
)
async def test_a_whole_answer_that_is_none(dialects: Gateway, upstream: ScriptedUpstream, body: bytes) -> None:
    upstream.script(Reply(body=body))

    assert (await refused(dialects, 502, model=HASTY))["code"] == "upstream_protocol_error"


async def test_a_whole_answer_that_is_cut(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Text("Once upon"), Cut()]))

    assert (await refused(dialects, 502, model=HASTY))["code"] == "upstream_protocol_error"


async def test_json_where_a_stream_was_asked_for_is_an_answer(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    message = {"role": "assistant", "content": "Whole."}
    upstream.script(Reply.json({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))

    assert (await streamed(dialects, model=HASTY)).text == "Whole."


async def test_the_end_marker_may_be_missing(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script(Reply(pieces=[Text("All.")], done=False))

    assert (await streamed(dialects, model=HASTY)).text == "All."


async def test_a_connection_that_breaks_after_the_answer_costs_nothing(
    dialects: Gateway, upstream: ScriptedUpstream
) -> None:
    finish = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    begun = chunk(choices=[{"index": 0, "delta": {"content": "All."}, "finish_reason": None}])
    upstream.script(Reply(pieces=[begun, finish, Cut()]))

    judged = await streamed(dialects, model=HASTY)

    assert (judged.text, judged.response.status, judged.response.usage) == ("All.", "completed", None)


async def test_the_gateway_serves_on(dialects: Gateway, upstream: ScriptedUpstream) -> None:
    """The faults above left nothing behind."""
    async with dialects.http() as http:
        assert (await http.get("/readyz")).status_code == 200
    assert text_of(await ask(dialects, model=HASTY)) == "Hello there."
    assert "Traceback" not in dialects.log()
    assert len(upstream.requests) == 1
