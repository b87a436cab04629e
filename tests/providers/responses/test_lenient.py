"""Events of the Responses dialect whose fields are not as the protocol has them, ids that repeat, and answers with
nothing in them.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.deltas import CallArguments, CallOpened, Delta, Reasoning, Refusal, Text, TurnFinished
from app.protocol.wire.tokens import TokenUsage
from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.responses.decode import ResponsesDecoder
from tests.providers.chat_stream import cut, summed

Json = dict[str, Any]
STOP, CALLED = TurnFinished("stop"), TurnFinished("tool_calls")
ROME, OSLO = '{"city":"Rome"}', '{"city":"Oslo"}'


def frames(*events: Json) -> bytes:
    """Events of a stream; unpaired surrogates go as escapes."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (str(event.get("type")).encode(), json.dumps(event).encode()) for event in events
    )


def decode(*events: Json) -> list[Delta]:
    return read([frames(*events)])


def read(pieces: list[bytes]) -> list[Delta]:
    decoder = ResponsesDecoder()
    deltas: list[Delta] = []
    for piece in pieces:
        deltas += decoder.feed(piece)
        if decoder.failure is not None:
            raise decoder.failure
    return deltas + decoder.end()


def text(delta: Any, **more: Any) -> Json:
    return {"type": "response.output_text.delta", "item_id": "msg_1", "delta": delta, **more}


def added(**item: Any) -> Json:
    return {"type": "response.output_item.added", "output_index": 0, "item": item}


def done(**item: Any) -> Json:
    return {"type": "response.output_item.done", "output_index": 0, "item": item}


def arguments(delta: Any, item_id: Any = "fc_1") -> Json:
    return {"type": "response.function_call_arguments.delta", "item_id": item_id, "delta": delta}


def function(given: Any, item_id: Any = "fc_1", call_id: Any = "call_1", name: Any = "f") -> Json:
    return {"type": "function_call", "id": item_id, "call_id": call_id, "name": name, "arguments": given}


def completed(**response: Any) -> Json:
    return {"type": "response.completed", "response": {"status": "completed", **response}}


# --- Side fields
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"input_tokens": 5.0, "output_tokens": "3", "total_tokens": None}, TokenUsage(5, 3, 8)),
        (
            {"input_tokens": 5, "output_tokens": 3, "input_tokens_details": [], "output_tokens_details": "none"},
            TokenUsage(5, 3, 8),
        ),
        (
            {
                "input_tokens": 5,
                "output_tokens": 3,
                "input_tokens_details": {"cached_tokens": 2.0, "x": []},
                "x_details": [None, 5],
            },
            TokenUsage(5, 3, 8, cached_tokens=2),
        ),
        (
            {"input_tokens": 5, "output_tokens": 3, "x_details": {"output_tokens_details": {"reasoning_tokens": "2"}}},
            TokenUsage(5, 3, 8, reasoning_tokens=2),
        ),
        ("none", None),
        ([], None),
        ({"input_tokens": "?"}, None),
        ({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, None),
    ],
)
def test_counters(usage: object, counted: TokenUsage | None) -> None:
    assert decode(text("Hi"), completed(usage=usage)) == [Text("Hi"), *([] if counted is None else [counted]), STOP]


@pytest.mark.parametrize(
    "response", [None, [], "none", 5, {"incomplete_details": [], "output": 5, "id": 7, "error": None}]
)
def test_a_terminal_event_with_odd_fields(response: object) -> None:
    assert decode(text("Hi"), {"type": "response.completed", "response": response}) == [Text("Hi"), STOP]


@pytest.mark.parametrize("details", ["content_filter", {"reason": "content_filter", "x": 1}])
def test_why_an_answer_is_incomplete(details: object) -> None:
    event: Json = {"type": "response.incomplete", "response": {"incomplete_details": details, "usage": []}}

    assert decode(text("Hi"), event) == [Text("Hi"), TurnFinished("content_filter")]


@pytest.mark.parametrize("logprobs", [None, "none", [None], [{"token": "Hi", "logprob": None}]])
@pytest.mark.parametrize("item_id", ["msg_1", 7, None, []])
def test_fields_beside_the_text(logprobs: object, item_id: object) -> None:
    event = text("Hi", logprobs=logprobs, output_index="0", content_index=None) | {"item_id": item_id}

    assert decode(event, completed()) == [Text("Hi"), STOP]


@pytest.mark.parametrize(
    ("delta", "words"),
    [(None, []), ([], []), ([{"type": "output_text", "text": "Hi"}], [Text("Hi")]), ({"text": "Hi"}, [Text("Hi")])],
)
def test_text_in_parts(delta: object, words: list[Text]) -> None:
    assert decode(text("a"), text(delta), completed()) == [Text("a"), *words, STOP]


@pytest.mark.parametrize("delta", [5, True, [5]])
def test_text_that_is_none_is_an_error(delta: object) -> None:
    with pytest.raises(UpstreamProtocolError):
        decode(text("a"), text(delta), completed())


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"type": "message", "id": 7, "content": "Hi"}, [Text("Hi")]),
        (
            {"type": "message", "id": None, "content": ["Hi", {"type": "refusal", "refusal": "No."}]},
            [Text("Hi"), Refusal("No.")],
        ),
        (
            {
                "type": "message",
                "content": [{"type": "output_text", "text": "Hi", "logprobs": "x", "annotations": None}],
            },
            [Text("Hi")],
        ),
        ({"type": "message", "content": None, "x": 1}, [Text("a")]),
        ({"type": "reasoning", "id": 1, "summary": ["Hm"]}, [Reasoning("Hm")]),
        ({"type": "reasoning", "summary": None, "content": "Hm"}, [Reasoning("Hm")]),
        (
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}, "!"]},
            [Reasoning("Hm"), Reasoning("!")],
        ),
    ],
)
def test_items_that_come_whole(item: Json, words: list[Delta]) -> None:
    more = text("a") if words == [Text("a")] else {"type": "x"}

    assert decode(more, done(**item), completed()) == [*words, STOP]


