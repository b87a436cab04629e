"""Which result belongs to which call, and what is only sent again: ids of calls need not be unique, and nothing is lost
for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.conversation.context import Context
from app.engine.conversation.known_calls import KnownCalls
from app.engine.conversation.open_calls import MALFORMED_NOTE
from app.protocol.messages import Assistant, Call, Message, ToolResult, User
from app.protocol.recovery.arguments import MALFORMED
from tests.engine.conversing import USER, Json, after, call, messages, opened, output, refusal, said, transcribe


def made(number: int, call_id: str = "a") -> Json:
    """A call that can be told from all others."""
    return call(call_id, arguments=json.dumps({"n": number}))


def exchanges(read: Sequence[Message]) -> list[tuple[str, str]]:
    """Arguments and result of each call; every result stands behind its call, and no message has two calls of
    one id.
    """
    found: list[tuple[str, str]] = []
    open_calls: dict[str, Call] = {}
    for message in read:
        if isinstance(message, ToolResult):
            found.append((open_calls.pop(message.call_id).arguments, message.content))
            continue
        assert not open_calls
        if isinstance(message, Assistant):
            open_calls = {one.call_id: one for one in message.calls}
            assert len(open_calls) == len(message.calls)
    assert not open_calls
    return found


def test_calls_of_one_id_one_after_the_other_all_reach_the_model() -> None:
    items = (USER, made(1), output("a", "one"), said("So."), made(2), output("a", "two"), made(3), output("a", "three"))
    assert exchanges(messages(*items)) == [('{"n": 1}', "one"), ('{"n": 2}', "two"), ('{"n": 3}', "three")]


def test_the_very_same_call_and_result_twice_in_a_history_are_two() -> None:
    assert (
        exchanges(messages(USER, made(1), output("a", "wait"), made(1), output("a", "wait"), USER))
        == [('{"n": 1}', "wait")] * 2
    )


def test_parallel_calls_of_one_id_get_ids_of_their_own_upstream() -> None:
    items = (
        USER,
        made(1),
        made(2),
        call("a_2"),
        made(3),
        output("a", "one"),
        output("a_2", "other"),
        output("a", "two"),
        output("a", "3"),
    )
    assert messages(*items)[1:] == [
        Assistant(
            "",
            calls=(
                Call("a", "f", '{"n": 1}'),
                Call("a_3", "f", '{"n": 2}'),
                opened("a_2"),
                Call("a_4", "f", '{"n": 3}'),
            ),
        ),
        ToolResult("a", "one"),
        ToolResult("a_3", "two"),
        ToolResult("a_2", "other"),
        ToolResult("a_4", "3"),
    ]


@pytest.mark.parametrize(
    ("items", "at"),
    [
        ((USER, output("a")), 1),
        ((USER, made(1), output("a", "one"), output("a", "two")), 3),
        ((USER, made(1), output("a", "one"), output("a", "one")), 3),
        ((USER, made(1), output("b"), output("a")), 2),
        ((output("a"), made(1)), 0),
        ((USER, {"type": "custom_tool_call_output", "call_id": "a", "output": "x"}), 1),
    ],
)
def test_a_result_that_no_call_waits_for_is_refused_at_its_place(items: tuple[Json, ...], at: int) -> None:
    error = refusal(*items)
    wanted = items[at]["call_id"]
    assert error.message.startswith(f"No tool call found for function call output with call_id {wanted}. ")
    assert f"'input[{at}]'" in error.message
    assert error.param == f"input[{at}].call_id"


@pytest.mark.parametrize(
    ("items", "at"),
    [
        ((USER, made(1), made(2), output("a")), 2),
        ((made(1), output("a"), made(1), USER), 2),
        ((USER, call("b"), made(1), output("a")), 1),
    ],
)
def test_a_call_that_nothing_answers_is_refused_at_its_place(items: tuple[Json, ...], at: int) -> None:
    error = refusal(*items)
    assert error.message.startswith(f"No tool output found for function call {items[at]['call_id']}. ")
    assert error.param == f"input[{at}].call_id"


def test_of_a_chain_only_the_very_same_item_is_left_out() -> None:
    chain = after(transcribe(USER, made(1), output("a", "one"), USER), *[made(2)])
    whole = (USER, made(1), output("a", "one"), made(2))
    assert exchanges(messages(*whole[1:], output("a", "two"), context=chain)[-2:]) == [('{"n": 2}', "two")]
    assert exchanges(messages(output("a", "two"), context=chain)[-2:]) == [('{"n": 2}', "two")]
    assert exchanges(messages(output("a", "one"), context=chain)[-2:]) == [('{"n": 2}', "one")]
    assert refusal(output("a", "two"), output("a", "three"), context=chain).param == "input[1].call_id"


def test_a_call_of_the_chain_with_another_result_was_made_once_more() -> None:
    chain = after(transcribe(USER, made(1), output("a", "one"), USER))
    assert messages(made(1), output("a", "one"), made(1), output("a", "two"), USER, context=chain)[-3:] == [
        Assistant("", calls=(Call("a", "f", '{"n": 1}'),)),
        ToolResult("a", "two"),
        User("hi"),
    ]
    assert messages(made(1), output("a", "one"), USER, context=chain)[-1:] == messages(USER)


def test_what_the_model_calls_again_is_new() -> None:
    chain = after(transcribe(USER, made(1), output("a", "wait"), USER), made(1))
    assert exchanges(messages(output("a", "wait"), context=chain)) == [('{"n": 1}', "wait")] * 2


def test_parallel_calls_of_one_id_are_known_again_in_a_chain() -> None:
    chain = after(transcribe(USER), made(1), made(2))
    answered = after(transcribe(output("a", "one"), output("a", "two"), context=chain), said("So."))
    again = (made(1), made(2), output("a", "one"), output("a", "two"))
    assert messages(*again, USER, context=answered) == [*messages(context=answered), User("hi")]


def test_the_ids_of_all_calls_are_known() -> None:
    chain = after(transcribe(USER, call("a"), output("a"), USER), call("b"), call("c"), cut=True)
    now = transcribe(output("b"), call("d"), call("d", name="g"), output("d"), output("d"), context=chain)
    assert [one in now.call_ids for one in "abcde"] == [True, True, True, True, False]
    assert "c" in now.call_ids
    after(now, call("e"))
    assert "e" in now.call_ids


def test_known_calls_stay_few_layers() -> None:
    known = KnownCalls()
    for number in range(1000):
        known = known.extended([ToolResult(f"c{number}", "x")], ())
    assert all(known.has(ToolResult(f"c{number}", "x")) and known.has_id(f"c{number}") for number in range(1000))
    assert not known.has(ToolResult("c1", "y"))
    assert not known.has(Call("c1", "x", "{}"))
    assert len(known._layers) < 12  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - what a look-up costs
    assert known == KnownCalls().extended([ToolResult(f"c{number}", "x") for number in range(1000)], ())
    assert known.extended([User("hi")], ()) is known


WRITTEN = st.sampled_from(['{"n": %d}', '{"n": %d', "n=%d", "[%d]", '"%d"', "%d", '{"n": %d}}', '"{\\"n\\": %d}"'])
IDS = st.sampled_from("abc")
BETWEEN: list[Json] = [USER, said("Hm."), {"type": "reasoning", "summary": []}]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Json], list[str], dict[str, str]]:
    """A history of calls and outputs with everything around them; what each call was written with, and the result of
    each.
    """
    items: list[Json] = [USER]
    waiting: list[tuple[str, str]] = []
    written: list[str] = []
    answers: dict[str, str] = {}

    def answer(position: int) -> None:
        call_id = waiting[position][0]
        oldest = next(one for one in waiting if one[0] == call_id)
        waiting.remove(oldest)
        answers[oldest[1]] = f"r{len(answers)}"
        items.append(output(call_id, answers[oldest[1]]))

    for number in range(draw(st.integers(1, 8))):
        for _ in range(draw(st.integers(0, len(waiting)))):
            answer(draw(st.integers(0, len(waiting) - 1)))
        items += draw(st.lists(st.sampled_from(BETWEEN), max_size=1))
        written.append(draw(WRITTEN) % number)
        waiting.append((draw(IDS), written[-1]))
        items.append(call(waiting[-1][0], arguments=written[-1]))
    while waiting:
        answer(draw(st.integers(0, len(waiting) - 1)))
    return items, written, answers


@given(histories())
def test_every_result_reaches_the_model_once_behind_its_call(
    history: tuple[list[Json], list[str], dict[str, str]],
) -> None:
    items, written, answers = history
    read = exchanges(messages(*items))
    assert sorted(result.removeprefix(MALFORMED_NOTE) for _, result in read) == sorted(answers.values())
    for arguments, result in read:
        sent: Json = json.loads(arguments)
        assert type(sent) is dict
        number = int("".join(filter(str.isdigit, sent.get(MALFORMED, arguments))))
        assert result.removeprefix(MALFORMED_NOTE) == answers[written[number]]
        assert result.startswith(MALFORMED_NOTE) == (MALFORMED in sent)


@given(
    st.lists(st.tuples(st.lists(IDS, max_size=3), st.booleans()), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_a_chain_reads_every_call_once_however_much_the_client_repeats(
    turns: list[tuple[list[str], bool]], order: Any
) -> None:
    context, history, expected, number = Context(), [USER], list[tuple[str, str]](), 0
    waiting: list[Json] = []
    read: list[Message] = []
    for call_ids, repeats in turns:
        results: list[Json] = []
        for one in waiting:
            number += 1
            expected.append((one["arguments"], f"r{number}"))
            results.append(output(one["call_id"], f"r{number}"))
        mixed = sorted(range(len(results)), key=lambda _: order.random())
        by_id = {call_id: [one for one in results if one["call_id"] == call_id] for call_id in "abc"}
        given_results = [by_id[results[i]["call_id"]].pop(0) for i in mixed]
        request = [*([item for item in history if "role" not in item] if repeats else ()), *given_results, USER]
        transcript = transcribe(*request, context=context)
        waiting = [call(call_id, arguments=json.dumps({"n": number, "i": i})) for i, call_id in enumerate(call_ids)]
        context = after(transcript, *waiting)
        history += [*given_results, *waiting]
        read = list(transcript.messages)
    while read and isinstance(read[-1], Assistant) and read[-1].calls:
        read.pop()
    assert sorted(exchanges(read)) == sorted(expected)
