"""Chunks whose fields are not as the protocol has them: what can be understood is, and no side field costs the
answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.deltas import Reasoning, Refusal, Text, TurnFinished
from app.protocol.wire.tokens import Logprob, TokenLogprob, TokenUsage
from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.chat.decode import ChatDecoder
from tests.providers.chat_stream import USAGE, Json, call, chunk, cut, decode, event, offered, summed, whole

STOP = TurnFinished("stop")
HI = chunk({"content": "Hi"})
END = chunk({}, "stop")


# --- Side fields
# ---------------------------------------------------------------------------------------------------------------

USAGES: list[tuple[object, TokenUsage | None]] = [
    ({"prompt_tokens": 5.0, "completion_tokens": 3.0, "total_tokens": 8.0}, TokenUsage(5, 3, 8)),
    ({"prompt_tokens": "5", "completion_tokens": " 3 ", "total_tokens": "8.0"}, TokenUsage(5, 3, 8)),
    ({"prompt_tokens": 5, "completion_tokens": None, "total_tokens": 5}, TokenUsage(5, 0, 5)),
    ({"prompt_tokens": 5, "completion_tokens": -1, "total_tokens": "many"}, TokenUsage(5, 0, 5)),
    ({"prompt_tokens": None, "completion_tokens": 3, "total_tokens": 8}, TokenUsage(5, 3, 8)),
    ({**USAGE, "prompt_tokens_details": [], "completion_tokens_details": []}, TokenUsage(5, 3, 8)),
    ({**USAGE, "prompt_tokens_details": "none", "completion_tokens_details": 0}, TokenUsage(5, 3, 8)),
    (
        {
            **USAGE,
            "prompt_tokens_details": {"cached_tokens": "4", "audio": []},
            "completion_tokens_details": {"reasoning_tokens": 2.0},
        },
        TokenUsage(5, 3, 8, cached_tokens=4, reasoning_tokens=2),
    ),
    ({**USAGE, "prompt_tokens_details": {"cached_tokens": True}, "reasoning_tokens": [1]}, TokenUsage(5, 3, 8)),
    ({**USAGE, "completion_tokens": 1e300}, TokenUsage(5, 0, 8)),
    ([], None),
    ("none", None),
    ({}, None),
    (True, None),
    ({"prompt_tokens": "?", "completion_tokens": []}, None),
    ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
]


@pytest.mark.parametrize(("usage", "counted"), USAGES)
def test_counters(usage: object, counted: TokenUsage | None) -> None:
    expected = [Text("Hi"), *([] if counted is None else [counted]), STOP]

    assert decode(HI, END, event({"choices": [], "usage": usage})) == expected
    assert decode(chunk({"content": "Hi"}, "stop", usage=usage), event({"choices": None, "usage": usage})) == expected
    assert ChatDecoder().whole(whole({"content": "Hi"}, usage=usage)) == expected


def test_usage_that_cannot_be_read_does_not_replace_what_was() -> None:
    assert decode(HI, END, event({"choices": [], "usage": USAGE}), event({"usage": []}))[-2:] == [
        TokenUsage(5, 3, 8),
        STOP,
    ]


ENTRY: Json = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
READ = TokenLogprob("Hi", -0.5, (72, 105))
LOGPROBS: list[tuple[object, tuple[TokenLogprob, ...]]] = [
    ({"content": [{**ENTRY, "logprob": None}]}, ()),
    ({"content": [{**ENTRY, "logprob": "?"}, ENTRY]}, (READ,)),
    ({"content": [{**ENTRY, "logprob": "-0.5"}]}, (READ,)),
    ({"content": [{**ENTRY, "logprob": float("-inf")}]}, (TokenLogprob("Hi", -9999.0, (72, 105)),)),
    ({"content": [{**ENTRY, "logprob": float("nan")}]}, ()),
    ({"content": [{**ENTRY, "token": 7}, None, 5, ENTRY]}, (READ,)),
    ({"content": [{**ENTRY, "bytes": ["72", 105.0]}]}, (READ,)),
    ({"content": [{**ENTRY, "bytes": "Hi"}]}, (TokenLogprob("Hi", -0.5),)),
    ({"content": [{**ENTRY, "bytes": [72, "x"]}]}, (TokenLogprob("Hi", -0.5),)),
    ({"content": [{**ENTRY, "token": "\ud83d", "bytes": None}]}, (TokenLogprob("\ufffd", -0.5),)),
    (
        {"content": [{**ENTRY, "top_logprobs": [{"token": "Ho", "logprob": None}, {"token": "Ha", "logprob": -2}]}]},
        (TokenLogprob("Hi", -0.5, (72, 105), (Logprob("Ha", -2.0),)),),
    ),
    ({"content": [{**ENTRY, "top_logprobs": {}}]}, (READ,)),
    ({"content": "none"}, ()),
    ([], ()),
    ("none", ()),
    (5, ()),
]


@pytest.mark.parametrize(("logprobs", "read"), LOGPROBS)
def test_log_probabilities(logprobs: object, read: tuple[TokenLogprob, ...]) -> None:
    assert decode(chunk({"content": "Hi"}, logprobs=logprobs), END) == [Text("Hi", read), STOP]


@pytest.mark.parametrize("value", [5, 0.5, True, [], {}, "x", [1], {"a": 1}, "\ud83d", None])
@pytest.mark.parametrize(
    "place", ["id", "created", "model", "object", "system_fingerprint", "service_tier", "timings", "x"]
)
def test_fields_that_are_not_read(place: str, value: object) -> None:
    assert decode(
        event({place: value, "choices": [{"delta": {"content": "Hi", place: value}, place: value}]}), END
    ) == [Text("Hi"), STOP]


@pytest.mark.parametrize(
    "payload", [b"null", b"[]", b"7", b'""', b"{}", b'{"choices":[null]}', b'{"choices":[[]]}', b'{"choices":{}}']
)
def test_payloads_with_nothing_in_them(payload: bytes) -> None:
    assert decode(HI, b"data: %b\n\n" % payload, END) == [Text("Hi"), STOP]


@pytest.mark.parametrize(
    "delta", [None, [], {}, {"content": None}, {"content": []}, {"tool_calls": []}, {"tool_calls": {}}, {"role": 1}]
)
def test_deltas_with_nothing_in_them(delta: object) -> None:
    assert decode(HI, chunk(delta), chunk(delta, "stop")) == [Text("Hi"), STOP]


# --- Words
# ---------------------------------------------------------------------------------------------------------------------

CONTENTS: list[tuple[Json, list[Any]]] = [
    ({"content": [{"type": "text", "text": "Hi"}]}, [Text("Hi")]),
    ({"content": {"type": "text", "text": "Hi"}}, [Text("Hi")]),
    ({"content": ["H", "i"]}, [Text("H"), Text("i")]),
    ({"content": [{"type": "output_text", "text": "Hi", "annotations": []}, {"type": "image_url"}]}, [Text("Hi")]),
    (
        {"content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"}]},
        [Reasoning("Hm"), Text("Hi")],
    ),
    ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}, [Reasoning("Hm")]),
    ({"content": [{"type": "reasoning", "text": "Hm"}, "Hi"]}, [Reasoning("Hm"), Text("Hi")]),
    (
        {"content": [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "b"}, {"text": "c"}]},
        [Text("a"), Reasoning("b"), Text("c")],
    ),
    ({"content": [{"type": "refusal", "refusal": "No."}]}, [Refusal("No.")]),
    (
        {"reasoning_content": [{"type": "text", "text": "H"}, {"type": "text", "text": "m"}], "content": "Hi"},
        [Reasoning("Hm"), Text("Hi")],
    ),
    ({"reasoning": {"content": "Hm"}, "content": None}, [Reasoning("Hm")]),
    ({"reasoning": ["H", "m"], "reasoning_content": None}, [Reasoning("Hm")]),
    ({"reasoning": 7, "content": "Hi"}, [Text("Hi")]),
    ({"refusal": [{"type": "text", "text": "No."}]}, [Refusal("No.")]),
    ({"refusal": False, "content": "Hi"}, [Text("Hi")]),
]


@pytest.mark.parametrize(("message", "deltas"), CONTENTS)
def test_words_in_parts(message: Json, deltas: list[Any]) -> None:
    assert decode(chunk(message), END) == ChatDecoder().whole(whole(message)) == [*deltas, STOP]


@pytest.mark.parametrize("content", [5, True, [5], [[["x", 1]]], 1.5])
def test_content_that_is_none_is_an_error(content: object) -> None:
    for read in (
        lambda: decode(chunk({"content": content}), END),
        lambda: ChatDecoder().whole(whole({"content": content})),
    ):
        with pytest.raises(UpstreamProtocolError, match="cannot be read"):
            read()


@pytest.mark.parametrize(
    "delta",
    ["text", 5, [1], {"tool_calls": "call"}, {"tool_calls": [5]}, {"tool_calls": [{"function": {"name": 5}}]}],
)
def test_a_message_or_call_that_is_none_is_an_error(delta: object) -> None:
    with pytest.raises(UpstreamProtocolError, match="cannot be read"):
        decode(chunk(delta), END)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ({"type": "length"}, "length"),
        ({"reason": "tool_calls"}, "tool_calls"),
        ("SAFETY", "content_filter"),
    ],
)
def test_finish_reasons_in_other_words(said: object, meant: str) -> None:
    assert summed(decode(HI, chunk({}, said))).finish == meant


@pytest.mark.parametrize("nothing", [False, 0, {}, [], ""])
def test_what_is_no_finish_reason_yet(nothing: object) -> None:
    assert decode(chunk({"content": "Hi"}, nothing), END) == [Text("Hi"), STOP]


def test_choices_that_are_none_are_an_error() -> None:
    with pytest.raises(UpstreamProtocolError, match="cannot be read"):
        decode(HI, event({"choices": 5}), END)


def test_a_finish_reason_that_is_none_is_an_error() -> None:
    with pytest.raises(UpstreamProtocolError, match="cannot be read"):
        decode(HI, chunk({}, 5))


# --- Which choice, and what is behind it
# ---------------------------------------------------------------------------------------


def choices(*entries: Json) -> bytes:
    return event({"choices": entries})


def other(index: Any, text: str, finish: str | None = None) -> Json:
    return {"index": index, "delta": {"content": text}, "finish_reason": finish}


def test_only_the_choice_asked_for_is_read() -> None:
    stream = [
        choices(other(1, "no"), other(0, "Hi")),
        choices(other(2, "no", "stop")),
        choices(other("1", "no", "length")),
        choices(other(1.0, "no")),
    ]

    assert decode(*stream, choices(other(1, "", "length"), other(0, "", "stop"))) == [Text("Hi"), STOP]


@pytest.mark.parametrize("index", [None, 0, "0", 0.0, [], "first"])
def test_a_choice_without_a_number_is_the_one(index: object) -> None:
    assert decode(choices(other(index, "Hi", "stop"))) == [Text("Hi"), STOP]


def test_choices_of_a_whole_answer_out_of_order() -> None:
    body = {
        "choices": [{"index": i, "message": {"content": str(i)}, "finish_reason": "stop"} for i in (2, 0, 1)],
        "usage": USAGE,
    }

    assert ChatDecoder().whole(json.dumps(body).encode()) == [Text("0"), TokenUsage(5, 3, 8), STOP]


def test_words_behind_the_finish_reason_are_left_out() -> None:
    more = chunk({"content": "more", "reasoning": "more", "refusal": "more"})

    assert decode(
        HI, END, more, event({"choices": [{"index": 0, "delta": {"content": [{"text": "m"}]}}], "usage": USAGE})
    ) == [
        Text("Hi"),
        TokenUsage(5, 3, 8),
        STOP,
    ]


@pytest.mark.parametrize(
    "junk", [b"data: {broken\n\n", b"data: pong\n\n", b'data: {"choices":[{"delta":5}]}\n\n', b"data: \xff\n\n"]
)
def test_junk_behind_the_finish_reason_costs_nothing(junk: bytes) -> None:
    assert decode(HI, END, junk, event({"choices": [], "usage": USAGE})) == [Text("Hi"), TokenUsage(5, 3, 8), STOP]


# --- An answer with nothing in it
# ----------------------------------------------------------------------------------------------

NOTHING: list[Json] = [
    {"role": "assistant", "content": ""},
    {"content": None},
    {"content": []},
    {"tool_calls": []},
    {"role": "assistant", "function_call": None},
]


@pytest.mark.parametrize("message", NOTHING)
@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}])
@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_an_empty_success_is_an_error_that_may_pass(message: Json, usage: object, finish: str) -> None:
    for read in (
        lambda: decode(chunk(message), chunk({}, finish), event({"choices": [], "usage": usage}), b"data: [DONE]\n\n"),
        lambda: ChatDecoder().whole(whole(message, finish, usage=usage)),
    ):
        with pytest.raises(UpstreamProtocolError, match="empty") as caught:
            read()
        assert (caught.value.status, caught.value.retryable) == (502, True)


def test_an_answer_that_is_empty_by_its_own_account_is_one() -> None:
    assert decode(chunk({"content": ""}, "stop"), event({"choices": [], "usage": USAGE})) == [TokenUsage(5, 3, 8), STOP]
    assert decode(chunk({"content": ""}, "content_filter")) == [TurnFinished("content_filter")]
    assert decode(chunk({"content": ""}, "length")) == [TurnFinished("length")]


@pytest.mark.parametrize(
    "delta", [{"content": " "}, {"reasoning": "Hm"}, {"refusal": "No."}, {"tool_calls": [call("f", index=0)]}]
)
def test_anything_at_all_is_an_answer(delta: Json) -> None:
    assert len(decode(chunk(delta), END)) == 2


# --- Characters
# ----------------------------------------------------------------------------------------------------------------


def test_a_byte_order_mark_before_the_first_event() -> None:
    assert decode(b"\xef\xbb\xbf" + HI, END) == [Text("Hi"), STOP]
    assert decode(b"\xef\xbb\xbf: ping\n\n" + HI, END) == [Text("Hi"), STOP]
    assert decode(HI.replace(b"data: ", b"data: \xef\xbb\xbf"), END) == [Text("Hi"), STOP]
    assert ChatDecoder().whole(b"\xef\xbb\xbf" + whole({"content": "Hi"})) == [Text("Hi"), STOP]


@pytest.mark.parametrize("marker", [b"data: [DONE]", b"data:[DONE] ", b"data:  [DONE]"])
def test_other_ways_to_write_the_marker(marker: bytes) -> None:
    decoder = ChatDecoder()

    assert decoder.feed(HI + END + marker + b"\n\n" + b"data: {broken\n\n") == [Text("Hi")]
    assert (decoder.done, decoder.failure) == (True, None)


def test_events_without_blank_lines_between_them() -> None:
    lines = HI + chunk({"content": "!"}) + END + event({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n"

    assert decode(lines.replace(b"\n\n", b"\n")) == [Text("Hi"), Text("!"), TokenUsage(5, 3, 8), STOP]


def test_control_characters_inside_strings() -> None:
    assert decode(b'data: {"choices":[{"delta":{"content":"a\tb"}}]}\n\n', END) == [Text("a\tb"), STOP]


def test_a_stream_that_is_announced_as_json() -> None:
    assert ChatDecoder().whole(HI + END + event({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n") == [
        Text("Hi"),
        TokenUsage(5, 3, 8),
        STOP,
    ]


def test_half_a_character_waits_for_the_other() -> None:
    decoder = ChatDecoder()

    assert decoder.feed(chunk({"content": "a\ud83d"})) == [Text("a")]
    assert decoder.feed(chunk({"content": "\ude00b"})) == [Text("\U0001f600b")]
    assert decoder.feed(chunk({"content": "\ud83d"})) == []
    assert decoder.feed(chunk({})) == []
    assert decoder.feed(chunk({"content": "\ude00"})) == [Text("\U0001f600")]
    assert decoder.feed(chunk({"content": "c"})) == [Text("c")]


@pytest.mark.parametrize(
    ("deltas", "read"),
    [
        ([{"content": "a\ud83d"}, {"content": "b"}], [Text("a"), Text("\ufffdb")]),
        ([{"content": "\ude00"}], [Text("\ufffd")]),
        ([{"reasoning": "\ud83d"}, {"content": "b"}], [Reasoning("\ufffd"), Text("b")]),
        ([{"content": "\ud83d"}, {"reasoning": "b"}], [Text("\ufffd"), Reasoning("b")]),
        ([{"refusal": "\ud83d\ud83d"}, {"refusal": "\ude00"}], [Refusal("\ufffd"), Refusal("\U0001f600")]),
    ],
)
def test_a_half_that_stands_alone(deltas: Sequence[Json], read: list[Any]) -> None:
    assert decode(*map(chunk, deltas), END) == [*read, STOP]


def test_halves_in_calls() -> None:
    pieces = [
        call("f", '{"a":"\ud83d', index=0, id="a"),
        call(None, '\ude00"', index=0),
        call(None, "}\ud83d", index=0),
    ]

    assert summed(decode(*(chunk({"tool_calls": [piece]}) for piece in pieces), END)).calls == [
        ("a", "f", '{"a":"\U0001f600"}\ufffd')
    ]
    assert summed(decode(chunk({"tool_calls": [call("f", {"\ud83d": ["\ude00"]}, index=0)]}), END)).calls == [
        ("", "f", '{"\ufffd":["\ufffd"]}')
    ]


WORDS = st.text(
    st.sampled_from(["a", '"', "\\", "\n", "é", "你", "\U0001f600", "\U0001f680", "\u2028", "\ufeff"]), max_size=12
)


def units(text: str) -> list[str]:
    """UTF-16 code units: a character outside the basic plane is two."""
    raw = text.encode("utf-16-le")
    return [raw[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(raw), 2)]


@given(WORDS, WORDS, WORDS, st.lists(st.integers(0, 10_000), max_size=10), st.integers(1, 3))
def test_any_cut_through_any_character(thought: str, said: str, value: str, cuts: list[int], size: int) -> None:
    def deltas(text: str) -> list[str]:
        pieces = units(text)
        return ["".join(pieces[at : at + size]) for at in range(0, len(pieces), size)]

    arguments = json.dumps({"a": value}, ensure_ascii=False)
    stream = [chunk({"reasoning": piece}) for piece in deltas(thought)]
    stream += [chunk({"content": [{"type": "text", "text": piece}]}) for piece in deltas(said)]
    stream += [
        chunk({"tool_calls": [call("f" if not n else None, piece, index=0)]})
        for n, piece in enumerate(deltas(arguments))
    ]
    stream += [
        chunk({}, "tool_calls"),
        event({"choices": [], "usage": {"prompt_tokens": "5", "completion_tokens": 3.0}}),
    ]
    message = {"reasoning": thought, "content": said, "tool_calls": [call("f", arguments)]}

    got = summed(decode(*cut(b"".join(stream), cuts), tools=offered("f")))

    assert got == summed(ChatDecoder().whole(whole(message, "tool_calls", usage=USAGE)))
    assert (got.reasoning, got.text, got.calls) == (thought, said, [("", "f", arguments)])


# --- Errors in a stream
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"loc": ["body", "messages"], "msg": "Field required", "type": "missing"}]},
        {"error": {"message": "Field required\ud83d"}},
        {"choices": None, "error_type": "x", "error_message": "Field required"},
    ],
)
def test_errors_in_odd_shapes(body: Json) -> None:
    with pytest.raises(UpstreamError, match="Field required"):
        decode(event(body))
