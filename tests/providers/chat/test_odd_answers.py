"""What servers say in unusual places, of either dialect, is not lost, and says the same streamed and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.deltas import CallArguments, CallOpened, Delta, Reasoning, Text, TurnFinished
from app.protocol.wire.tokens import TokenUsage
from app.providers.chat.decode import ChatDecoder
from app.providers.responses.decode import ResponsesDecoder
from tests.providers.chat_stream import USAGE, Json, call, chunk, decode, event, summed, whole

STOP = TurnFinished("stop")
HI, END = chunk({"content": "Hi"}), chunk({}, "stop")
ROME = '{"city":"Rome"}'


def read(*events: Json) -> list[Delta]:
    """All deltas of a stream of the Responses API, the same without blank lines between its events and as one body."""
    frames = [b"event: %b\ndata: %b\n\n" % (str(one.get("type")).encode(), json.dumps(one).encode()) for one in events]
    stream = b"".join(frames)
    told = _read(stream)
    assert _read(stream.replace(b"\n\n", b"\n")) == _read(b"".join(map(event, events)).replace(b"\n\n", b"\n")) == told
    assert _read(b"".join(json.dumps(one).encode() + b"\n" for one in events)) == told
    assert ResponsesDecoder().whole(stream) == told
    return told


def _read(stream: bytes) -> list[Delta]:
    decoder = ResponsesDecoder()
    deltas = decoder.feed(stream)
    assert decoder.failure is None
    return deltas if decoder.done else deltas + decoder.end()


def said(delta: Any) -> Json:
    return {"type": "response.output_text.delta", "item_id": "msg_1", "delta": delta}


def added(item_id: str, name: str = "f") -> Json:
    return {"type": "response.output_item.added", "item": _function(item_id, "", name)}


def done(item_id: str, arguments: str, name: str = "f") -> Json:
    return {"type": "response.output_item.done", "item": _function(item_id, arguments, name)}


def _function(item_id: str, arguments: str, name: str) -> Json:
    return {"type": "function_call", "id": item_id, "call_id": f"call_{item_id}", "name": name, "arguments": arguments}


def argued(item_id: str, delta: str) -> Json:
    return {"type": "response.function_call_arguments.delta", "item_id": item_id, "delta": delta}


def completed(**response: Any) -> Json:
    return {"type": "response.completed", "response": {"status": "completed", **response}}


# --- Usage
# ---------------------------------------------------------------------------------------------------------------------

ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
COUNTED = TokenUsage(5, 3, 8)


@pytest.mark.parametrize(
    "late", [ZEROS, {}, {"completion_tokens": 3}, {"prompt_tokens": None}, {"prompt_tokens": "0"}, {"x": []}]
)
def test_a_count_of_nothing_does_not_replace_one(late: Json) -> None:
    usage = event({"choices": [], "usage": USAGE})

    assert decode(HI, END, usage, event({"choices": [], "usage": late})) == [Text("Hi"), COUNTED, STOP]
    assert decode(event({"choices": [], "usage": late}), HI, END, usage) == [Text("Hi"), COUNTED, STOP]


def test_the_last_count_stands() -> None:
    grown = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}

    assert decode(HI, event({"usage": USAGE}), END, event({"usage": grown}))[-2:] == [TokenUsage(5, 4, 9), STOP]


def test_usage_is_waited_for_until_it_counts() -> None:
    decoder = ChatDecoder()
    decoder.feed(HI + END + event({"usage": ZEROS}))
    assert not decoder.counted

    decoder.feed(event({"usage": USAGE}))
    assert decoder.counted


@pytest.mark.parametrize("odd", [{}, {"logprobs": 5}])
def test_usage_in_a_choice(odd: Json) -> None:
    assert decode(HI, chunk({}, "stop", usage=USAGE, **odd)) == [Text("Hi"), COUNTED, STOP]
    assert decode(HI, chunk({}, "stop", usage=ZEROS, **odd), event({"choices": [], "usage": USAGE})) == [
        Text("Hi"),
        COUNTED,
        STOP,
    ]


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"input_tokens": 5, "output_tokens": 3}, COUNTED),
        ({"input_tokens": 5, "output_tokens": 3, "total_tokens": 9}, TokenUsage(5, 3, 9)),
        ({"input_tokens": "5", "output_tokens": 3.0}, COUNTED),
        ({"output_tokens": 3, "total_tokens": 8}, COUNTED),
        ({"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 5, "output_tokens": 3}, COUNTED),
        (
            {
                "input_tokens": 5,
                "output_tokens": 3,
                "input_tokens_details": {"cached_tokens": 2},
                "output_tokens_details": {"reasoning_tokens": 1},
            },
            TokenUsage(5, 3, 8, cached_tokens=2, reasoning_tokens=1),
        ),
    ],
)
def test_counters_by_their_newer_names(usage: Json, counted: TokenUsage) -> None:
    odd: Json = {**usage, "reasoning_tokens": []}
    for given_usage in (usage, odd):
        assert decode(HI, END, event({"choices": [], "usage": given_usage})) == [Text("Hi"), counted, STOP]
        assert ChatDecoder().whole(whole({"content": "Hi"}, usage=given_usage)) == [Text("Hi"), counted, STOP]


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"input_tokens": -5, "output_tokens": 3}, None),
        ({"input_tokens": 5, "output_tokens": -3}, TokenUsage(5, 0, 5)),
        ({"input_tokens": 5, "output_tokens": 3, "input_tokens_details": {"cached_tokens": -1}}, COUNTED),
        ({"output_tokens": 3, "total_tokens": 8}, COUNTED),
        ({"input_tokens": None, "output_tokens": 3, "total_tokens": 8}, COUNTED),
        ({"input_tokens": 0, "output_tokens": 3, "total_tokens": 3}, None),
    ],
)
def test_counters_of_responses(usage: Json, counted: TokenUsage | None) -> None:
    assert read(said("Hi"), completed(usage=usage)) == [Text("Hi"), *([counted] if counted else []), STOP]


# --- Words
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "deltas"),
    [
        ({"city": "Rome"}, [Text(ROME)]),
        ({"city": "Rome", "text": "Eternal."}, [Text('{"city":"Rome","text":"Eternal."}')]),
        ({"type": "capital", "city": "Rome"}, [Text('{"type":"capital","city":"Rome"}')]),
        ({"summary": "Short.", "points": 3}, [Text('{"summary":"Short.","points":3}')]),
        ({"\ud83d": "\ude00"}, [Text('{"\ufffd":"\ufffd"}')]),
        ({"text": "Hi"}, [Text("Hi")]),
        ({"type": "text", "text": "Hi", "more": 1}, [Text("Hi")]),
        ({"type": "reasoning", "text": "Hm", "more": 1}, [Reasoning("Hm")]),
        ({"type": "image_url", "image_url": {"url": "x"}}, []),
    ],
)
def test_an_answer_that_the_server_forgot_to_encode(content: Json, deltas: list[Delta]) -> None:
    more = [] if deltas else [Text("Hi")]

    assert decode(*[HI for _ in more], chunk({"content": content}), END) == [*more, *deltas, STOP]
    if deltas:
        assert ChatDecoder().whole(whole({"content": content})) == [*deltas, STOP]


@pytest.mark.parametrize(
    "beside", [{}, {"delta": None}, {"delta": {}}, {"message": None}, {"delta": {"content": ""}}, {"logprobs": 5}]
)
def test_text_beside_the_message(beside: Json) -> None:
    choice = {"index": 0, "text": "Hi", "finish_reason": None, **beside}
    last = {"index": 0, "text": "", "finish_reason": "stop", **beside}

    assert decode(event({"choices": [choice]}), event({"choices": [last]})) == [Text("Hi"), STOP]
    assert ChatDecoder().whole(json.dumps({"choices": [choice | {"finish_reason": "stop"}]}).encode()) == [
        Text("Hi"),
        STOP,
    ]


def test_text_that_repeats_the_message_is_not_told_twice() -> None:
    assert (
        decode(chunk({"content": "Hi"}, text="Hi"), END)
        == decode(chunk({"content": "Hi"}, text="Hi", logprobs=5), END)
        == [
            Text("Hi"),
            STOP,
        ]
    )


# --- Calls
# ---------------------------------------------------------------------------------------------------------------------

CALLS: list[tuple[Json, str]] = [
    ({"type": "custom", "id": "a", "custom": {"name": "f", "input": "ls -l"}}, "ls -l"),
    ({"type": "custom", "id": "a", "custom": {"name": "f", "input": "ls -l"}, "function": None}, "ls -l"),
    ({"type": "custom", "id": "a", "custom": {"name": "f", "input": {"city": "Rome"}}}, ROME),
    ({"type": "function", "id": "a", "function": "f", "arguments": ROME}, ROME),
    ({"type": "function", "id": "a", "function": "f", "arguments": {"city": "Rome"}}, ROME),
    ({"type": "function", "id": "a", "function": json.dumps({"name": "f", "arguments": ROME})}, ROME),
    ({"type": "function", "id": "a", "function": json.dumps({"name": "f", "arguments": {"city": "Rome"}})}, ROME),
    ({"type": "function", "id": "a", "function": "", "name": "f", "arguments": ROME}, ROME),
]


@pytest.mark.parametrize(("entry", "arguments"), CALLS)
@pytest.mark.parametrize("more", [{}, {"type": 5}])
def test_calls_in_other_forms(entry: Json, arguments: str, more: Json) -> None:
    called = [("a", "f", arguments)]

    assert summed(decode(chunk({"tool_calls": [{**entry, "index": 0, **more}]}), END)).calls == called
    assert summed(ChatDecoder().whole(whole({"tool_calls": [{**entry, **more}]}))).calls == called


def test_the_input_of_a_custom_call_comes_in_pieces() -> None:
    opening = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": ""}}
    pieces = [{"index": 0, "custom": {"input": piece}} for piece in ("ls ", "-l")]
    odd = [{"index": 0, "id": 7, "custom": {"name": "f", "input": "ls "}}, {"index": "0", "custom": {"input": "-l"}}]

    assert summed(decode(*(chunk({"tool_calls": [piece]}) for piece in (opening, *pieces)), END)).calls == [
        ("a", "f", "ls -l")
    ]
    assert summed(decode(*(chunk({"tool_calls": [piece]}) for piece in odd), END)).calls == [("7", "f", "ls -l")]


# --- Characters cut in two
# -----------------------------------------------------------------------------------------------------

A, B = "\U0001f600", "\U0001f680"


def test_halves_in_arguments_that_come_by_turns() -> None:
    events = [
        added("1"),
        added("2", "g"),
        argued("1", '"\ud83d'),
        argued("2", '"\ud83d'),
        argued("1", '\ude00"'),
        argued("2", '\ude80"'),
    ]

    got = summed(read(*events, done("1", f'"{A}"'), done("2", f'"{B}"', "g"), completed()))

    assert got.calls == [("call_1", "f", f'"{A}"'), ("call_2", "g", f'"{B}"')]


@pytest.mark.parametrize(
    "between",
    [
        {"type": "response.new", "delta": {}},
        {"type": "response.in_progress", "response": {}},
        {"type": "response.output_item.done", "item": {"type": "reasoning", "id": "r"}},
        said(""),
    ],
)
def test_other_events_between_the_halves_of_arguments(between: Json) -> None:
    assert summed(read(added("1"), argued("1", '"\ud83d'), between, argued("1", '\ude00"'), completed())).calls == [
        ("call_1", "f", f'"{A}"')
    ]


@pytest.mark.parametrize(
    "last",
    [
        completed(),
        {"type": "response.function_call_arguments.done", "item_id": "1"},
        {
            "type": "response.output_item.done",
            "item": {"type": "function_call", "id": "1", "call_id": "call_1", "name": "f"},
        },
    ],
)
def test_half_a_character_at_the_end_of_arguments(last: Json) -> None:
    events = [
        added("1"),
        argued("1", "a\ud83d"),
        last,
        *([] if last["type"] == "response.completed" else [completed()]),
    ]

    assert read(*events) == [
        CallOpened(0, "call_1", "f"),
        CallArguments(0, "a"),
        CallArguments(0, "\ufffd"),
        TurnFinished("tool_calls"),
    ]


def test_half_a_character_at_the_end_of_text_stands_before_what_follows() -> None:
    assert read(said("a\ud83d"), added("1"), argued("1", "{}"), done("1", "{}"), completed())[:3] == [
        Text("a"),
        Text("\ufffd"),
        CallOpened(0, "call_1", "f"),
    ]


TEXTS = st.text(st.sampled_from(["a", "é", A, B]), min_size=1, max_size=6)


@given(TEXTS, TEXTS, st.randoms(use_true_random=False))
def test_arguments_of_two_calls_in_any_order(first: str, second: str, random: Any) -> None:
    waiting = {"1": _units(first), "2": _units(second)}
    events = [added("1"), added("2", "g")]
    while any(waiting.values()):
        item_id = random.choice([item_id for item_id, units in waiting.items() if units])
        events.append(argued(item_id, waiting[item_id].pop(0)))

    got = summed(read(*events, done("2", second, "g"), done("1", first), completed()))

    assert got.calls == [("call_1", "f", first), ("call_2", "g", second)]
    chat = [
        chunk({"tool_calls": [call(name, index=int(item_id), id=item_id)]})
        for item_id, name in (("1", "f"), ("2", "g"))
    ]
    chat += [
        chunk({"tool_calls": [{"index": int(one["item_id"]), "function": {"arguments": one["delta"]}}]})
        for one in events
        if "delta" in one
    ]
    assert [arguments for _, _, arguments in summed(decode(*chat, END)).calls] == [first, second]


def _units(text: str) -> list[str]:
    raw = text.encode("utf-16-le")
    return [raw[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(raw), 2)]
