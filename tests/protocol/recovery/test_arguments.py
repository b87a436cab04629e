"""What is made of the arguments that models write."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.recovery.arguments import (
    MALFORMED,
    ArgumentsReader,
    escape_controls,
    read_object,
    read_text,
    same_object,
    sendable,
)

MEANT = {
    '{"a": 1}': '{"a": 1}',
    ' {"a": 1}\n': ' {"a": 1}\n',
    "": "{}",
    " \n": "{}",
    "null": "{}",
    '"{\\"a\\": 1}"': '{"a": 1}',
    '"\\"{\\\\\\"a\\\\\\": 1}\\""': '{"a": 1}',
    '"null"': "{}",
    '{"a": "x\ny\tz"}': '{"a": "x\\ny\\tz"}',
    '{"a": 1}}': '{"a": 1}',
    '{"a": 1}{"a": 1}': '{"a": 1}',
    '{"a": 1} {"a":1} ': '{"a": 1}',
    '{"a": "}{"}': '{"a": "}{"}',
}
"""What is written -> the object that is meant."""
BROKEN = [
    '{"a',
    '{"a": "x',
    "{",
    "[1]",
    "5",
    '"words"',
    "words",
    '{"a": 1}{"a": 2}',
    '{"a": 1} and',
    "{oops}",
    "[" * 100_000,
    '{"a":' * 100_000,
]


@pytest.mark.parametrize("written", MEANT)
def test_what_is_meant_is_taken_for_it(written: str) -> None:
    assert read_object(written) == MEANT[written]
    assert sendable(written) == MEANT[written]


@pytest.mark.parametrize("written", BROKEN, ids=range(len(BROKEN)))
def test_what_means_nothing_is_sent_under_a_key(written: str) -> None:
    assert read_object(written) is None
    assert json.loads(sendable(written)) == {MALFORMED: written}


@given(st.text())
def test_anything_can_be_sent_as_an_object(text: str) -> None:
    assert isinstance(json.loads(sendable(text)), dict)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("print(1)", "print(1)"),
        ("  two\nlines ", "  two\nlines "),
        ('{"input": "a\\nb"}', "a\nb"),
        ('{"input": "a\nb"}', "a\nb"),
        ('{"input": ""}', ""),
        ('{"patch": "*** Begin"}', "*** Begin"),
        ('{"input": "say "hi"\\n"}', 'say "hi"\n'),
        ('{"input": {"x": 1}}', '{"x":1}'),
        ('{"input": 5}', "5"),
        ('"quoted"', "quoted"),
        ('"{\\"input\\": \\"x\\"}"', "x"),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 2}'),
        ("{ let x = 1 }", "{ let x = 1 }"),
        ('"half', '"half'),
        ('{"input": "x", "reason": "y"}', "x"),
    ],
)
def test_the_text_for_a_custom_tool(written: str, meant: str) -> None:
    assert read_text(written) == meant


@pytest.mark.parametrize("written", ["", " ", "{}", "{", '{"inp', '{"input"', '{"input": "cut'])
def test_a_custom_tool_is_not_called_without_a_text(written: str) -> None:
    assert read_text(written) is None


@given(st.dictionaries(st.text(), st.text() | st.integers()))
def test_json_is_left_as_it_is(value: dict[str, str | int]) -> None:
    text = json.dumps(value, indent=1)
    assert escape_controls(text) == text
    assert read_object(text) == text


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_raw_controls_in_strings_are_escaped(text: str) -> None:
    raw = json.dumps(text).replace("\\n", "\n").replace("\\t", "\t") if "\\" not in text else json.dumps(text)
    assert json.loads(escape_controls(raw)) == text


def test_only_json_says_the_same() -> None:
    assert same_object('{"a": 1}', ' {"a":1}')
    assert not same_object('{"a": 1}', '{"a": 2}')
    assert not same_object("x", "x")


def read(*fragments: str) -> tuple[list[str], str | None, str]:
    """What was shown of each fragment, and at the end; the whole of it."""
    reader = ArgumentsReader()
    shown = [reader.feed(fragment) for fragment in fragments]
    end = reader.end()
    assert "".join([*shown, end or ""]) == reader.text() == "".join(reader.pieces())
    return shown, end, reader.text()


@given(st.sampled_from(list(MEANT)), st.data())
def test_however_they_are_cut_the_same_object_is_shown(written: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=4)))
    pieces = [written[a:b] for a, b in zip([0, *cuts], [*cuts, len(written)], strict=True)]
    _, end, text = read(*pieces)
    assert end is not None
    assert same_object(text, MEANT[written])


@given(st.sampled_from(BROKEN[1:9]), st.integers(1, 5))
def test_however_they_are_cut_broken_ones_are_broken(written: str, size: int) -> None:
    assert read(*[written[at : at + size] for at in range(0, len(written), size)])[1] is None


@pytest.mark.parametrize(
    ("written", "whole"),
    [('{"a": {"b": [1, 2', '{"a": {"b": [1, 2]}}'), ('{"a": 1', '{"a": 1}'), ("{", None), ('{"a": "x', None)],
)
def test_a_turn_that_ended_is_forgiven_the_last_brackets(written: str, whole: str | None) -> None:
    """In a history they would say that nothing is missing of arguments that were cut."""
    assert read_object(written) is None
    _, end, text = read(*written)
    assert (text if end is not None else None) == whole


def test_an_object_is_shown_as_it_comes() -> None:
    assert read('{"a":', ' "x', 'y"', "}")[0] == ['{"a":', ' "x', 'y"', "}"]
    assert read('{"a": "x\n', '\\"\t', '"}')[0] == ['{"a": "x\\n', '\\"\\t', '"}']


@pytest.mark.parametrize(
    ("fragments", "text"),
    [
        (['{"ci', '{"city": "Rome"}'], '{"city": "Rome"}'),
        (["{", '{"city": "Rome"}'], '{"city": "Rome"}'),
        (['{"city": "Rome"}', '{"city": "Rome"}'], '{"city": "Rome"}'),
        (['{"a":', '{"a":1}', "}"], '{"a":{"a":1}}'),
        (['{"a":', '{"a":1}}'], '{"a":{"a":1}}'),
    ],
)
def test_arguments_told_again_from_their_beginning(fragments: Sequence[str], text: str) -> None:
    shown, end, whole = read(*fragments)
    assert shown[0] == fragments[0]
    assert end is not None
    assert whole == text


def test_what_was_told_again_is_shown_when_the_answer_is_cut() -> None:
    reader = ArgumentsReader()
    shown = [reader.feed(fragment) for fragment in ('{"ci', '{"city": "Rome"}')]
    assert "".join([*shown, reader.release()]) == '{"city": "Rome"}'


@pytest.mark.parametrize(
    ("start", "end"), [('{"a": "', ""), ('"', None), ("{}", None)], ids=["object", "string", "excess"]
)
def test_the_cost_of_many_fragments_is_linear(start: str, end: str | None) -> None:
    """A hundred thousand fragments of each kind; a quadratic reader would need minutes."""
    reader = ArgumentsReader()
    for fragment in (start, *["some text "] * 100_000, '"}'):
        reader.feed(fragment)
    assert reader.end() == end
