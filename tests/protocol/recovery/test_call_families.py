"""Every family of calls written as text, whole and cut anywhere, and what only looks like one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.deltas import CallArguments, CallOpened, Delta, Text
from app.protocol.recovery.calls import CallRecovery
from app.protocol.recovery.known_functions import KnownFunctions

STRING = {"type": "string"}
Called = list[tuple[str, Any]]


def schema(**properties: object) -> msgspec.Raw:
    return msgspec.Raw(json.dumps({"type": "object", "properties": properties}).encode())


FUNCTIONS = {
    "weather": schema(city=STRING, state=STRING),
    "write": schema(path=STRING, content=STRING),
    "count": schema(n={"type": "integer"}, zip=STRING, ok={"type": "boolean"}),
    "now": schema(),
}
ROME = '{"name": "weather", "arguments": {"city": "Rome"}}'
PARIS = '{"name": "weather", "arguments": {"city": "Paris"}}'
IN_ROME: Called = [("weather", {"city": "Rome"})]
BOTH: Called = [*IN_ROME, ("weather", {"city": "Paris"})]
TAGS = "<function=weather>\n<parameter=city>\nRome\n</parameter>\n</function>"


def recover(pieces: Iterable[str], *, bare: bool = True, cut: bool = False) -> tuple[str, Called]:
    """The text, and the calls with their arguments read."""
    recovery = CallRecovery(KnownFunctions(FUNCTIONS, None), bare=bare)
    deltas: list[Delta] = [delta for piece in pieces for delta in recovery.feed(piece)]
    deltas += recovery.flush(cut=cut)
    text = "".join(delta.text for delta in deltas if isinstance(delta, Text))
    names = [delta.name for delta in deltas if isinstance(delta, CallOpened)]
    arguments = [json.loads(delta.fragment) for delta in deltas if isinstance(delta, CallArguments)]
    return text, list(zip(names, arguments, strict=True))


def held(*, text: str = "", calls: Called | None = None, said: str, **how: bool) -> None:
    """The same comes of the whole and of its characters."""
    assert recover([said], **how) == recover(said, **how) == (text, calls or [])


MARKED: dict[str, tuple[str, Called]] = {
    "list": (f"[{ROME}, {PARIS}]", BOTH),
    "lines": (f"{ROME}\n{PARIS}", BOTH),
    "openai": ('{"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}', IN_ROME),
    "openai string": (
        '{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{\\"city\\": \\"Rome\\"}"}}',
        IN_ROME,
    ),
    "function as name": ('{"function": "weather", "arguments": {"city": "Rome"}}', IN_ROME),
    "parameters": ('{"name": "weather", "parameters": {"city": "Rome"}}', IN_ROME),
    "flat": ('{"name": "weather", "city": "Rome"}', IN_ROME),
    "name last": ('{"arguments": {"city": "Rome"}, "name": "weather"}', IN_ROME),
    "extra brace": (ROME + "}", IN_ROME),
    "extra brace between": (f"{ROME}}}\n{PARIS}", BOTH),
    "missing brace": (ROME[:-1], IN_ROME),
    "two missing": (ROME[:-2], IN_ROME),
    "missing brace in a list": (f"[{ROME}, {PARIS[:-1]}]", BOTH),
    "doubled braces": ("{" + ROME + "}", IN_ROME),
    "raw controls": (
        '{"name": "write", "arguments": {"content": "one\ntwo\tx"}}',
        [("write", {"content": "one\ntwo\tx"})],
    ),
    "encoded twice": (json.dumps({"name": "weather", "arguments": json.dumps({"city": "Rome"})}), IN_ROME),
    "arguments null": ('{"name": "now", "arguments": null}', [("now", {})]),
    "fenced": (f"```json\n{ROME}\n```", IN_ROME),
    "single quotes": ("{'name': 'weather', 'arguments': {'city': \"Rome\"}}", IN_ROME),
    "python": ('weather(city="Rome")', IN_ROME),
    "python list": ("[weather(city='Rome'), weather(city=\"Paris\")]", BOTH),
    "python lines": ("weather(city='Rome')\nweather(city='Paris')", BOTH),
    "python by place": ("weather('Rome')", IN_ROME),
    "python types": ("count(n='5', zip=94103, ok=true)", [("count", {"n": 5, "zip": "94103", "ok": True})]),
    "name and object": ('weather\n{"city": "Rome"}', IN_ROME),
    "tags": (TAGS, IN_ROME),
    "tags with JSON": ('<function=weather>{"city": "Rome"}</function>', IN_ROME),
    "quoted names": ('<function="weather"><parameter="city">Rome</parameter></function>', IN_ROME),
    "closing mark in a string": (
        '{"name": "write", "arguments": {"content": "a </tool_call> b </tools> c"}}',
        [("write", {"content": "a </tool_call> b </tools> c"})],
    ),
}


MISTAKEN: dict[str, tuple[str, Called]] = {
    "opening forgotten": (f"{ROME}\n</tool_call>", IN_ROME),
    "opening for closing": (f"<tool_call>{ROME}<tool_call>{PARIS}<tool_call>", BOTH),
    "opening for closing, only the last": (f"<tool_call>{ROME}</tool_call>\n<tool_call>{PARIS}<tool_call>", BOTH),
    "closed as another": (f"<tools>{ROME}</tool_call>", IN_ROME),
    "closed as several": (f"<tool_call>{ROME}</tool_calls>", IN_ROME),
    "turn ended instead": (f"<tool_call>{ROME}<|im_end|>", IN_ROME),
    "doubled": (f"<tool_call>{ROME}</tool_call></tool_call>", IN_ROME),
    "tags closed with a name": (
        "<tool_call><function=weather><parameter=city>Rome</parameter=city></function=weather></tool_call>",
        IN_ROME,
    ),
}


@pytest.mark.parametrize("way", MISTAKEN)
def test_marks_that_were_mistaken(way: str) -> None:
    said, calls = MISTAKEN[way]
    held(said=said, calls=calls)
    if not said.startswith("{"):
        held(said=f"I look.\n{said}", text="I look.\n", calls=calls)


@pytest.mark.parametrize("left", ["</tool_call>", "\n<tool_call>\n", "</tools>", "<|im_end|>", ""])
def test_marks_left_over_beside_a_call_of_the_upstream_vanish(left: str) -> None:
    for said in ([left], left):
        recovery = CallRecovery(KnownFunctions(FUNCTIONS, None))
        deltas: list[Delta] = [delta for piece in said for delta in recovery.feed(piece)]
        assert [*deltas, *recovery.flush(called=True)] == []


def test_without_a_call_a_mark_that_is_left_over_is_text() -> None:
    held(said="</tool_call>", text="</tool_call>")


@pytest.mark.parametrize("mark", ["tool_call", "tools", "function_call", "tool_calls"])
@pytest.mark.parametrize("way", MARKED)
def test_calls_between_marks(mark: str, way: str) -> None:
    body, calls = MARKED[way]
    held(said=f"<{mark}>\n{body}\n</{mark}>", calls=calls)
    held(said=f"I look.\n<{mark}>{body}</{mark}>\n\nDone.", text="I look.\nDone.", calls=calls)


CITY, STATE = "<parameter=city>\nDallas\n", "<parameter=state>\nTX\n"
END, DALLAS = "</parameter>\n", [("weather", {"city": "Dallas", "state": "TX"})]
FORGOTTEN = {
    "nothing": f"<function=weather>\n{CITY}{END}{STATE}{END}</function>\n",
    "first end": f"<function=weather>\n{CITY}{STATE}{END}</function>\n",
    "last end": f"<function=weather>\n{CITY}{END}{STATE}</function>\n",
    "both ends": f"<function=weather>\n{CITY}{STATE}</function>\n",
    "function's end": f"<function=weather>\n{CITY}{END}{STATE}{END}",
    "all ends": f"<function=weather>\n{CITY}{STATE}",
    "doubled": f"<function=weather>\n{CITY}{END}{END}{STATE}{END}{END}</function>\n</function>\n",
    "on one line": "<function=weather><parameter=city>Dallas<parameter=state>TX</function>",
}


@pytest.mark.parametrize("way", FORGOTTEN)
@pytest.mark.parametrize(
    ("before", "behind"),
    [("<tool_call>\n", "</tool_call>"), ("", "</tool_call>"), ("", ""), ("<tool_call>", ""), ("<tools>", "</tools>")],
)
def test_forgotten_and_doubled_tags(way: str, before: str, behind: str) -> None:
    held(said=f"{before}{FORGOTTEN[way]}{behind}", calls=DALLAS)
    if behind:
        held(said=f"Well.\n\n{before}{FORGOTTEN[way]}{behind}\nDone.", text="Well.\n\nDone.", calls=DALLAS)


@pytest.mark.parametrize("way", FORGOTTEN)
def test_a_second_call_behind_a_broken_one(way: str) -> None:
    broken = f"<tool_call>\n{FORGOTTEN[way]}</tool_call>"
    held(said=f"{broken}\n{broken}", calls=DALLAS * 2)


@pytest.mark.parametrize(
    "content",
    [
        "a </parameter> b",
        "a </function> b",
        "a </tool_call> b",
        "</parameter>x</function>y</tool_call>z",
        f"<tool_call>\n{TAGS}\n</tool_call>",
        TAGS,
        "if x:\n    y = '</function>'\n",
        "<parameter=other>1",
        "a <function=other> b",
        "call <function=weather> now",
        "<function=weather>",
        "<html>\n<a href='x'>&amp;</a>\n</html>",
    ],
)
@pytest.mark.parametrize("marked", [True, False])
def test_literal_tags_inside_a_value(content: str, *, marked: bool) -> None:
    path = "<parameter=path>\na\n</parameter>"
    body = f"<function=write>\n{path}\n<parameter=content>\n{content}\n</parameter>\n</function>"
    calls: Called = [("write", {"path": "a", "content": content})]
    held(said=f"<tool_call>\n{body}\n</tool_call> Done" if marked else f"{body} Done", text="Done", calls=calls)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (TAGS, ""),
        (f"{TAGS}\n</tool_call>", ""),
        (f"I'll look.\n\n{TAGS}\n</tool_call>", "I'll look.\n\n"),
        (f"I'll look.\n{TAGS}\n\nDone.", "I'll look.\nDone."),
    ],
)
def test_a_function_without_an_opening_mark(said: str, text: str) -> None:
    held(said=said, text=text, calls=IN_ROME)


BARE = {
    "list": f"[{ROME}]",
    "openai": MARKED["openai"][0],
    "list of openai": f"[{MARKED['openai'][0]}]",
    "message": f'{{"tool_calls": [{MARKED["openai string"][0]}]}}',
    "parameters": MARKED["parameters"][0],
    "name last": MARKED["name last"][0],
    "missing brace": ROME[:-1],
    "extra brace": ROME + "}",
    "raw break": '{"name": "weather", "arguments": {"city": "Rome"\n}}',
    "python list": "[weather(city='Rome')]",
}


@pytest.mark.parametrize("way", BARE)
def test_an_answer_that_is_nothing_but_a_call(way: str) -> None:
    held(said=BARE[way], calls=IN_ROME)
    held(said=f"\n```json\n{BARE[way]}\n```\n", calls=IN_ROME)
    held(said=f"{BARE[way]} That is it.", text=f"{BARE[way]} That is it.")
    held(said=BARE[way], text=BARE[way], bare=False)


def test_marks_count_where_the_bare_form_does_not() -> None:
    held(said=f"<tool_call>{ROME}</tool_call>", calls=IN_ROME, bare=False)
    held(said=f"{ROME}\n<tool_call>{ROME}</tool_call>", text=f"{ROME}\n", calls=IN_ROME)


def test_a_fence_that_is_the_whole_answer_may_hold_marks() -> None:
    for mark in ("tool_call", "function_call", "tools"):
        said = f"```xml\n<{mark}>\n{ROME}\n</{mark}>\n```"
        held(said=said, calls=IN_ROME)
        held(said=f"{said}\nThat is it.", text=f"{said}\nThat is it.")


QUOTED = [
    "So:\n```\n{}\n```\nDone.",
    "So:\n```xml\n{}\n```",
    "So:\n\n   ````md\n```\n{}\n```\n````",
    "> ```\n{}\n> ```",
    "> ```\n> {}\n> ```",
    "- So:\n\n  ```xml\n  {}\n  ```",
    "1. ```\n   {}\n   ```\nDone.",
    "So:\n~~~\n{}\n~~~\nDone.",
    "So:\n~~~xml\n```\n{}\n```\n~~~",
    "Write `{}` to call.",
    "Write ``{} ` `` to call.",
    "So:\n```\n{}",
]


@pytest.mark.parametrize("around", QUOTED)
@pytest.mark.parametrize(
    "call", [f"<tool_call>{ROME}</tool_call>", "<function=weather><parameter=city>Rome</parameter></function>"]
)
def test_quoted_calls_are_words(around: str, call: str) -> None:
    said = around.format(call)
    held(said=said, text=said)


@pytest.mark.parametrize(
    "before",
    [
        "```\ncode\n```\n",
        "a ```x``` b\n",
        "`a` and `b` ",
        "A stray ` here.\n",
        "~ `` ` `` ",
        "```py\n```not the end\n```\n",
        "~~~\n```\n~~~\n",
        "- ```\n  a\n  ```\n",
    ],
)
def test_quotes_that_have_ended_hide_nothing(before: str) -> None:
    held(said=f"So: \n{before}<tool_call>{ROME}</tool_call>", text=f"So: \n{before}", calls=IN_ROME)


def test_a_fence_opens_behind_a_call() -> None:
    call = f"<tool_call>{ROME}</tool_call>"
    held(said=f"So: {call}\n```\n{call}\n```", text=f"So: ```\n{call}\n```", calls=IN_ROME)


@pytest.mark.parametrize(
    "said",
    [
        "<tool_call>weather(city=open('x'))</tool_call>",
        "<tool_call>weather(**more)</tool_call>",
        "<tool_call>weather('a', 'b', 'c')</tool_call>",
        "<tool_call>weather(city={1: 2})</tool_call>",
        "<tool_call>unknown(city='Rome')</tool_call>",
        "<tool_call>weather</tool_call>",
        "<tool_call>[]</tool_call>",
        "<tool_call>[1]</tool_call>",
        '<tool_call>{"arguments": {"city": "Rome"}}</tool_call>',
        '<tool_call>{"name": 1, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": "Ro</tool_call>',
        "<tool_call>" + '{"function":' * 50 + "</tool_call>",
        "<tool_call>weather(" + "[" * 5000 + ")</tool_call>",
        "<tool_call>weather(city=" + "-" * 50000 + "1)</tool_call>",
        "<tool_call>[weather" + ".a" * 5000 + "(city='Rome')]</tool_call>",
        "<tool_call>[" + "weather(city='Rome')," * 300 + "]</tool_call>",
        "<tools>are listed here</tools>",
        "Use <function=name> and <function=weat",
        "[1, 2, 3]",
        '{"arguments": {"city": "Rome"}, "answer": 1}',
        '{"type": "function", "answer": 1}',
    ],
)
def test_what_only_looks_like_a_call_is_given_back(said: str) -> None:
    held(said=said, text=said)


@pytest.mark.parametrize(
    "said",
    [
        f"<tool_call>{ROME[:-1]}",
        ROME[:-1],
        "<tool_call><function=weather><parameter=city>Ro",
        f"<tool_call>{TAGS[:-11]}",
    ],
)
def test_an_answer_that_was_cut_off_makes_no_call_of_half_a_call(said: str) -> None:
    held(said=said, text=said, cut=True)


@pytest.mark.parametrize("said", [f"<tool_call>{ROME}", ROME, f"<tool_call>{TAGS}"])
def test_a_call_that_was_whole_before_the_cut_counts(said: str) -> None:
    held(said=said, calls=IN_ROME, cut=True)


PIECES = [
    ROME, PARIS, TAGS, "<tool_call>", "</tool_call>", "<tools>", "</tools>",
    "<function=weather>", "</function>", "<parameter=city>", "</parameter>", "weather(", "city='Rome')",
    "[", "]", "{", "}", '"', "'", "`", "```", "```json\n", "\n", " ", ",", "<", "a", "答",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), st.booleans(), st.booleans(), st.data())
def test_the_cut_of_the_stream_does_not_matter(said: str, bare: bool, cut: bool, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(said)))))
    pieces = [said[a:b] for a, b in zip([0, *places], [*places, len(said)], strict=True)]
    assert recover(pieces, bare=bare, cut=cut) == recover([said], bare=bare, cut=cut)


@given(st.lists(st.sampled_from([piece for piece in PIECES if "weather" not in piece]), max_size=20).map("".join))
def test_without_the_name_of_a_function_nothing_is_lost(said: str) -> None:
    held(said=said, text=said)


@pytest.mark.parametrize(
    "said",
    [
        '<tool_call>{"' * 20_000,
        "<tool_call><function=weather><parameter=city>" * 5_000,
        "<function=weather><parameter=city>" + "x</function>y" * 20_000,
        "<tool_call><function=weather><parameter=city>" + "x</tool_call>y" * 20_000,
        "\n" * 200_000,
        "<tool_call>" + " " * 200_000,
        "< " * 100_000,
        "`" * 200_000,
        "<function=weather " + " " * 200_000,
        "<tool_call>[" + "weather(city='x')," * 10_000 + "]</tool_call>",
    ],
    ids=[
        "opened",
        "tags opened",
        "functions closed",
        "calls closed",
        "breaks",
        "spaces",
        "less",
        "backticks",
        "spaces of a name",
        "source",
    ],
)
def test_no_text_takes_long(said: str) -> None:
    """Read anew for every piece, each of these would take minutes."""
    recovery = CallRecovery(KnownFunctions(FUNCTIONS, None))
    count = sum(
        len(delta.text)
        for at in range(0, len(said), 4)
        for delta in recovery.feed(said[at : at + 4])
        if isinstance(delta, Text)
    )
    count += sum(len(delta.text) if isinstance(delta, Text) else 0 for delta in recovery.flush())
    assert count <= len(said)
