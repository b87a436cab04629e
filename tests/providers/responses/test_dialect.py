"""The decoder of the Responses dialect: every way in which its streams are known to differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from app.protocol.deltas import CallArguments, CallOpened, Delta, FinishReason, Reasoning, Refusal, Text, TurnFinished
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.responses.decode import ResponsesDecoder
from tests.providers.responses_stream import COMPLETED, CREATED, FAILED, STARTED, STOPPED, Json, frames, text

CALLED = TurnFinished("tool_calls")


def decode(stream: bytes) -> list[Delta]:
    """The deltas of a whole stream, the same however it is cut. Raises what ended it."""
    received = [_decode([stream]), _decode([stream[at : at + 1] for at in range(len(stream))])]
    assert received[0][0] == received[1][0]
    deltas, failure = received[0]
    if failure is not None:
        raise failure
    return deltas


def _decode(pieces: Sequence[bytes]) -> tuple[list[Delta], UpstreamError | None]:
    decoder = ResponsesDecoder()
    deltas: list[Delta] = []
    for piece in pieces:
        deltas += decoder.feed(piece)
        if decoder.failure is not None:
            return deltas, decoder.failure
    try:
        return deltas + decoder.end(), None
    except UpstreamError as error:
        return deltas, error


def added(index: int, **item: Any) -> Json:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(index: int, **item: Any) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def arguments(piece: str, item_id: str = "msg_c") -> Json:
    return {"type": "response.function_call_arguments.delta", "item_id": item_id, "output_index": 0, "delta": piece}


def call_item(arguments: str, item_id: str = "msg_c", call_id: str = "call_1", name: str = "get_weather") -> Json:
    return {"type": "function_call", "id": item_id, "call_id": call_id, "name": name, "arguments": arguments}


def test_a_plain_turn() -> None:
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hi 你\u2028好"}],
    }
    stream = frames(
        CREATED,
        STARTED,
        added(0, type="message", id="msg_1", role="assistant", content=[]),
        {
            "type": "response.content_part.added",
            "item_id": "msg_1",
            "part": {"type": "output_text", "text": "", "logprobs": None},
        },
        text("Hi "),
        text(""),
        text("你\u2028好"),
        {"type": "response.output_text.done", "item_id": "msg_1", "text": "Hi 你\u2028好"},
        {
            "type": "response.content_part.done",
            "item_id": "msg_1",
            "part": {"type": "output_text", "text": "Hi 你\u2028好"},
        },
        done(0, **message),
        {"type": "response.completed", "response": {"status": "completed", "output": [message]}},
    )

    assert decode(stream) == [Text("Hi "), Text("你\u2028好"), STOPPED]


@pytest.mark.parametrize("event", ["response.reasoning_text", "response.reasoning_summary_text"])
def test_thinking_under_either_name(event: str) -> None:
    thought = {"item_id": "msg_r", "output_index": 0, "summary_index": 0}
    stream = frames(
        added(0, type="reasoning", id="msg_r", summary=[]),
        {"type": f"{event}.delta", **thought, "delta": "I "},
        {"type": f"{event}.delta", **thought, "delta": "think."},
        {"type": f"{event}.done", **thought, "text": "I think."},
        done(0, type="reasoning", id="msg_r", summary=[{"type": "summary_text", "text": "I think."}]),
        added(1, type="message", id="msg_1", content=[]),
        text("Hi"),
        COMPLETED,
    )

    assert decode(stream) == [Reasoning("I "), Reasoning("think."), Text("Hi"), STOPPED]


def test_thinking_under_both_names_is_told_once() -> None:
    stream = frames(
        {"type": "response.reasoning_text.delta", "item_id": "msg_r", "delta": "I think."},
        {"type": "response.reasoning_summary_text.delta", "item_id": "msg_r", "delta": "I think."},
        COMPLETED,
    )

    assert decode(stream) == [Reasoning("I think."), STOPPED]


def test_items_that_come_only_whole() -> None:
    stream = frames(
        added(0, type="reasoning", id="msg_r", summary=[]),
        done(0, type="reasoning", id="msg_r", summary=[{"type": "summary_text", "text": "I think."}]),
        added(1, type="message", id="msg_1", content=[]),
        done(
            1,
            type="message",
            id="msg_1",
            content=[{"type": "output_text", "text": "Hi"}, {"type": "refusal", "refusal": "No."}],
        ),
        COMPLETED,
    )

    assert decode(stream) == [Reasoning("I think."), Text("Hi"), Refusal("No."), STOPPED]


def test_a_second_message_is_not_taken_for_a_repetition() -> None:
    stream = frames(
        added(0, type="message", id="msg_1", content=[]),
        text("One."),
        done(0, type="message", id="msg_1", content=[{"type": "output_text", "text": "One."}]),
        added(1, type="message", id="msg_2", content=[]),
        done(1, type="message", id="msg_2", content=[{"type": "output_text", "text": "Two."}]),
        COMPLETED,
    )

    assert decode(stream) == [Text("One."), Text("Two."), STOPPED]


def test_a_refusal() -> None:
    assert decode(frames({"type": "response.refusal.delta", "delta": "No."}, COMPLETED)) == [Refusal("No."), STOPPED]


WHOLE = '{"city": "Paris"}'


@pytest.mark.parametrize(
    ("events", "fragments"),
    [
        pytest.param([added(0, **call_item("")), arguments(""), arguments(WHOLE)], [WHOLE], id="empty first delta"),
        pytest.param([added(0, **call_item("")), done(0, **call_item(WHOLE))], [WHOLE], id="whole at the end"),
        pytest.param([added(0, **call_item(WHOLE)), done(0, **call_item(WHOLE))], [WHOLE], id="whole from the start"),
        pytest.param([added(0, **call_item(WHOLE)), done(0, **call_item(""))], [WHOLE], id="only at the start"),
        pytest.param([added(0, **call_item(WHOLE))], [WHOLE], id="never closed"),
        pytest.param([done(0, **call_item(WHOLE))], [WHOLE], id="never opened"),
        pytest.param(
            [arguments(WHOLE), added(0, **call_item("")), done(0, **call_item(WHOLE))],
            [WHOLE],
            id="delta before the item",
        ),
        pytest.param(
            [added(0, **call_item(WHOLE)), arguments(WHOLE), done(0, **call_item(WHOLE))], [WHOLE], id="three times"
        ),
        pytest.param(
            [
                added(0, **call_item("")),
                arguments('{"city": '),
                arguments('"Paris"}'),
                {"type": "response.function_call_arguments.done", "item_id": "msg_c", "arguments": WHOLE},
                done(0, **call_item(WHOLE)),
            ],
            ['{"city": ', '"Paris"}'],
            id="deltas",
        ),
        pytest.param(
            [added(0, **call_item("")), arguments('{"ci'), done(0, **call_item(WHOLE))],
            ['{"ci', 'ty": "Paris"}'],
            id="rest at the end",
        ),
        pytest.param(
            [added(0, **call_item("")), arguments('{"city":"Paris"}'), done(0, **call_item(WHOLE))],
            ['{"city":"Paris"}'],
            id="other blanks",
        ),
        pytest.param(
            [added(0, **call_item("")), arguments(WHOLE, item_id=""), done(1, **call_item(WHOLE))],
            [WHOLE],
            id="no item id, wrong index",
        ),
        pytest.param([added(0, **call_item("")), done(0, **call_item(""))], [], id="no arguments"),
    ],
)
def test_arguments_arrive_once_however_they_are_sent(events: Sequence[Json], fragments: Sequence[str]) -> None:
    received = decode(frames(CREATED, *events, COMPLETED))

    assert received == [
        CallOpened(0, "call_1", "get_weather"),
        *(CallArguments(0, piece) for piece in fragments),
        CALLED,
    ]


def test_calls_are_numbered_by_their_order() -> None:
    stream = frames(
        added(3, **call_item("", "msg_a", "call_a", "first")),
        arguments("{}", "msg_a"),
        done(3, **call_item("{}", "msg_a", "call_a", "first")),
        added(3, **call_item("", "msg_b", "call_b", "second")),
        done(3, **call_item('{"x":1}', "msg_b", "call_b", "second")),
        COMPLETED,
    )

    assert decode(stream) == [
        CallOpened(0, "call_a", "first"),
        CallArguments(0, "{}"),
        CallOpened(1, "call_b", "second"),
        CallArguments(1, '{"x":1}'),
        CALLED,
    ]


def test_unknown_items_and_events_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    stream = frames(
        CREATED,
        added(0, type="video_call", id="msg_v", status="in_progress", arguments={"not": "text"}),
        {"type": "response.video_call.completed", "item_id": "msg_v"},
        done(0, type="video_call", id="msg_v", status="completed", content=7),
        {"type": "response.new.delta", "delta": {"not": "text"}, "item_id": 7},
        text("Hi"),
        COMPLETED,
    )

    assert decode(b'data: {"note":"nothing that is known"}\n\n' + stream) == [Text("Hi"), STOPPED]
    assert "video_call" in caplog.text


@pytest.mark.parametrize("payload", [b"null", b"[]", b"7", b'{"type":7}'])
def test_payloads_that_are_no_events_are_passed_over(payload: bytes) -> None:
    assert decode(b"data:" + payload + b"\n\n" + frames(text("Hi"), COMPLETED)) == [Text("Hi"), STOPPED]


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({"status": "incomplete"}, "length"),
        ({"status": "incomplete", "incomplete_details": None}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
    ],
)
def test_an_incomplete_answer(response: Json, reason: FinishReason) -> None:
    assert decode(frames(text("Hi"), {"type": "response.incomplete", "response": response})) == [
        Text("Hi"),
        TurnFinished(reason),
    ]


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"input_tokens": 45, "output_tokens": 63, "total_tokens": 108}, TokenUsage(45, 63, 108)),
        ({"input_tokens": 45, "output_tokens": 63}, TokenUsage(45, 63, 108)),
        (
            {
                "input_tokens": 45,
                "output_tokens": 63,
                "total_tokens": 108,
                "input_tokens_details": {"cached_tokens": 7},
                "output_tokens_details": {"reasoning_tokens": 11},
                "x_details": [
                    {
                        "input_tokens": 45,
                        "prompt_tokens_details": {
                            "cached_tokens": 7,
                            "cache_creation_input_tokens": 5,
                            "cache_type": "ephemeral",
                        },
                        "output_tokens_details": {"reasoning_tokens": 11, "text_tokens": 52},
                        "x_billing_type": "response_api",
                    }
                ],
                "x_tools": {"web_search": {"count": 1}},
            },
            TokenUsage(45, 63, 108, cached_tokens=7, cache_write_tokens=5, reasoning_tokens=11),
        ),
        (
            {
                "input_tokens": 10,
                "output_tokens": 20,
                "total_tokens": 30,
                "x_details": [
                    {"input_tokens_details": {"cached_tokens": 1}, "output_tokens_details": {"reasoning_tokens": 2}},
                    {"prompt_tokens_details": {"cached_tokens": 3}, "output_tokens_details": {"reasoning_tokens": 4}},
                ],
            },
            TokenUsage(10, 20, 30, cached_tokens=4, reasoning_tokens=6),
        ),
    ],
)
def test_usage(usage: Json, counted: TokenUsage) -> None:
    stream = frames({"type": "response.completed", "response": {"status": "completed", "usage": usage}})

    assert decode(stream) == [counted, STOPPED]


def test_nothing_is_read_behind_the_terminal_event() -> None:
    assert decode(frames(text("Hi"), COMPLETED, text("more"), COMPLETED) + b"data: [DONE]\n\n") == [Text("Hi"), STOPPED]


def test_a_last_event_without_its_blank_line_counts() -> None:
    assert decode(frames(text("Hi"), COMPLETED).removesuffix(b"\n\n")) == [Text("Hi"), STOPPED]


@pytest.mark.parametrize(
    ("stream", "status", "code", "retryable"),
    [
        pytest.param(frames(FAILED), 404, "model_not_found", False, id="failed at once"),
        pytest.param(
            frames({"code": "InvalidParameter", "message": "The prompt is wrong.", "request_id": "1"}, status=400),
            400,
            "InvalidParameter",
            False,
            id="flat",
        ),
        pytest.param(
            frames(
                {"request_id": "1", "code": "Throttling.AllocationQuota", "message": "Allocated quota exceeded."},
                status=429,
            ),
            429,
            "rate_limit_exceeded",
            True,
            id="throttled",
        ),
        pytest.param(
            frames({"error": {"code": "InternalError", "message": "Oops."}}, status=500),
            502,
            "upstream_error",
            True,
            id="nested",
        ),
        pytest.param(
            frames({"type": "error", "code": "ServiceUnavailable", "message": "Busy."}),
            503,
            "server_is_overloaded",
            True,
            id="event",
        ),
    ],
)
def test_errors_inside_a_stream(stream: bytes, status: int, code: str, *, retryable: bool) -> None:
    with pytest.raises(UpstreamError) as caught:
        decode(stream)

    assert (caught.value.status, caught.value.code, caught.value.retryable) == (status, code, retryable)


def test_what_came_before_an_error_is_kept() -> None:
    inspected = {
        "type": "response.failed",
        "response": {"error": {"code": "DataInspectionFailed", "message": "Output data may contain …"}},
    }
    decoder = ResponsesDecoder()

    assert decoder.feed(frames(text("Hi"), inspected)) == [Text("Hi")]
    assert decoder.failure is not None
    assert (decoder.failure.status, decoder.failure.code) == (400, "content_policy_violation")


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(frames(CREATED, text("Hi")), id="no terminal event"),
        pytest.param(frames(text("Hi")) + b"data: [DONE]\n\n", id="only a marker"),
        pytest.param(frames(text("Hi")) + b'data:{"type":"response.comp', id="cut"),
        pytest.param(b"data:{not json}\n\n" + frames(COMPLETED), id="not JSON"),
        pytest.param(b'data:{"type":"\xff"}\n\n' + frames(COMPLETED), id="not UTF-8"),
        pytest.param(frames({"type": "response.output_text.delta", "delta": 7}, COMPLETED), id="text that is none"),
        pytest.param(frames(added(0, **call_item("", name="")), COMPLETED), id="call without a name"),
        pytest.param(frames(arguments("{}"), COMPLETED), id="arguments without a call"),
    ],
)
def test_a_broken_protocol(stream: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        decode(stream)
