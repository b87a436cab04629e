"""Thinking and calls written into the answer are taken out of it, nothing else is touched, and the order stays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.model.reading import Reader, ReadingOptions
from app.protocol.deltas import (
    CallArguments,
    CallOpened,
    Delta,
    FinishReason,
    NativeItem,
    Reasoning,
    Refusal,
    Text,
    TurnFinished,
)
from app.protocol.recovery.thinking import Unopened
from app.protocol.wire.hosted import SearchAction, WebSearchCall
from app.protocol.wire.tokens import TokenLogprob, TokenUsage

ANYTHING = msgspec.Raw(b'{"type":"object"}')
STOP = TurnFinished("stop")
BLOCK = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
CALL = [CallOpened(10_000, "", "f"), CallArguments(10_000, '{"a": 1}')]


def reader(*names: str, unopened: Unopened = "unlikely", off: bool = False, bare: bool = True) -> Reader:
    return Reader(ReadingOptions(unopened, off, dict.fromkeys(names, ANYTHING), bare))


def read(reading: Reader, *deltas: Delta) -> list[Delta]:
    """One delta a batch, then the end; neighbouring texts joined."""
    clean = [piece for delta in deltas for piece in reading.read([delta])]
    return joined([*clean, *reading.flush()])


def joined(deltas: Sequence[Delta]) -> list[Delta]:
    """Neighbouring texts made one."""
    out: list[Delta] = []
    for delta in deltas:
        match out[-1] if out else None, delta:
            case Text(before, ()), Text(text, ()):
                out[-1] = Text(before + text)
            case Reasoning(before), Reasoning(text):
                out[-1] = Reasoning(before + text)
            case _:
                out.append(delta)
    return out


def test_a_turn_that_needs_nothing_passes_through_as_it_is() -> None:
    batch = [Text("so"), Text(" <think>a</think><tool_call>"), STOP]
    assert read(reader(), *batch) == [Text("so <think>a</think><tool_call>"), STOP]


@pytest.mark.parametrize("names", [(), ("f",)])
def test_thinking_in_tags_is_split_off(names: tuple[str, ...]) -> None:
    assert read(reader(*names), Text("<thi"), Text("nk>hm</think>\n\n"), Text("so"), STOP) == [
        Reasoning("hm"),
        Text("so"),
        STOP,
    ]


def test_thinking_that_was_opened_in_the_prompt_is_split_off() -> None:
    assert read(reader(unopened="likely"), Text("hm"), Text("</think>so"), STOP) == [Reasoning("hm"), Text("so"), STOP]


@pytest.mark.parametrize(
    ("said", "thought", "answer"),
    [
        ("<think>more</think>\n\nso", "hmmore", "so"),
        ("</think>\n\nso", "hm", "so"),
        ("\n</think>\n</think>so", "hm", "so"),
        ("\n\nso", "hm", "\n\nso"),
        ("It <think>is a tag</think>", "hm", "It <think>is a tag</think>"),
    ],
)
@pytest.mark.parametrize("unopened", ["likely", "possible", "unlikely"])
def test_text_behind_separate_thinking_is_the_answer_but_for_tags_at_its_beginning(
    said: str, thought: str, answer: str, unopened: Unopened
) -> None:
    reading = reader(unopened=unopened)
    assert read(reading, Text("<"), Reasoning("hm"), *map(Text, said), STOP) == [
        Text("<"),
        Reasoning(thought),
        Text(answer),
        STOP,
    ]
    assert reading.reasoned


@pytest.mark.parametrize(
    ("deltas", "in_vain"),
    [
        ([Text("so"), STOP], True),
        ([Text("hm</think>so"), STOP], False),
        ([Text("so"), TurnFinished("length")], False),
        ([Reasoning("hm"), Text("so"), STOP], False),
    ],
)
def test_it_is_known_when_an_answer_was_held_in_vain(deltas: list[Delta], *, in_vain: bool) -> None:
    reading = reader(unopened="likely")
    read(reading, *deltas)
    assert reading.held_in_vain is in_vain


def test_a_call_written_into_the_text_becomes_a_call() -> None:
    assert read(reader("f"), Text("Look: "), Text(BLOCK), STOP) == [Text("Look: "), *CALL, STOP]


def test_a_call_of_something_that_is_no_function_stays_text() -> None:
    assert read(reader("g"), Text(BLOCK), STOP) == [Text(BLOCK), STOP]


@pytest.mark.parametrize("separated", [True, False])
def test_a_call_written_into_the_thinking_becomes_a_call_at_the_end(*, separated: bool) -> None:
    thought = [Reasoning(f"hm {BLOCK}")] if separated else [Text(f"<think>hm {BLOCK}</think>")]
    assert read(reader("f"), *thought, STOP)[-2:] == CALL


def test_calls_in_the_thinking_do_not_count_when_a_real_one_came() -> None:
    real = CallOpened(0, "c", "f")
    assert read(reader("f"), Reasoning(BLOCK), real, STOP) == [Reasoning(BLOCK), real, STOP]
    assert read(reader("f"), Reasoning(BLOCK), Text(BLOCK), STOP) == [Reasoning(BLOCK), *CALL, STOP]


@pytest.mark.parametrize("text", ["a <", "a <tool_call>{", '{"name": "f", "argum', "a <tool_ca"])
def test_text_held_back_goes_before_the_call_that_follows_it(text: str) -> None:
    real = CallOpened(0, "c", "f")
    assert read(reader("f"), Text(text), real, STOP) == [Text(text), real, STOP]


@pytest.mark.parametrize("left", ["<tool_call>", "\n</tool_call>", "</think>", "</think>\n\n<tool_call>\n"])
@pytest.mark.parametrize("behind", ["", "</tool_call>", "\n</tool_call>\n"])
def test_marks_left_over_beside_a_real_call_are_no_text(left: str, behind: str) -> None:
    real = [CallOpened(0, "c", "f"), CallArguments(0, "{}")]
    for before, after in (([Text(left)], [Text(behind)]), ([Text(one) for one in left], [Text(one) for one in behind])):
        assert settled(read(reader("f"), *before, *real, *after, STOP)) == real


def test_words_beside_a_real_call_stay() -> None:
    real = [CallOpened(0, "c", "f"), CallArguments(0, "{}")]
    assert settled(read(reader("f"), Text("Rome\n<tool_call>"), *real, STOP)) == [Text("Rome\n"), *real]


@pytest.mark.parametrize("unopened", ["likely", "possible", "unlikely"])
@pytest.mark.parametrize("thought", [f"{' ' * 5}hm\n\n\t ok", "a" + " \n" * 50 + "b", " \n "])
def test_white_space_in_thinking_is_kept_but_at_its_ends(unopened: Unopened, thought: str) -> None:
    found = read(reader(unopened=unopened), *[Text(one) for one in f"<think>{thought}</think>so"], STOP)
    assert joined(settled(found)) == ([Reasoning(thought.strip())] if thought.strip() else []) + [Text("so")]


def test_other_deltas_are_not_touched() -> None:
    usage = TokenUsage(1, 2, 3)
    assert read(reader("f"), Text("a"), usage, STOP) == [Text("a"), usage, STOP]


def test_log_probabilities_stay_with_the_tokens_of_the_answer() -> None:
    tokens = {text: TokenLogprob(text, -1.0) for text in ("<think>", "hm", "</think>", "so", "!")}
    clean = read(reader(), *[Text(text, (token,)) for text, token in tokens.items()], STOP)
    assert clean == [Reasoning("hm"), Text("so", (tokens["so"],)), Text("!", (tokens["!"],)), STOP]


def test_tokens_that_are_not_those_of_the_text_are_left_out_and_cost_nothing() -> None:
    """Some servers write token numbers in place of tokens.

    Searched for again with every piece, these would take minutes.
    """
    count = 10_000
    pieces = [
        Text(text, (TokenLogprob("token_id:7", -1.0),))
        for text in ("<think>", *["w "] * count, "</think>", *["x"] * count)
    ]
    clean = read(reader(), *pieces, STOP)
    assert clean[-1] == STOP
    assert sum(len(delta.text) for delta in clean if isinstance(delta, Text)) == count


DRAFT = f"I could write {BLOCK} but I know it."


@pytest.mark.parametrize("draft", [[Reasoning(DRAFT)], [Text(f"<think>{DRAFT}</think>")]])
@pytest.mark.parametrize(
    ("answer", "counts"), [([Text("Sunny.")], False), ([Refusal("No.")], False), ([Text("\n\n")], True), ([], True)]
)
def test_a_call_drafted_in_the_thinking_counts_only_when_nothing_else_came(
    draft: list[Delta], answer: list[Delta], *, counts: bool
) -> None:
    found = read(reader("f"), *draft, *answer, STOP)
    assert (found[-2:] == CALL) is counts
    assert any(isinstance(delta, CallOpened) for delta in found) is counts


def test_a_draft_in_a_code_fence_is_none() -> None:
    thought = Reasoning(f"So:\n```\n{BLOCK}\n```")
    assert read(reader("f"), thought, STOP) == [thought, STOP]


@pytest.mark.parametrize(
    ("deltas", "clean"),
    [
        ([Reasoning("It "), Reasoning("is.")], [Text("It is.")]),
        ([Text("\n"), Reasoning("It is.")], [Text("\nIt is.")]),
        ([Reasoning("hm"), Text("It is.")], [Reasoning("hm"), Text("It is.")]),
        ([Reasoning("hm"), Text("It is."), Reasoning("so")], [Reasoning("hm"), Text("It is."), Reasoning("so")]),
        ([Reasoning("hm"), CallOpened(0, "c", "f")], [Reasoning("hm"), CallOpened(0, "c", "f")]),
        ([Reasoning("hm"), Refusal("No.")], [Reasoning("hm"), Refusal("No.")]),
        ([Reasoning("hm"), Text("<think>more</think>so")], [Reasoning("hmmore"), Text("so")]),
        ([Reasoning("hm\n</think>\n\nIt is.")], [Reasoning("hm"), Text("It is.")]),
        ([Reasoning(BLOCK)], CALL),
        ([Reasoning('{"name": "f", "arguments": {"a": 1}}')], CALL),
        ([Text("<think>hm</think>")], [Reasoning("hm")]),
    ],
)
@pytest.mark.parametrize("unopened", ["possible", "unlikely"])
def test_with_thinking_off_an_answer_that_came_as_thinking_is_the_message(
    deltas: list[Delta], clean: list[Delta], unopened: Unopened
) -> None:
    found = read(reader("f", off=True, unopened=unopened), *deltas, STOP)
    assert joined(settled(found)) == clean


def test_thinking_is_shown_as_it_comes_where_it_is_not_off() -> None:
    assert list(reader().read([Reasoning("hm")])) == [Reasoning("hm")]
    assert list(reader(off=True).read([Reasoning("hm")])) == []


def test_what_was_said_before_a_search_of_the_upstream_goes_before_it() -> None:
    search = NativeItem(WebSearchCall("ws_1", "completed", SearchAction("q")), done=True)
    assert read(reader(unopened="possible"), Text("I look."), search, Text("It is."), STOP) == [
        Text("I look."),
        search,
        Text("It is."),
        STOP,
    ]


def test_an_answer_in_a_format_is_no_call() -> None:
    bare = '{"name": "f", "arguments": {"a": 1}}'
    assert settled(read(reader("f"), Text(bare), STOP)) == CALL
    assert settled(read(reader("f", bare=False), Text(bare), STOP)) == [Text(bare)]


@pytest.mark.parametrize(
    ("deltas", "met"),
    [
        ([Text("hm</think>so")], True),
        ([Text("hm"), Text("</think>"), Text("so")], True),
        ([Text("<think>hm</think>so")], False),
        ([Reasoning("hm"), Text("</think>so")], False),
        ([Text("so")], False),
    ],
)
@pytest.mark.parametrize("unopened", ["likely", "possible", "unlikely"])
def test_it_is_known_when_an_answer_began_inside_the_thinking(
    deltas: list[Delta], unopened: Unopened, *, met: bool
) -> None:
    reading = reader(unopened=unopened)
    read(reading, *deltas, STOP)
    assert reading.met_unopened is met


def test_log_probabilities_of_an_answer_held_for_nothing_stay_whole() -> None:
    """Some servers write token numbers, or parts of characters, in place of tokens."""
    tokens = (TokenLogprob("token_id:7", -1.0), TokenLogprob("token_id:8", -2.0))
    held = reader(unopened="possible")
    assert read(held, Text("It ", tokens[:1]), Text("is.", tokens[1:]), STOP) == [STOP, Text("It is.", tokens)]
    assert read(reader("f"), Text("It is.", tokens), STOP) == [Text("It is.", tokens), STOP]


SEGMENTS = st.lists(
    st.tuples(
        st.sampled_from([Text, Text, Reasoning]),
        st.lists(
            st.sampled_from(
                [
                    BLOCK,
                    '{"name": "f", "arguments": {"a": 1}}',
                    "<think>",
                    "</think>",
                    "<tool_call>",
                    "```",
                    "`",
                    "<",
                    "\n",
                    "a",
                    '"',
                ]
            ),
            min_size=1,
            max_size=7,
        ).map("".join),
    ),
    min_size=1,
    max_size=3,
)


def cut(text: str, data: st.DataObject) -> Iterator[str]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return (text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True) if a < b)


def settled(deltas: Sequence[Delta]) -> list[Delta]:
    """Without the end of the turn, which held text follows."""
    return [delta for delta in deltas if delta != STOP]


@given(SEGMENTS, st.sampled_from(["likely", "possible", "unlikely"]), st.booleans(), st.booleans(), st.data())
def test_the_cut_of_the_stream_does_not_matter(
    segments: list[tuple[type[Text] | type[Reasoning], str]],
    unopened: Unopened,
    off: bool,
    bare: bool,
    data: st.DataObject,
) -> None:
    whole = [kind(text) for kind, text in segments]
    pieces = [kind(piece) for kind, text in segments for piece in cut(text, data)]
    one, other = (reader("f", unopened=unopened, off=off, bare=bare) for _ in range(2))
    assert joined(settled(read(one, *whole, STOP))) == joined(settled(read(other, *pieces, STOP)))
    assert (one.met_unopened, one.reasoned, one.held_in_vain) == (
        other.met_unopened,
        other.reasoned,
        other.held_in_vain,
    )


def test_behind_separate_thinking_an_answer_may_speak_of_tags() -> None:
    said = [Reasoning("hm"), Text("It ends at </think>"), Text(" then.")]
    assert read(reader("f"), *said, STOP) == [Reasoning("hm"), Text("It ends at </think> then."), STOP]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_draft_in_thinking_that_was_cut_off_is_no_call(reason: FinishReason) -> None:
    said = [Reasoning(f"Perhaps {BLOCK} or not"), TurnFinished(reason)]
    assert read(reader("f"), *said) == said


def test_an_answer_in_a_format_that_was_drafted_in_the_thinking_is_no_call() -> None:
    drafted = Reasoning('{"name": "f", "arguments": {"a": 1}}')
    assert read(reader("f", bare=False), drafted, STOP) == [drafted, STOP]


def test_an_answer_in_a_format_may_hold_a_call_in_a_string() -> None:
    answer = json.dumps({"x": f"write {BLOCK}"})
    assert read(reader("f", bare=False), Text(answer), STOP) == [Text(answer), STOP]
