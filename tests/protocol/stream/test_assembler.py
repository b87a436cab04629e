"""Whatever an upstream says, the stream is legal, and stream, plain answer and replay are the same response."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.protocol import deltas as d
from app.protocol.recovery.arguments import InvalidArguments
from app.protocol.stream.projection import fold, parse_frame
from app.protocol.stream.replay import catch_up, encode_cuts
from app.protocol.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
)
from app.protocol.wire.response import InputTokensDetails, OutputTokensDetails, ResponseError, Usage
from app.protocol.wire.tokens import Logprob, TokenLogprob
from tests.protocol.assembling import (
    RESPONSE_ID,
    Assembled,
    Script,
    assemble,
    new_assembler,
    options,
    replayed,
    run,
    scripts,
)
from tests.support.judge import judge

GOLDEN = Path(__file__).parent / "golden"
STOP = d.TurnFinished("stop")
SCORED = (TokenLogprob("Hi", -0.25, (72, 105), (Logprob("Yo", -1.5),)),)
PARALLEL = (
    d.CallOpened(0, "call_a", "f"),
    d.CallArguments(0, '{"a": '),
    d.CallOpened(1, "call_b", "tools__g"),
    d.CallArguments(1, '{"b": 2}'),
    d.CallArguments(0, "1}"),
    d.CallOpened(2, "", "edit"),
    d.CallArguments(2, '{"input": "x"}'),
    d.TurnFinished("tool_calls"),
)
STREAMS: dict[str, tuple[Script, dict[str, Any]]] = {
    "answer": (Script((d.Text("Hel"), d.Text("lo."), d.TokenUsage(5, 2, 7, 4, 1), STOP)), {}),
    "thinking": (
        Script(
            (d.Reasoning("Hm"), d.Reasoning("…"), d.Text("\n\n"), d.Text("So."), d.TokenUsage(5, 9, 14, 0, 0, 6), STOP)
        ),
        {},
    ),
    "raw thinking, sealed": (
        Script((d.Reasoning("Hm"), d.Text("So."), STOP)),
        {"raw_reasoning": True, "seal": str.upper},
    ),
    "parallel calls": (Script(PARALLEL), {}),
    "text before a call": (Script((d.Text("Look: "), d.CallOpened(0, "c", "f"), d.TurnFinished("tool_calls"))), {}),
    "log probabilities": (Script((d.Text("Hi", SCORED), d.Text("!"), STOP)), {}),
    "refusal": (Script((d.Text("Well. "), d.Refusal("I can"), d.Refusal("not."), STOP)), {}),
    "nothing": (Script((STOP,)), {}),
    "too long": (Script((d.Text("On and"), d.TurnFinished("length"))), {}),
    "filtered": (Script((d.CallOpened(0, "c", "f"), d.CallArguments(0, '{"a'), d.TurnFinished("content_filter"))), {}),
    "failed": (Script((d.Text("Half a"),), "fail"), {}),
    "arguments that are no JSON": (Script((d.CallOpened(0, "c", "f"), d.CallArguments(0, "{oops"), STOP)), {}),
    "cancelled": (Script((d.Reasoning("Half a"),), "cancel"), {}),
    "background": (Script((d.Text("Hel"), d.Text("lo."), STOP)), {"background": True}),
    "cancelled in the queue": (Script((), "cancel"), {"background": True}),
    "second try": (Script((d.Reasoning("No."), STOP, d.Text("Yes."), STOP), retried=2), {}),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_are_what_they_were(name: str) -> None:
    """Byte for byte; `UPDATE_GOLDEN=1` writes the files anew."""
    script, how = STREAMS[name]
    stream = b"".join(assemble(script, **how).frames)
    judge(stream)
    file = GOLDEN / f"{name.replace(',', '').replace(' ', '_')}.sse"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_bytes(stream)
    assert stream == file.read_bytes()


@given(scripts(), options())
def test_every_stream_is_legal_and_adds_up_to_the_response(script: Script, how: dict[str, Any]) -> None:
    made = assemble(script, **how)
    judged = judge(b"".join(made.frames))
    assert judged.response == made.response
    assert fold(event for frame in made.frames if (event := parse_frame(frame))) == made.response


@given(scripts(), options())
def test_a_stored_stream_replays_byte_for_byte(script: Script, how: dict[str, Any]) -> None:
    made = assemble(script, **how)
    assert replayed(made.body, encode_cuts(made.cuts)) == made.frames


@settings(max_examples=50)
@given(scripts(), options())
def test_whoever_comes_late_gets_the_frames_so_far_at_every_moment(script: Script, how: dict[str, Any]) -> None:
    assembler = new_assembler(**how)
    sent: list[bytes] = []

    def look() -> None:
        sent.extend(assembler.take())
        assert catch_up(assembler) == sent

    run(script, assembler, look)


@given(scripts(), options())
def test_a_plain_answer_is_the_streamed_one(script: Script, how: dict[str, Any]) -> None:
    made, plain = assemble(script, **how), assemble(script, **how, quiet=True)
    assert plain.body == made.body
    judge(b"".join(replayed(plain.body, None)))


@settings(max_examples=50)
@given(scripts(), options(), st.sampled_from(["merged", "characters"]))
def test_the_size_of_pieces_does_not_matter(script: Script, how: dict[str, Any], cut: str) -> None:
    again = _merged(script.deltas, script.retried) if cut == "merged" else _characters(script.deltas, script.retried)
    assert (
        assemble(msgspec.structs.replace(script, deltas=again[0], retried=again[1]), **how).body
        == assemble(script, **how).body
    )


@given(scripts(), options(), st.integers(0, 20))
def test_the_size_of_batches_does_not_matter(script: Script, how: dict[str, Any], at: int) -> None:
    whole, halves = new_assembler(**how), new_assembler(**how)
    outcomes: list[str] = []
    for assembler, batches in ((whole, [script.deltas]), (halves, [script.deltas[:at], script.deltas[at:]])):
        assembler.start()
        try:
            for batch in batches:
                assembler.receive(batch)
            outcomes.append("")
        except InvalidArguments as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    assert whole.take() == halves.take()


def test_interleaved_calls_come_out_whole_and_in_the_order_they_were_opened() -> None:
    first, second, third = assemble(PARALLEL).response.output
    assert isinstance(first, FunctionCallItem)
    assert (first.name, first.call_id, first.arguments) == ("f", "call_a", '{"a": 1}')
    assert isinstance(second, FunctionCallItem)
    assert (second.name, second.namespace, second.arguments) == ("g", "tools", '{"b": 2}')
    assert isinstance(third, CustomToolCallItem)
    assert (third.name, third.input) == ("edit", "x")
    assert third.call_id.startswith("call_")


def test_a_call_waits_for_all_that_were_opened_before() -> None:
    """The first is whole again when the third opens; the second must not be overtaken."""
    made = assemble(
        [
            d.CallOpened(0, "a", "f"),
            d.CallArguments(0, '{"x'),
            d.CallOpened(1, "b", "f"),
            d.CallArguments(1, '{"y'),
            d.CallArguments(0, '":1}'),
            d.CallOpened(2, "c", "f"),
            d.CallArguments(1, '":2}'),
            d.CallArguments(2, "{}"),
            STOP,
        ]
    )
    assert _calls(made) == [("a", '{"x":1}'), ("b", '{"y":2}'), ("c", "{}")]


def test_a_call_without_arguments_gets_an_empty_object() -> None:
    assert _calls(assemble([d.CallOpened(0, "a", "f"), STOP])) == [("a", "{}")]


def test_a_call_opened_twice_is_one_call() -> None:
    made = assemble([d.CallOpened(0, "a", "f"), d.CallOpened(0, "", ""), d.CallArguments(0, "{}"), STOP])
    assert _calls(made) == [("a", "{}")]


def test_only_the_first_call_counts_when_parallel_calls_are_off() -> None:
    made = assemble([*PARALLEL[:-1], d.CallArguments(1, ""), STOP], parallel_calls=False)
    assert _calls(made) == [("call_a", '{"a": 1}')]


@pytest.mark.parametrize("word", [d.Text("Wait."), d.Reasoning("Wait."), d.Refusal("Wait.")])
@pytest.mark.parametrize(
    "pieces", [("", '{"x":1}'), ('{"x"', ":1}"), ('{"x":1}', "\n"), ('{"x":1}', "}"), ('{"x":1}', '{"x": 1}')]
)
def test_words_between_the_pieces_of_a_call_come_after_it(word: d.Delta, pieces: tuple[str, str]) -> None:
    deltas = [d.CallOpened(0, "a", "f"), d.CallArguments(0, pieces[0]), word, d.CallArguments(0, pieces[1]), word, STOP]
    made = assemble(deltas)
    assert made.response.status == "completed"
    assert _calls(made) == [("a", '{"x":1}')]
    assert len(made.response.output) == 2


def test_arguments_that_come_after_their_call_was_closed_are_an_error_not_a_loss() -> None:
    deltas = [d.CallOpened(0, "a", "f"), d.CallArguments(0, "{}"), d.Text("Wait."), d.CallArguments(0, '{"x":1}'), STOP]
    response = assemble(deltas).response
    assert response.status == "failed"
    assert response.error is not None
    assert "'f'" in response.error.message


def test_words_go_on_as_soon_as_the_call_before_them_is_whole() -> None:
    assembler = new_assembler()
    assembler.start()
    assembler.receive([d.CallOpened(0, "a", "f"), d.CallArguments(0, '{"x"'), d.Text("Wait.")])
    assert not any(b"output_text.delta" in frame for frame in assembler.take())
    assembler.receive([d.CallArguments(0, ":1}")])
    assert any(b"output_text.delta" in frame for frame in assembler.take())


@pytest.mark.parametrize("known", [frozenset[str](), frozenset({"a"})])
def test_no_two_calls_have_one_id(known: frozenset[str]) -> None:
    turn = [
        d.CallOpened(0, "a", "f"),
        d.CallOpened(1, "a", "f"),
        d.CallOpened(2, "", "edit"),
        d.CallArguments(2, "x"),
        STOP,
    ]
    output = assemble(turn, known_call_ids=known).response.output
    found = [item.call_id for item in output if isinstance(item, FunctionCallItem | CustomToolCallItem)]
    assert len({*found, *known}) == 3 + len(known)
    assert ("a" in found) is not ("a" in known)


def test_ids_stay_unique_over_the_turns_of_a_response() -> None:
    assembler = new_assembler(quiet=True)
    for _ in range(3):
        assembler.receive([d.CallOpened(0, "a", "f"), STOP])
        assembler.end_turn()
        assembler.begin_turn()
    assert len({item.call_id for item in assembler.output if isinstance(item, FunctionCallItem)}) == 3


BROKEN = (d.CallOpened(0, "a", "f"), d.CallArguments(0, '{"x'), STOP)


@pytest.mark.parametrize("before", [(), (d.Text("Look."),), (d.Reasoning("hm"),), (d.Reasoning("hm"), d.Text("Look."))])
def test_a_plain_answer_can_be_given_up_whatever_it_was(before: tuple[d.Delta, ...]) -> None:
    assembler = new_assembler(quiet=True)
    assembler.receive([*before, *BROKEN])
    with pytest.raises(InvalidArguments):
        assembler.end_turn()
    assert assembler.may_abandon
    assembler.abandon_turn()
    assembler.receive([d.CallOpened(0, "a", "f"), STOP])
    assembler.end_turn()
    assert [type(item) for item in assembler.output] == [
        *[ReasoningItem] * isinstance((*before, None)[0], d.Reasoning),
        FunctionCallItem,
    ]


def test_what_a_stream_has_shown_cannot_be_given_up() -> None:
    for deltas, may in (
        ([d.Reasoning("hm")], True),
        ([d.Text(" ")], True),
        ([d.Text("a")], False),
        ([d.CallOpened(0, "a", "f")], False),
    ):
        assembler = new_assembler()
        assembler.start()
        assembler.receive(deltas)
        assert assembler.may_abandon is may


def test_earlier_turns_do_not_keep_a_later_one_from_being_given_up() -> None:
    assembler = new_assembler()
    assembler.start()
    assembler.receive([d.Text("One."), STOP])
    assembler.end_turn()
    assembler.begin_turn()
    assert assembler.may_abandon


def test_a_whole_call_of_a_turn_that_was_cut_off_is_completed() -> None:
    turn = [
        d.CallOpened(0, "a", "f"),
        d.CallArguments(0, "{}"),
        d.CallOpened(1, "b", "f"),
        d.CallArguments(1, '{"x'),
        d.TurnFinished("length"),
    ]
    assert _statuses(assemble(turn).response.output) == ["completed", "incomplete"]


def test_a_call_that_cannot_be_completed_fails_the_response_and_is_shown_as_incomplete() -> None:
    response = assemble(STREAMS["arguments that are no JSON"][0]).response
    assert response.status == "failed"
    assert response.error is not None
    assert "'f'" in response.error.message
    assert _statuses(response.output) == ["incomplete"]


def test_white_space_before_the_first_word_belongs_to_it_with_its_log_probabilities() -> None:
    (item,) = assemble([d.Text("\n", SCORED), d.Text(" "), d.Text("Hi", SCORED), STOP]).response.output
    assert isinstance(item, MessageItem)
    assert item.content == (OutputText("\n Hi", logprobs=SCORED * 2),)


@pytest.mark.parametrize("thing", [d.Reasoning("b"), d.CallOpened(0, "a", "f")])
def test_white_space_before_something_else_is_nothing(thing: d.Delta) -> None:
    output = assemble([d.Reasoning("a"), d.Text(" \n"), thing, STOP]).response.output
    assert not any(isinstance(item, MessageItem) for item in output)


def test_thinking_between_two_texts_parts_them() -> None:
    output = assemble([d.Text("a"), d.Reasoning("b"), d.Text("c"), STOP]).response.output
    assert [type(item) for item in output] == [MessageItem, ReasoningItem, MessageItem]


def test_usage_of_all_turns_is_added_up() -> None:
    assembler = new_assembler(quiet=True)
    assembler.receive([d.Text("no"), d.TokenUsage(1, 2, 3, 4, 5, 6)])
    assembler.abandon_turn()
    assembler.usage.add(d.TokenUsage(10, 20, 30, 40, 50, 60))
    assembler.finish(9)
    assert assembler.response is not None
    assert assembler.response.usage == Usage(11, InputTokensDetails(44, 55), 22, OutputTokensDetails(66), 33)


def test_an_estimate_of_the_usage_says_that_it_is_one_and_never_replaces_what_was_reported() -> None:
    assembler = new_assembler(quiet=True)
    assembler.receive([d.Reasoning("a" * 400), d.Text("b" * 400), STOP])
    assembler.end_turn()
    assembler.usage.estimate(read=4000, output=assembler.output)
    assembler.finish(9)
    assert assembler.response is not None
    usage = assembler.response.usage
    assert usage is not None
    assert usage.x_estimated is True
    assert usage.input_tokens == 1000
    assert 100 <= usage.output_tokens_details.reasoning_tokens <= usage.output_tokens - 100
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assembler.usage.estimate(read=8000, output=assembler.output)
    assembler.finish(9)
    assert assembler.response.usage == usage


def test_a_late_failure_takes_back_the_completion() -> None:
    assembler = new_assembler(quiet=True)
    assembler.receive([d.Text("done"), STOP])
    assembler.end_turn()
    assembler.finish(9)
    assembler.fail(ResponseError("server_error", "Not stored."))
    assert assembler.response is not None
    assert (assembler.response.status, assembler.response.completed_at) == ("failed", None)
    assert _statuses(assembler.response.output) == ["completed"]


def test_what_was_called() -> None:
    assembler = new_assembler(quiet=True)
    assembler.receive([d.Text("a")])
    assert not assembler.called
    assembler.receive([d.CallOpened(0, "a", "f")])
    assert assembler.called
    assembler.end_turn()
    assert not assembler.called, "a turn that has ended has nothing to do with the next one"


def test_frames_are_taken_once() -> None:
    assembler = new_assembler()
    assembler.start()
    assert len(assembler.take()) == 2
    assert assembler.take() == []


def test_the_cost_of_many_pieces_is_linear() -> None:
    """A hundred thousand pieces of blank and of text; a quadratic assembler would need minutes."""
    count = 100_000
    made = assemble([*[d.Text(" ")] * count, *[d.Text("a")] * count, STOP], quiet=True)
    (item,) = made.response.output
    assert isinstance(item, MessageItem)
    assert len(item.content[0].text if isinstance(item.content[0], OutputText) else "") == 2 * count


def test_ids_are_those_of_the_response() -> None:
    assert all(
        item.id.split("_")[1].startswith(RESPONSE_ID.replace("-", "")) for item in assemble(PARALLEL).response.output
    )


def _calls(made: Assembled) -> list[tuple[str, str]]:
    return [(item.call_id, item.arguments) for item in made.response.output if isinstance(item, FunctionCallItem)]


def _statuses(output: Sequence[OutputItem]) -> list[str | None]:
    return [getattr(item, "status", None) for item in output]


def _merged(deltas: Sequence[d.Delta], retried: int) -> tuple[tuple[d.Delta, ...], int]:
    """Neighbours of one kind joined, but not over the end of the abandoned turn."""
    first, second = _join(deltas[:retried]), _join(deltas[retried:])
    return (*first, *second), len(first)


def _join(deltas: Sequence[d.Delta]) -> list[d.Delta]:
    out: list[d.Delta] = []
    for delta in deltas:
        match out[-1] if out else None, delta:
            case d.Text(before, ()), d.Text(text, ()):
                out[-1] = d.Text(before + text)
            case d.Reasoning(before), d.Reasoning(text):
                out[-1] = d.Reasoning(before + text)
            case d.Refusal(before), d.Refusal(text):
                out[-1] = d.Refusal(before + text)
            case d.CallArguments(index, before), d.CallArguments(same, text) if index == same:
                out[-1] = d.CallArguments(index, before + text)
            case _:
                out.append(delta)
    return out


def _characters(deltas: Sequence[d.Delta], retried: int) -> tuple[tuple[d.Delta, ...], int]:
    first, second = (
        [piece for delta in part for piece in _split(delta)] for part in (deltas[:retried], deltas[retried:])
    )
    return (*first, *second), len(first)


def _split(delta: d.Delta) -> list[d.Delta]:
    match delta:
        case d.Text(text, ()) | d.Reasoning(text) | d.Refusal(text):
            return [type(delta)(character) for character in text]
        case d.CallArguments(index, fragment):
            return [d.CallArguments(index, character) for character in fragment]
        case _:
            return [delta]