# --- Calls
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "events",
    [
        [added(**function(None)), arguments('{"city":'), arguments('"Rome"}'), done(**function(ROME))],
        [added(**function({})), done(**function({"city": "Rome"}))],
        [added(**function("")), arguments({"city": "Rome"}), done(**function({"city": "Rome"}))],
        [added(**function({"city": "Rome"}, item_id=7)), done(**function({"city": "Rome"}, item_id=7))],
        [
            added(**function("")),
            {"type": "response.function_call_arguments.done", "item_id": "fc_1", "arguments": ROME},
        ],
        [
            added(**function("")),
            {"type": "response.function_call_arguments.done", "item_id": "fc_1", "arguments": {"city": "Rome"}},
        ],
        [
            added(**function("")),
            arguments(ROME),
            {"type": "response.function_call_arguments.done", "item_id": "fc_1", "arguments": ROME},
        ],
    ],
)
def test_arguments_in_odd_shapes(events: list[Json]) -> None:
    assert summed(decode(*events, completed())).calls == [("call_1", "f", ROME)]


def test_ids_that_are_numbers() -> None:
    events = [added(**function("", 1, 7)), arguments(ROME, 1), done(**function(ROME, 1, 7))]

    assert summed(decode(*events, completed())).calls == [("7", "f", ROME)]


@pytest.mark.parametrize("item_id", ["fc_1", "", None])
@pytest.mark.parametrize("call_ids", [("a", "b"), ("a", "a")])
def test_ids_that_repeat(item_id: str | None, call_ids: tuple[str, str]) -> None:
    events: list[Json] = []
    for call_id, city in zip(call_ids, (ROME, OSLO), strict=True):
        events += [added(**function("", item_id, call_id)), arguments(city[:5], item_id), arguments(city[5:], item_id)]
        events += [done(**function(city, item_id, call_id)), done(**function(city, item_id, call_id))]

    assert [city for _, _, city in summed(decode(*events, completed())).calls] == [ROME, OSLO]


def test_ids_that_repeat_in_items_that_come_whole() -> None:
    events = [
        done(**function(ROME)),
        done(**function(OSLO)),
        done(**function(OSLO)),
        done(**function(OSLO, call_id="call_2")),
    ]

    assert summed(decode(*events, completed())).calls == [
        ("call_1", "f", ROME),
        ("call_1", "f", OSLO),
        ("call_2", "f", OSLO),
    ]


def test_calls_side_by_side_under_one_item_id() -> None:
    events = [added(**function("", call_id="a")), added(**function("", call_id="b", name="g"))]
    events += [done(**function(ROME, call_id="a")), done(**function(OSLO, call_id="b", name="g"))]

    assert summed(decode(*events, completed())).calls == [("a", "f", ROME), ("b", "g", OSLO)]


# --- The terminal event
# --------------------------------------------------------------------------------------------------------


def test_items_that_come_in_the_terminal_event_alone() -> None:
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]},
        function({"city": "Rome"}),
    ]

    assert decode(completed(output=output)) == [
        Reasoning("Hm"),
        Text("Hi"),
        CallOpened(0, "call_1", "f"),
        CallArguments(0, ROME),
        CALLED,
    ]


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}])
def test_an_empty_success_is_an_error_that_may_pass(usage: object) -> None:
    with pytest.raises(UpstreamProtocolError, match="empty") as caught:
        decode(
            added(type="message", content=[]),
            text(""),
            done(type="message", content=[]),
            completed(usage=usage, output=[]),
        )

    assert (caught.value.status, caught.value.retryable) == (502, True)


def test_an_answer_that_is_empty_by_its_own_account_is_one() -> None:
    assert decode(completed(usage={"input_tokens": 5, "output_tokens": 0})) == [TokenUsage(5, 0, 5), STOP]


# --- Characters
# ----------------------------------------------------------------------------------------------------------------


def test_a_byte_order_mark_before_the_first_event() -> None:
    assert read([b"\xef\xbb\xbf" + frames(text("Hi"), completed())]) == [Text("Hi"), STOP]


def test_half_a_character_waits_for_the_other() -> None:
    assert decode(text("a\ud83d"), text("\ude00"), completed()) == [Text("a"), Text("\U0001f600"), STOP]
    assert decode(text("a\ud83d"), completed()) == [Text("a"), Text("\ufffd"), STOP]
    assert decode(text("a\ud83d"), added(type="message", content=[]), completed()) == [Text("a"), Text("\ufffd"), STOP]


@given(
    st.text(st.sampled_from(["a", "é", "\U0001f600", "\U0001f680", "\n"]), min_size=1, max_size=10),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_any_cut_through_any_character(said: str, cuts: list[int]) -> None:
    raw = said.encode("utf-16-le")
    units = [raw[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(raw), 2)]
    given_arguments = json.dumps({"a": said}, ensure_ascii=False)
    stream = frames(
        *map(text, units),
        added(**function("")),
        *map(arguments, given_arguments),
        done(**function(given_arguments)),
        completed(usage=[]),
    )

    got = summed(read(cut(stream, cuts)))

    assert (got.text, got.calls) == (said, [("call_1", "f", given_arguments)])


def test_errors_in_odd_shapes() -> None:
    with pytest.raises(UpstreamError, match="Too hot") as caught:
        decode(
            text("a"),
            {
                "type": "response.failed",
                "response": {"error": {"message": "Too hot\ud83d", "code": "InvalidParameter"}},
            },
        )

    assert caught.value.status == 400
