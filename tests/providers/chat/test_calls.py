"""Which call a piece belongs to: what servers really send in the place of one index, one id and one name a call."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.deltas import CallArguments, CallOpened, Reasoning, Text, TurnFinished
from app.providers.base import UpstreamProtocolError
from app.providers.chat.decode import ChatDecoder
from tests.providers.chat_stream import USAGE, Json, call, chunk, cut, decode, offered, summed, whole

ROME, OSLO = '{"city":"Rome"}', '{"city":"Oslo"}'
END = chunk({}, "tool_calls")


def streamed(*pieces: Json, tools: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """The calls of a stream with a chunk a piece."""
    total = summed(decode(*(chunk({"tool_calls": [piece]}) for piece in pieces), END, tools=offered(*tools)))
    assert total.finish == "tool_calls"
    return total.calls


def at_once(*entries: Json) -> list[tuple[str, str, str]]:
    """The calls of a whole message."""
    return summed(ChatDecoder().whole(whole({"role": "assistant", "tool_calls": [*entries]}))).calls


# --- Whole messages
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "identity", [{}, {"id": None}, {"id": ""}, {"id": "a"}, {"id": "a", "index": 0}, {"index": 0}, {"id": 7}]
)
def test_every_entry_of_a_whole_message_is_a_call(identity: Json) -> None:
    calls = at_once(call("f", ROME, **identity), call("f", OSLO, **identity), call("f", OSLO, **identity))

    assert [arguments for _, _, arguments in calls] == [ROME, OSLO, OSLO]


def test_a_whole_message_in_a_stream_is_read_the_same() -> None:
    message = {"role": "assistant", "tool_calls": [call("f", ROME, id="a"), call("f", OSLO, id="a")]}
    stream = (
        b'data: {"choices":[{"index":0,"message":%b,"finish_reason":"tool_calls"}]}\n\n' % json.dumps(message).encode()
    )

    assert summed(decode(stream)).calls == [("a", "f", ROME), ("a", "f", OSLO)]


# --- One index for all
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "identity", [{"index": 0}, {"index": 0, "id": "a"}, {}, {"id": "a"}, {"index": None, "id": None}]
)
class TestOneIdentityForAll:
    """Every piece has the same index and id, or none."""

    def test_a_name_behind_whole_arguments_begins_a_call(self, identity: Json) -> None:
        calls = streamed(call("f", ROME, **identity), call("f", OSLO, **identity), call("g", "{}", **identity))

        assert [(name, arguments) for _, name, arguments in calls] == [("f", ROME), ("f", OSLO), ("g", "{}")]

    def test_so_it_does_when_the_arguments_come_later(self, identity: Json) -> None:
        pieces = [call("f", "", **identity), call(None, '{"city":', **identity), call(None, '"Rome"}', **identity)]
        pieces += [call("f", "", **identity), call(None, '{"city":"Os', **identity), call(None, 'lo"}', **identity)]

        assert [(name, arguments) for _, name, arguments in streamed(*pieces)] == [("f", ROME), ("f", OSLO)]

    def test_a_name_in_every_piece_changes_nothing(self, identity: Json) -> None:
        pieces = [call("f", piece, **identity) for piece in ("", '{"ci', 'ty":', '"{}"', ',"n":{"a":1}', "}", "")]

        assert [(name, arguments) for _, name, arguments in streamed(*pieces)] == [("f", '{"city":"{}","n":{"a":1}}')]

    def test_the_same_arguments_said_again_are_no_call(self, identity: Json) -> None:
        pieces = [
            call("f", '{"city":', **identity),
            call(None, '"Rome"}', **identity),
            call("f", '{"city": "Rome"}', **identity),
        ]

        assert [arguments for _, _, arguments in streamed(*pieces)] == [ROME]

    def test_another_name_begins_a_call_without_arguments(self, identity: Json) -> None:
        assert [
            (name, arguments) for _, name, arguments in streamed(call("f", **identity), call("g", "", **identity))
        ] == [
            ("f", ""),
            ("g", ""),
        ]

    def test_arguments_that_are_not_told_at_first(self, identity: Json) -> None:
        pieces = [call("f", "{}", **identity), call(None, '{"city":', **identity), call(None, '"Rome"}', **identity)]

        assert [arguments for _, _, arguments in streamed(*pieces)] == [ROME]


@pytest.mark.parametrize("index", [{"index": 0}, {}])
def test_another_id_begins_a_call(index: Json) -> None:
    pieces = [
        call("f", ROME, id="a", **index),
        call("f", ROME, id="b", **index),
        call("f", "", id="c", **index),
        call(None, OSLO, **index),
    ]

    assert streamed(*pieces) == [("a", "f", ROME), ("b", "f", ROME), ("c", "f", OSLO)]


def test_another_id_begins_a_call_without_a_name() -> None:
    assert streamed(call("f", ROME, index=0, id="a"), call(None, OSLO, index=0, id="b")) == [
        ("a", "f", ROME),
        ("b", "f", OSLO),
    ]


@pytest.mark.parametrize("name", [None, "f"])
def test_an_id_made_up_for_every_piece(name: str | None) -> None:
    fragments = ('{"ci', 'ty":"Ro', 'me"', "}", "")
    pieces = [
        call("f", "", index=0, id="x"),
        *(call(name, piece, index=0, id=f"x{n}") for n, piece in enumerate(fragments[1:])),
    ]
    pieces.insert(1, call(name and None, fragments[0], index=0, id="y"))

    assert streamed(*pieces[:-1]) == [("x", "f", ROME)]


def test_parallel_calls_with_one_id_under_indexes_of_their_own() -> None:
    pieces = [
        call("f", "", index=0, id="a"),
        call("f", "", index=1, id="a"),
        call(None, ROME, index=0),
        call(None, OSLO, index=1),
    ]

    assert streamed(*pieces) == [("a", "f", ROME), ("a", "f", OSLO)]


def test_pieces_told_apart_by_their_ids_alone() -> None:
    pieces = [
        call("f", '{"city":', id="a"),
        call("g", '{"city":', id="b"),
        call(None, '"Rome"}', id="a"),
        call(None, '"Oslo"}', id="b"),
    ]

    assert streamed(*pieces) == [("a", "f", ROME), ("b", "g", OSLO)]


# --- Tails
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"id": "a"}, {"id": ""}])
def test_a_tail_under_the_next_index(more: Json) -> None:
    pieces = [
        call("f", '{"city":', index=0, id="a"),
        call(None, '"Ro', index=1, **more),
        call(None, 'me"}', index=1, **more),
    ]
    pieces += [call(None, "", index=2), call("f", OSLO, index=1, id="b")]

    assert streamed(*pieces) == [("a", "f", ROME), ("b", "f", OSLO)]


@pytest.mark.parametrize(
    "empty", [call(index=1), call("", "", index=1, id=""), {"index": 1, "id": "b"}, {"index": 1, "function": None}]
)
def test_a_piece_with_nothing_in_it_is_no_call(empty: Json) -> None:
    assert streamed(call("f", ROME, index=0, id="a"), empty) == [("a", "f", ROME)]


def test_arguments_that_no_name_comes_for() -> None:
    with pytest.raises(UpstreamProtocolError, match="without a name"):
        streamed(call("f", ROME, index=0), call(None, OSLO, index=1))
    with pytest.raises(UpstreamProtocolError, match="without a name"):
        at_once(call(None, ROME, id="a"))


# --- Names in pieces
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", [{"index": 0, "id": "a"}, {"index": 0}, {}])
@pytest.mark.parametrize(
    "pieces", [("get_", "weather"), ("g", "et_wea", "ther"), ("get_", "get_weather"), ("get_weather", "get_weather")]
)
def test_a_name_in_pieces(pieces: Sequence[str], identity: Json) -> None:
    tools = ["get_weather", "get_weather_now", "other"]
    parts = [call(name, "", **identity) for name in pieces]

    assert [
        (name, arguments) for _, name, arguments in streamed(*parts, call(None, ROME, **identity), tools=tools)
    ] == [("get_weather", ROME)]
    assert [name for _, name, _ in streamed(*parts, tools=tools)] == ["get_weather"]
    *parts, last = parts
    last["function"]["arguments"] = ROME
    assert [(name, arguments) for _, name, arguments in streamed(*parts, last, tools=tools)] == [("get_weather", ROME)]


def test_a_call_is_opened_as_soon_as_its_name_is_known() -> None:
    def opened(*names: str) -> list[int]:
        decoder = ChatDecoder(offered("get", "get_weather", "other"))
        return [len(decoder.feed(chunk({"tool_calls": [call(name, index=0)]}))) for name in names]

    assert opened("get_", "weather") == [0, 1]
    assert opened("other") == [1]
    assert opened("get", "_weather") == [0, 1]


def test_names_of_parallel_calls_are_not_joined() -> None:
    tools = ["get", "get_weather", "now"]

    assert [
        name for _, name, _ in streamed(call("get", index=0), call("now", index=0), call("get", index=1), tools=tools)
    ] == [
        "get",
        "now",
        "get",
    ]
    assert [
        name for _, name, _ in streamed(call("get", index=0, id="a"), call("_weather", index=0, id="b"), tools=tools)
    ] == [
        "get",
        "_weather",
    ]


def test_a_name_that_is_not_offered() -> None:
    assert [
        (name, arguments)
        for _, name, arguments in streamed(call("odd", "", index=0), call(None, ROME, index=0), tools=["f"])
    ] == [("odd", ROME)]


# --- Other fields
# --------------------------------------------------------------------------------------------------------------


def test_a_call_in_the_field_there_was_before() -> None:
    stream = [
        chunk({"function_call": {"name": "f", "arguments": ""}}),
        *(chunk({"function_call": {"arguments": p}}) for p in ROME),
    ]

    assert summed(decode(*stream, chunk({}, "function_call"))) == summed(
        ChatDecoder().whole(
            whole({"content": None, "function_call": {"name": "f", "arguments": ROME}}, "function_call")
        )
    )
    assert summed(decode(*stream, chunk({}, "function_call"))).calls == [("", "f", ROME)]


@pytest.mark.parametrize("empty", [None, {}, {"name": "", "arguments": ""}])
def test_an_empty_one_is_none(empty: Json | None) -> None:
    assert summed(decode(chunk({"content": "Hi", "function_call": empty}), chunk({}, "stop"))).finish == "stop"


def test_a_call_in_both_fields_is_one() -> None:
    both = {"tool_calls": [call("f", ROME, index=0, id="a")], "function_call": {"name": "f", "arguments": ROME}}

    assert summed(decode(chunk(both), END)).calls == [("a", "f", ROME)]
    assert summed(ChatDecoder().whole(whole(both))).calls == [("a", "f", ROME)]


@pytest.mark.parametrize("arguments", [{"city": "Rome"}, {"city": "Rome", "n": [1, {"a": None}]}])
def test_arguments_that_are_an_object(arguments: Json) -> None:
    for calls in (streamed(call("f", arguments, index=0, id="a")), at_once(call("f", arguments, id="a"))):
        assert [(name, json.loads(text)) for _, name, text in calls] == [("f", arguments)]


@pytest.mark.parametrize(
    "pieces",
    [
        [{"city": "Rome"}, {"n": 1}],
        [{}, {"city": "Rome", "n": 1}],
        [{"city": "Ro"}, {"city": "Rome", "n": 1}],
        [{"city": "Rome", "n": 1}, {"city": "Rome", "n": 1}, {}],
        [{"city": "Rome", "n": 1}, ""],
        [{}, '{"city":"Rome",', '"n":1}'],
    ],
)
def test_objects_over_several_chunks_are_one(pieces: Sequence[Any]) -> None:
    (_, name, text), *others = streamed(
        call("f", pieces[0], index=0, id="a"), *(call(None, piece, index=0) for piece in pieces[1:])
    )

    assert (name, json.loads(text), others) == ("f", {"city": "Rome", "n": 1}, [])


def test_an_object_that_grows_under_its_name() -> None:
    pieces = [call("f", {"city": "Rome"}, index=0, id="a"), call("f", {"city": "Rome", "n": 1}, index=0, id="a")]

    assert [json.loads(text) for _, _, text in streamed(*pieces)] == [{"city": "Rome", "n": 1}]


def test_objects_of_several_calls_stay_apart() -> None:
    calls = streamed(
        call("f", {"city": "Rome"}, index=0), call("f", {"city": "Oslo"}, index=0), call("g", {"city": "Rome"}, index=0)
    )

    assert [(name, json.loads(text)["city"]) for _, name, text in calls] == [
        ("f", "Rome"),
        ("f", "Oslo"),
        ("g", "Rome"),
    ]


@pytest.mark.parametrize(("given", "text"), [(None, ""), ("", ""), ("null", "{}"), ({}, "{}"), ([1], "[1]"), (7, "7")])
def test_other_arguments(given: object, text: str) -> None:
    piece = call("f", index=0, id="a")
    piece["function"]["arguments"] = given

    assert streamed(piece) == at_once(piece) == [("a", "f", text)]


@pytest.mark.parametrize(("given", "text"), [(7, "7"), (None, ""), ("", ""), ({}, "")])
def test_ids_that_are_not_text(given: object, text: str) -> None:
    assert streamed(call("f", "{}", index=0, id=given)) == at_once(call("f", "{}", id=given)) == [(text, "f", "{}")]


def test_an_entry_without_the_object_around_it() -> None:
    flat = {"index": 0, "id": "a", "type": "function", "name": "f", "arguments": ROME}

    assert streamed(flat) == at_once(flat) == [("a", "f", ROME)]


def test_pieces_stay_with_their_call_whatever_comes_between() -> None:
    stream = [
        chunk({"tool_calls": [call("f", '{"city":', index=0, id="a")]}),
        chunk({"content": "late"}),
        chunk({"reasoning": "hm"}),
    ]

    stream.append(chunk({"tool_calls": [call(None, '"Rome"}', index=0)]}))

    assert decode(*stream, END) == [
        CallOpened(0, "a", "f"),
        CallArguments(0, '{"city":'),
        Text("late"),
        Reasoning("hm"),
        CallArguments(0, '"Rome"}'),
        TurnFinished("tool_calls"),
    ]


def test_a_name_in_each_of_many_pieces_does_not_cost_more_than_the_pieces() -> None:
    """Whether the arguments are whole is asked at each of them, and read from the beginning only where it may be so."""
    values: list[Json] = [{"a}": '"\\"', "b": [{}]}] * 4000
    text = json.dumps({"all": values})
    pieces = [call("f", text[at : at + 9], index=0, id="a") for at in range(0, len(text), 9)]

    began = time.process_time()
    assert streamed(*pieces) == [("a", "f", text)]
    assert time.process_time() - began < 5  # a hundredth of what reading it each time would take


def test_calls_behind_the_finish_reason_count() -> None:
    stream = [chunk({"tool_calls": [call("f", ROME, index=0, id="a")]}, "tool_calls")]

    assert [
        arguments
        for _, _, arguments in summed(decode(*stream, chunk({"tool_calls": [call("f", OSLO, index=1, id="b")]}))).calls
    ] == [
        ROME,
        OSLO,
    ]


# --- Over every split
# ----------------------------------------------------------------------------------------------------------

ARGUMENTS = st.dictionaries(
    st.sampled_from(["a", "b", 'q"', "{}"]), st.text(max_size=8) | st.integers() | st.just({"x": ["}"]}), min_size=1
)
CALLS = st.lists(st.tuples(st.sampled_from(["get", "get_weather", "now"]), ARGUMENTS), min_size=1, max_size=4)
MANNERS = (
    "by the protocol",
    "name and id repeated",
    "all under index 0",
    "no index",
    "one id",
    "ids alone",
    "name in pieces",
)


def pieces_of(calls: Sequence[tuple[str, Json]], manner: str, cuts: Sequence[int]) -> Iterator[Json]:
    """The calls as a server of this manner streams them."""
    for number, (name, values) in enumerate(calls):
        index: Json = (
            {}
            if manner in ("no index", "ids alone")
            else {"index": 0 if manner in ("all under index 0", "one id") else number}
        )
        identity: Json = {} if manner in ("no index",) else {"id": "same" if manner == "one id" else f"call_{number}"}
        fragments = [piece.decode() for piece in cut(json.dumps(values).encode(), cuts)]
        if manner == "name in pieces":
            yield call(name[:2], "", **index, **identity)
            yield call(name[2:], "", **index)
        else:
            yield call(name, "", **index, **identity)
        repeats = manner == "name and id repeated"
        for fragment in fragments:
            yield call(
                name if repeats else None, fragment, **index, **(identity if repeats or manner == "ids alone" else {})
            )


@given(
    CALLS,
    st.sampled_from(MANNERS),
    st.lists(st.integers(0, 300), max_size=6),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_a_stream_of_calls_is_the_whole_message(
    calls: Sequence[tuple[str, Json]], manner: str, fragments: Sequence[int], cuts: Sequence[int]
) -> None:
    # Under one id, the same call once more is the same call.
    distinct = [
        one for n, one in enumerate(calls) if not (n and manner in ("one id", "no index") and one == calls[n - 1])
    ]
    stream = b"".join(chunk({"tool_calls": [piece]}) for piece in pieces_of(distinct, manner, fragments)) + END
    entries = [call(name, json.dumps(values), id="x") for name, values in distinct]
    message = whole({"tool_calls": entries}, "tool_calls", usage=USAGE)

    got = summed(decode(*cut(stream, cuts), tools=offered("get", "get_weather", "now")))

    assert [(name, arguments) for _, name, arguments in got.calls] == [
        (name, arguments) for _, name, arguments in summed(ChatDecoder().whole(message)).calls
    ]


def test_the_deltas_of_a_call_come_as_it_is_written() -> None:
    decoder = ChatDecoder(offered("f"))

    assert decoder.feed(chunk({"tool_calls": [call("f", "", index=0, id="a")]})) == [CallOpened(0, "a", "f")]
    assert decoder.feed(chunk({"tool_calls": [call(None, '{"a', index=0)]})) == [CallArguments(0, '{"a')]
    assert decoder.feed(chunk({"content": "x"})) == [Text("x")]
    assert decoder.feed(chunk({"tool_calls": [call(None, '":1}', index=0)]})) == [CallArguments(0, '":1}')]
