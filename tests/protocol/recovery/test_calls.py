"""Calls written as text become calls; everything else stays text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.deltas import CallArguments, CallOpened, Delta, Text
from app.protocol.recovery.arguments import FREE_TEXT, read_text
from app.protocol.recovery.calls import CallRecovery
from app.protocol.recovery.known_functions import KnownFunctions

ANYTHING = msgspec.Raw(b'{"type":"object"}')
NAMES = {"weather": ANYTHING, "search": ANYTHING}
WEATHER = '{"name": "weather", "arguments": {"city": "Rome"}}'
CALLED = ("weather", '{"city": "Rome"}')
BLOCK = f"<tool_call>\n{WEATHER}\n</tool_call>"
TAGS = (
    "<tool_call>",
    "</tool_call>",
    "<tool",
    "_call>",
    "<function=search>",
    "<parameter=q>",
    "</parameter>",
    "</function>",
)
TRICKY = st.lists(
    st.sampled_from(
        [BLOCK, WEATHER, *TAGS, '{"na', "me", '{"name":"x"}', "```json", "```", "<", " ", "\n", "a", "{", "}", "答"]
    ),
    max_size=10,
).map("".join)


def read(deltas: Sequence[Delta]) -> tuple[str, list[tuple[str, str]]]:
    """The text and the calls in deltas; the arguments follow the opening, and indexes count from 0."""
    text = "".join(delta.text for delta in deltas if isinstance(delta, Text))
    opened = [delta for delta in deltas if isinstance(delta, CallOpened)]
    arguments = [delta for delta in deltas if isinstance(delta, CallArguments)]
    assert [delta.index for delta in opened] == [delta.index for delta in arguments] == list(range(len(opened)))
    assert not any(delta.call_id for delta in opened)
    return text, [(call.name, fragment.fragment) for call, fragment in zip(opened, arguments, strict=True)]


def recover(pieces: Iterable[str]) -> tuple[str, list[tuple[str, str]]]:
    recovery = CallRecovery(KnownFunctions(NAMES, None))
    deltas: list[Delta] = [delta for piece in pieces for delta in recovery.feed(piece)]
    return read([*deltas, *recovery.flush()])


@pytest.mark.parametrize(
    ("stream", "text", "calls"),
    [
        (BLOCK, "", [CALLED]),
        (f"\n{BLOCK}\n", "", [CALLED]),
        (f"Let me see.\n{BLOCK}\n\nDone.", "Let me see.\nDone.", [CALLED]),
        (f"{BLOCK}\n{BLOCK}", "", [CALLED, CALLED]),
        (f"<tool_call>{WEATHER}\n{WEATHER}</tool_call>", "", [CALLED, CALLED]),
        ('<tool_call>{"name":"weather","arguments":"{\\"city\\": \\"Rome\\"}"}</tool_call>', "", [CALLED]),
        (
            '<tool_call>{"name":"weather","arguments":{"n":1.50,"s":"\\u00e9"}}</tool_call>',
            "",
            [("weather", '{"n":1.50,"s":"\\u00e9"}')],
        ),
        ('<tool_call>{"name":"weather"}</tool_call>', "", [("weather", "{}")]),
        (f"<tool_call>{WEATHER}", "", [CALLED]),
        (f"<tool_call>{WEATHER}\n</tool_c", "", [CALLED]),
        (f"Call it in <tool_call> tags: {BLOCK}", "Call it in <tool_call> tags: ", [CALLED]),
        (f"<tool_call>\n{BLOCK}", "<tool_call>\n", [CALLED]),
    ],
)
def test_a_block_of_json_is_a_call(stream: str, text: str, calls: list[tuple[str, str]]) -> None:
    assert recover([stream]) == (text, calls)
    assert recover(stream) == (text, calls)


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ("<function=search>\n<parameter=q>\nRome\n</parameter>\n</function>", {"q": "Rome"}),
        (
            "<function=search><parameter=q>a < b</parameter><parameter=n>3</parameter></function>",
            {"q": "a < b", "n": 3},
        ),
        (
            '<function=search><parameter=tags>["a", 1]</parameter><parameter=deep>{"x": null}</parameter></function>',
            {"tags": ["a", 1], "deep": {"x": None}},
        ),
        (
            "<function=search>\n<parameter=code>\n  if x:\n    y = '</function>'\n\n</parameter>\n</function>",
            {"code": "  if x:\n    y = '</function>'\n"},
        ),
        ("<function=search><parameter=q></parameter></function>", {"q": ""}),
        ("<function=search></function>", {}),
    ],
)
def test_a_block_of_tags_is_a_call(body: str, arguments: object) -> None:
    text, calls = recover(f"<tool_call>\n{body}\n</tool_call>")
    assert (text, [(name, json.loads(written)) for name, written in calls]) == ("", [("search", arguments)])


def test_several_functions_in_one_block_are_several_calls() -> None:
    body = "<function=search><parameter=q>a</parameter></function>\n<function=weather></function>"
    assert recover([f"<tool_call>{body}</tool_call>"]) == ("", [("search", '{"q":"a"}'), ("weather", "{}")])


@pytest.mark.parametrize(
    "stream",
    [
        '<tool_call>{"name": "unknown", "arguments": {}}</tool_call> after',
        f'<tool_call>{WEATHER}{{"name": "unknown", "arguments": {{}}}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": "Rome"}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": }}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": NaN}}</tool_call>',
        "<tool_call>" + '{"name": "weather", "arguments": {"a":' + "[" * 5000 + "</tool_call>",
        "<tool_call><function=unknown></function></tool_call>",
        "<tool_call><function=search>stray</function></tool_call>",
        "<tool_call><function=search></function> stray</tool_call>",
        '\n <tool_call>{"name": "weather", "arguments": {"city": "Ro',
        "<tool_call></tool_call>",
        "  <tool_call>  ",
        "</tool_call>",
        "ends with <tool_c",
        " \n",
        "",
    ],
)
def test_what_is_no_call_is_given_back_as_it_was(stream: str) -> None:
    assert recover([stream]) == (stream, [])
    assert recover(stream) == (stream, [])


@pytest.mark.parametrize(
    "stream",
    [
        WEATHER,
        f"\n{WEATHER}\n",
        f"```json\n{WEATHER}\n```",
        f"```\n{WEATHER}\n```\n",
        f"```json\n{WEATHER}",
        '{\n  "name" : "weather",\n  "arguments": {"city": "Rome"}\n}',
    ],
)
def test_an_answer_that_is_one_call_object_is_a_call(stream: str) -> None:
    assert recover([stream]) == ("", [CALLED])
    assert recover(stream) == ("", [CALLED])


@pytest.mark.parametrize(
    "stream",
    [
        f"{WEATHER} That is how I would call it.",
        f"For example: {WEATHER}",
        WEATHER[:-15],
        '{"name": "weather", "arguments": {}, "answer": ',
        '{"name": "weather", "arguments": "Rome"}',
        f"```python\n{WEATHER}\n```",
    ],
)
def test_an_answer_with_more_than_a_call_object_stays_text(stream: str) -> None:
    assert recover([stream]) == (stream, [])
    assert recover(stream) == (stream, [])


@pytest.mark.parametrize(
    ("held", "released_by"),
    [
        ('{"na', "tion"),
        ('{"name": "we', "ll"),
        ('{"name": "weather", "ar', "ea"),
        ("```js", "x"),
        ("\n", "So"),
        ("<tool_", "box>"),
        ("<tool_call>\n", "is"),
    ],
)
def test_text_is_held_only_as_long_as_it_can_become_a_call(held: str, released_by: str) -> None:
    recovery = CallRecovery(KnownFunctions(NAMES, None))
    assert not recovery.feed(held)
    assert read(recovery.feed(released_by)) == (held + released_by, [])
    assert recovery.feed(" and so on") == (Text(" and so on"),)


def test_an_answer_that_is_json_of_another_kind_streams_at_once() -> None:
    assert read(CallRecovery(KnownFunctions(NAMES, None)).feed('{"title": "')) == ('{"title": "', [])
    assert read(CallRecovery(KnownFunctions({}, None)).feed('{"name": "')) == ('{"name": "', [])


def test_calls_are_numbered_from_the_first_index_on() -> None:
    recovery = CallRecovery(KnownFunctions(NAMES, None), first_index=3)
    deltas = [*recovery.feed(BLOCK), *recovery.feed(BLOCK), *recovery.flush()]
    assert [delta.index for delta in deltas if isinstance(delta, CallOpened)] == [3, 4]


def test_calls_in_the_thinking_are_found_and_taken_out() -> None:
    recovery = CallRecovery(KnownFunctions(NAMES, None))
    thinking, calls = recovery.recover_from_reasoning(f"I need the weather.\n{BLOCK}\n")
    assert (thinking, read(calls)) == ("I need the weather.", ("", [CALLED]))
    later = [*recovery.feed(BLOCK), *recovery.flush()]
    assert [delta.index for delta in later if isinstance(delta, CallOpened)] == [1]


def test_thinking_without_calls_is_left_alone() -> None:
    assert CallRecovery(KnownFunctions(NAMES, None)).recover_from_reasoning("a <tool_call> b\n") == (
        "a <tool_call> b\n",
        (),
    )


@given(TRICKY, st.data())
def test_the_cut_of_the_stream_does_not_matter(stream: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert recover(pieces) == recover([stream])


@given(st.text(alphabet=st.sampled_from('<{}"name: \n`json答')))
def test_text_without_calls_passes_unchanged(text: str) -> None:
    assert recover(text) == (text, [])


WRITTEN = [
    '<tool_call>{"name": "NAME", "arguments": {}}</tool_call>',
    '{"name": "NAME", "arguments": {}}',
    '{"type": "function", "function": {"name": "NAME", "arguments": {}}}',
    "<tool_call>NAME()</tool_call>",
    "[NAME()]",
    "<function=NAME></function>",
    '<function name="NAME"></function>',
    "<tool_call>NAME\n{}</tool_call>",
]


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize(
    ("name", "called"), [("status", ["git__status"]), ("git.status", ["git__status"]), ("gone", []), ("log", [])]
)
def test_a_name_that_is_meant_is_resolved_in_every_form(written: str, name: str, called: list[str]) -> None:
    """As it is where the upstream has read the call; no other name is taken for it."""
    resolve = {"status": "git__status", "git.status": "git__status", "gone": "git__gone"}.get
    said = written.replace("NAME", name)
    for pieces in ([said], said):
        recovery = CallRecovery(KnownFunctions({"git__status": msgspec.Raw(b"{}")}, resolve))
        deltas: list[Delta] = [delta for piece in pieces for delta in recovery.feed(piece)]
        deltas += recovery.flush()
        assert [delta.name for delta in deltas if isinstance(delta, CallOpened)] == called
        assert bool(called) or "".join(delta.text for delta in deltas if isinstance(delta, Text)) == said


SQL = KnownFunctions({"sql": FREE_TEXT}, None)


@pytest.mark.parametrize(
    "written",
    [
        '<tool_call>{"name": "sql", "arguments": "SELECT 1"}</tool_call>',
        '<tool_call>{"name": "sql", "arguments": {"input": "SELECT 1"}}</tool_call>',
        "<tool_call><function=sql>\nSELECT 1\n</function></tool_call>",
        "<function=sql>\n<parameter=input>\nSELECT 1\n</parameter>\n</function>",
    ],
)
def test_the_free_text_of_a_custom_tool_needs_no_object(written: str) -> None:
    recovery = CallRecovery(SQL)
    text, ((name, arguments),) = read([*recovery.feed(written), *recovery.flush()])
    assert (text, name, read_text(arguments)) == ("", "sql", "SELECT 1")
