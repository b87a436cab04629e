"""Thinking and calls written into the answer are taken out of it, nothing else is touched, and the order stays."""

from __future__ import annotations

import msgspec
import pytest

from app.engine.reading import Manner, Reader
from app.protocol.deltas import CallArguments, CallOpened, Delta, Reasoning, Text, TokenLogprob, TokenUsage, TurnFinished
from app.protocol.thinking import Unopened

ANYTHING = msgspec.Raw(b'{"type":"object"}')
STOP = TurnFinished("stop")
BLOCK = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
CALL = [CallOpened(10_000, "", "f"), CallArguments(10_000, '{"a": 1}')]


def reader(*names: str, unopened: Unopened = "unlikely", off: bool = False, bare: bool = True) -> Reader:
    return Reader(Manner(unopened, off, dict.fromkeys(names, ANYTHING), bare))


def read(reading: Reader, *deltas: Delta) -> list[Delta]:
    """One delta a batch, then the end; neighbouring texts joined."""
    clean = [piece for delta in deltas for piece in reading.read([delta])]
    joined: list[Delta] = []
    for delta in [*clean, *reading.flush()]:
        last = joined[-1] if joined else None
        match last, delta:
            case Text(before, ()), Text(text, ()):
                joined[-1] = Text(before + text)
            case Reasoning(before), Reasoning(text):
                joined[-1] = Reasoning(before + text)
            case _:
                joined.append(delta)
    return joined


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
    assert read(reading, Text("<"), Reasoning("hm"), *map(Text, said), STOP) == [Text("<"), Reasoning(thought), Text(answer), STOP]
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


def test_other_deltas_are_not_touched() -> None:
    usage = TokenUsage(1, 2, 3)
    assert read(reader("f"), Text("a"), usage, STOP) == [Text("a"), usage, STOP]


def test_log_probabilities_stay_with_the_tokens_of_the_answer() -> None:
    tokens = {text: TokenLogprob(text, -1.0) for text in ("<think>", "hm", "</think>", "so", "!")}
    clean = read(reader(), *[Text(text, (token,)) for text, token in tokens.items()], STOP)
    assert clean == [Reasoning("hm"), Text("so", (tokens["so"],)), Text("!", (tokens["!"],)), STOP]


def test_tokens_that_are_not_those_of_the_text_are_left_out_and_cost_nothing() -> None:
    """Some servers write token numbers in place of tokens. Searched for again with every piece, these would take minutes."""
    count = 10_000
    pieces = [Text(text, (TokenLogprob("token_id:7", -1.0),)) for text in ("<think>", *["w "] * count, "</think>", *["x"] * count)]
    clean = read(reader(), *pieces, STOP)
    assert clean[-1] == STOP
    assert sum(len(delta.text) for delta in clean if isinstance(delta, Text)) == count
