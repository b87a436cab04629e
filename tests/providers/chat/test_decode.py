"""The Chat decoder: recorded streams, every quirk a server is known for, and every way an answer can break.

No network.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.deltas import CallArguments, CallOpened, Delta, Reasoning, Refusal, Text, TurnFinished
from app.protocol.wire.tokens import Logprob, TokenLogprob, TokenUsage
from app.providers.base import UpstreamError, UpstreamProtocolError
from app.providers.chat.decode import ChatDecoder
from tests.providers.chat_upstream import sample

STOP = TurnFinished("stop")
SAMPLES: dict[str, list[Delta]] = {
    "dashscope-thinking.sse": [
        Reasoning("The user"),
        Reasoning(" greets."),
        Text("你好"),
        Text("!"),
        TokenUsage(1200, 9, 1209, cached_tokens=256, cache_write_tokens=512, reasoning_tokens=5),
        STOP,
    ],
    "dashscope-calls.sse": [
        CallOpened(0, "call_a1", "get_weather"),
        CallArguments(0, '{"city": '),
        CallArguments(0, '"Hangzhou"}'),
        CallOpened(1, "call_b2", "get_time"),
        CallArguments(1, "{}"),
        TokenUsage(30, 20, 50),
        TurnFinished("tool_calls"),
    ],
    "llamacpp-text.sse": [
        Text("</"),
        Text("th"),
        Text("ink"),
        Text(">"),
        TokenUsage(32, 5, 37, cached_tokens=31),
        STOP,
    ],
}


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return b"data: %b\n\n" % json.dumps({"id": "chatcmpl-1", "choices": [choice], "usage": None}).encode()


def event(body: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(body).encode()


def decoded(*pieces: bytes) -> list[Delta]:
    """All deltas of a stream that ends after these pieces; what broke it is raised."""
    decoder = ChatDecoder()
    deltas: list[Delta] = []
    for piece in pieces:
        deltas += decoder.feed(piece)
        if decoder.failure:
            raise decoder.failure
    return deltas + decoder.end()


def call(arguments: str | None = None, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calls(*pieces: dict[str, Any]) -> list[Delta]:
    """The deltas of calls whose pieces come in chunks of their own."""
    *deltas, finish = decoded(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "stop"))
    assert finish == TurnFinished("tool_calls")
    return deltas


@pytest.mark.parametrize("name", SAMPLES)
def test_recorded_streams(name: str) -> None:
    assert decoded(sample(name)) == SAMPLES[name]


@given(st.data())
def test_any_cut_gives_the_same_deltas(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*SAMPLES]))
    stream = sample(name)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))

    assert decoded(*(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))) == SAMPLES[name]


def test_a_recorded_call_in_fragments() -> None:
    opened, *fragments, usage, finish = decoded(sample("llamacpp-call.sse"))

    assert opened == CallOpened(0, "hoNNIMNzmtpuVY3IrRIWeyHZSyFj2kDp", "get_weather")
    arguments = "".join(delta.fragment for delta in fragments if isinstance(delta, CallArguments))
    assert json.loads(arguments) == {"city": "Hangzhou", "unit": "celsius"}
    assert [usage, finish] == [TokenUsage(199, 25, 224), TurnFinished("tool_calls")]


# --- Text and thinking
# ---------------------------------------------------------------------------------------------------------


def test_thinking_under_either_name_and_once_under_both() -> None:
    stream = (
        chunk({"reasoning": "a"}),
        chunk({"reasoning_content": "b"}),
        chunk({"reasoning": "c", "reasoning_content": "c", "content": "d"}),
    )

    assert decoded(*stream, chunk({}, "stop")) == [Reasoning("a"), Reasoning("b"), Reasoning("c"), Text("d"), STOP]


def test_a_refusal() -> None:
    assert decoded(chunk({"content": None, "refusal": "No."}, "stop")) == [Refusal("No."), STOP]


def test_log_probabilities_belong_to_the_text() -> None:
    token = {
        "token": "Hi",
        "bytes": [72, 105],
        "logprob": -0.5,
        "top_logprobs": [{"token": "Ho", "logprob": -1.5, "bytes": None}],
    }

    deltas = decoded(
        chunk({"content": "Hi"}, logprobs={"content": [token]}),
        chunk({"content": ""}, "stop", logprobs={"content": None}),
    )

    assert deltas == [Text("Hi", (TokenLogprob("Hi", -0.5, (72, 105), (Logprob("Ho", -1.5),)),)), STOP]


# --- Calls
# ---------------------------------------------------------------------------------------------------------------------


def test_a_whole_call_in_one_chunk() -> None:
    assert calls(call("{}", "f", index=0, id="a")) == [CallOpened(0, "a", "f"), CallArguments(0, "{}")]


def test_empty_and_repeated_names_and_ids_change_nothing() -> None:
    pieces = [call("", "f", index=0, id="a"), call("{", "", index=0, id=""), call("}", "f", index=0, id="a")]

    assert calls(*pieces) == [CallOpened(0, "a", "f"), CallArguments(0, "{"), CallArguments(0, "}")]


def test_calls_without_an_id() -> None:
    assert calls(call("{}", "f", index=0), call("{}", "g", index=1)) == [
        CallOpened(0, "", "f"),
        CallArguments(0, "{}"),
        CallOpened(1, "", "g"),
        CallArguments(1, "{}"),
    ]


def test_calls_without_an_index() -> None:
    """A name opens a call; what has none goes to the call before."""
    assert calls(call("", "f", id="a"), call("{}"), call("[1", "g"), call("]")) == [
        CallOpened(0, "a", "f"),
        CallArguments(0, "{}"),
        CallOpened(1, "", "g"),
        CallArguments(1, "[1"),
        CallArguments(1, "]"),
    ]


def test_calls_that_all_have_index_0() -> None:
    assert calls(call("{}", "f", index=0, id="a"), call("", "g", index=0, id="b"), call("{}", index=0)) == [
        CallOpened(0, "a", "f"),
        CallArguments(0, "{}"),
        CallOpened(1, "b", "g"),
        CallArguments(1, "{}"),
    ]


def test_interleaved_calls() -> None:
    pieces = [call("1", "f", index=0, id="a"), call("2", "g", index=1, id="b"), call("3", index=0), call("4", index=1)]

    assert [(d.index, d.fragment) for d in calls(*pieces) if isinstance(d, CallArguments)] == [
        (0, "1"),
        (1, "2"),
        (0, "3"),
        (1, "4"),
    ]


def test_arguments_wait_for_the_name() -> None:
    pieces = [{"index": 0, "id": "a"}, call("{", index=0), call("}", "f", index=0)]

    assert calls(*pieces) == [CallOpened(0, "a", "f"), CallArguments(0, "{}")]


def test_a_call_without_a_name_is_an_error() -> None:
    with pytest.raises(UpstreamProtocolError, match="without a name"):
        decoded(chunk({"tool_calls": [call("{}", index=0, id="a")]}), chunk({}, "tool_calls"))


# --- Usage and end
# -------------------------------------------------------------------------------------------------------------


def test_of_usage_on_every_chunk_the_last_counts() -> None:
    texts = [
        event({"choices": [{"delta": {"content": "a"}}], "usage": {"prompt_tokens": 5, "completion_tokens": n}})
        for n in (1, 2)
    ]

    assert decoded(*texts, chunk({}, "stop")) == [Text("a"), Text("a"), TokenUsage(5, 2, 7), STOP]


def test_sglang_counts_thinking_beside_the_details() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "reasoning_tokens": 2,
        "prompt_tokens_details": None,
    }

    assert decoded(chunk({}, "stop"), event({"choices": [], "usage": usage})) == [
        TokenUsage(5, 3, 8, reasoning_tokens=2),
        STOP,
    ]


@pytest.mark.parametrize(
    "ending", [b"", b"data: [DONE]\n\n", b"data: [DONE]"], ids=["cut", "marked", "marked, without a blank line"]
)
def test_the_finish_reason_ends_an_answer_not_the_marker(ending: bytes) -> None:
    assert decoded(chunk({"content": "a"}), chunk({}, "stop"), ending) == [Text("a"), STOP]


def test_nothing_is_read_after_the_marker() -> None:
    decoder = ChatDecoder()

    assert decoder.feed(chunk({"content": "a"}, "stop") + b"data: [DONE]\n\ndata: {broken\n\n") == [Text("a")]
    assert decoder.done
    assert decoder.failure is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("stop", "stop"),
        ("eos_token", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("sensitive", "content_filter"),
    ],
)
def test_finish_reasons(said: str, meant: str) -> None:
    *_, last = decoded(chunk({"content": "a"}, ""), chunk({}, "null"), chunk({}, said), chunk({}, "length"))

    assert isinstance(last, TurnFinished)
    assert last.reason == meant


def test_an_answer_cut_inside_a_call_is_cut() -> None:
    *_, last = decoded(chunk({"tool_calls": [call("{", "f", index=0)]}), chunk({}, "length"))

    assert last == TurnFinished("length")


# --- Whole answers
# -------------------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_the_same_deltas() -> None:
    tools = [call("{}", "f", id="a"), call("[]", "g", id="b")]
    message = {"role": "assistant", "content": "Hi", "reasoning": "Hm", "tool_calls": tools}
    body = {
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }

    assert ChatDecoder().whole(json.dumps(body).encode()) == [
        Reasoning("Hm"),
        Text("Hi"),
        CallOpened(0, "a", "f"),
        CallArguments(0, "{}"),
        CallOpened(1, "b", "g"),
        CallArguments(1, "[]"),
        TokenUsage(1, 2, 3),
        TurnFinished("tool_calls"),
    ]


def test_recorded_whole_answers() -> None:
    reasoning, usage, finish = ChatDecoder().whole(sample("llamacpp-thinking.json"))
    assert isinstance(reasoning, Reasoning)
    assert [usage, finish] == [TokenUsage(37, 107, 144, cached_tokens=36), STOP]

    text, _, finish = ChatDecoder().whole(sample("llamacpp-logprobs.json"))
    assert isinstance(text, Text)
    assert [token.token for token in text.logprobs] == ["Sure", ","]
    assert [other.token for other in text.logprobs[0].top_logprobs] == ["A", "Sure"]
    assert finish == TurnFinished("length")


# --- What breaks an answer
# -----------------------------------------------------------------------------------------------------

BROKEN = {
    "not JSON": b"data: {broken\n\n",
    "not UTF-8": b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
    "another shape": b'data: {"choices":[{"delta":{"content":[1]}}]}\n\n',
    "cut in a chunk": b'data: {"choices":[{"del',
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_chunk_that_cannot_be_read(broken: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="cannot be read"):
        decoded(chunk({"content": "a"}), broken)


@pytest.mark.parametrize("stream", [b"", chunk({"content": "a"}), chunk({"content": "a"}) + b"data: [DONE]\n\n"])
def test_a_stream_without_a_finish_reason(stream: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="without a finish reason"):
        decoded(stream)


@pytest.mark.parametrize("body", [b"{}", b'{"choices":[]}', b'{"choices":[{"message":{"content":"a"}}]}'])
def test_a_whole_answer_without_a_finish_reason(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="without a finish reason"):
        ChatDecoder().whole(body)


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_answer_the_server_gave_up(reason: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        decoded(chunk({"content": "a"}), chunk({}, reason))

    assert (caught.value.status, caught.value.retryable) == (502, True)


ERRORS = {
    "nested": (
        event({"error": {"message": "boom", "type": "InternalServerError", "code": 500}}),
        502,
        "upstream_error",
    ),
    "flat": (
        event({"code": "DataInspectionFailed", "message": "Output data may contain inappropriate content."}),
        400,
        "content_policy_violation",
    ),
    "beside choices": (
        event({"choices": [{"delta": {}, "finish_reason": "error"}], "error": "boom"}),
        502,
        "upstream_error",
    ),
    "event:error": (sample("dashscope-throttled.sse"), 429, "rate_limit_exceeded"),
    "by its status comment": (
        b'event:error\n:HTTP_STATUS/503\ndata:{"code":"Odd","message":"busy"}\n\n',
        503,
        "server_is_overloaded",
    ),
}


@pytest.mark.parametrize(("failing", "status", "code"), ERRORS.values(), ids=ERRORS.keys())
def test_an_error_inside_the_stream_leaves_what_came_before(failing: bytes, status: int, code: str) -> None:
    decoder = ChatDecoder()

    assert decoder.feed(chunk({"content": "a"}) + failing + b"data: [DONE]\n\n") == [Text("a")]

    assert decoder.failure is not None
    assert (decoder.failure.status, decoder.failure.code) == (status, code)


@pytest.mark.parametrize("later", [{}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}])
def test_usage_that_says_nothing_takes_nothing_away(later: object) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    said = [
        chunk({"content": "a"}),
        chunk({}, "stop"),
        event({"choices": [], "usage": usage}),
        event({"choices": [], "usage": later}),
    ]
    assert decoded(*said) == [Text("a"), TokenUsage(5, 3, 8), STOP]


@pytest.mark.parametrize(
    "first", [b"", b"\n", b":\n\n", b"retry: 3\n\n", b"\xef\xbb\xbf"], ids=["", "blank", "comment", "retry", "mark"]
)
def test_a_stream_that_was_announced_as_json_is_read_as_one(first: bytes) -> None:
    body = first + chunk({"content": "a"}) + chunk({}, "stop") + b"data: [DONE]\n\n"
    assert ChatDecoder().whole(body) == [Text("a"), STOP]
