"""Thinking is split from the answer, however the stream was cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.deltas import Delta, Reasoning, Text
from app.protocol.recovery.thinking import ThinkingSplitter, Unopened

EVERY: list[Unopened] = ["likely", "possible", "unlikely"]
TRICKY = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "<thi", "nk>", "think", ">", " ", "\n", "a", "答"]), max_size=14
).map("".join)


def split(pieces: Iterable[str], *, unopened: Unopened = "unlikely") -> tuple[str, str]:
    """The thinking and the answer of a stream of pieces."""
    splitter = ThinkingSplitter(unopened)
    deltas: list[Delta] = [delta for piece in pieces for delta in splitter.feed(piece)]
    deltas += splitter.flush()
    assert all(isinstance(delta, Text | Reasoning) and delta.text for delta in deltas)
    return (
        "".join(delta.text for delta in deltas if isinstance(delta, Reasoning)),
        "".join(delta.text for delta in deltas if isinstance(delta, Text)),
    )


def kinds(deltas: Sequence[Delta]) -> list[tuple[str, str]]:
    return [(type(delta).__name__, delta.text) for delta in deltas if isinstance(delta, Text | Reasoning)]


@pytest.mark.parametrize("unopened", EVERY)
@pytest.mark.parametrize(
    ("stream", "thinking", "answer"),
    [
        ("<think>why</think>so", "why", "so"),
        (" \n<think>\nwhy\n\nhow\n</think>\n\nso\n", "why\n\nhow", "so\n"),
        ("<think>\n\n</think>\n\nso", "", "so"),
        ("<think></think>", "", ""),
        ("<think>a</think> <think>b</think> so", "ab", "so"),
        ("<think>never closed", "never closed", ""),
        ("<think>cut </thi", "cut </thi", ""),
        ("<think>a < b </ c <think> d</think>so", "a < b </ c <think> d", "so"),
        ("<think>a</think>so <think>b</think>", "a", "so <think>b</think>"),
        ("so <think>b", "", "so <think>b"),
        ("  so", "", "  so"),
        (" <thin", "", " <thin"),
        ("<b>so</b>", "", "<b>so</b>"),
        ("</think>\n\nso", "", "so"),
        ("", "", ""),
        (" \n", "", " \n"),
    ],
)
def test_the_block_is_split_off_and_nothing_else(
    *, unopened: Unopened, stream: str, thinking: str, answer: str
) -> None:
    assert split([stream], unopened=unopened) == (thinking, answer)
    assert split(stream, unopened=unopened) == (thinking, answer)


@pytest.mark.parametrize(
    ("stream", "thinking", "answer"),
    [
        ("why\n</think>\n\nso", "why", "so"),
        (" why < how</think><think>more</think>so </think>", "why < howmore", "so </think>"),
        ("just an answer\n", "", "just an answer\n"),
        ("cut </thi", "", "cut </thi"),
    ],
)
def test_an_unopened_block_is_held_until_it_is_known(stream: str, thinking: str, answer: str) -> None:
    assert split([stream], unopened="likely") == (thinking, answer)
    assert split(stream, unopened="likely") == (thinking, answer)


def test_an_unopened_block_shows_nothing_before_its_end() -> None:
    splitter = ThinkingSplitter("likely")
    assert not splitter.feed("why ")
    assert not splitter.feed("how")
    assert kinds(splitter.feed("</think>so")) == [("Reasoning", "why how"), ("Text", "so")]


def test_an_opened_block_streams_although_an_unopened_one_was_expected() -> None:
    splitter = ThinkingSplitter("likely")
    assert kinds(splitter.feed("<think>why")) == [("Reasoning", "why")]
    assert kinds(splitter.feed(" how")) == [("Reasoning", " how")]


def test_a_stray_end_is_dropped_from_an_answer_that_is_under_way() -> None:
    splitter = ThinkingSplitter("unlikely")
    assert kinds(splitter.feed("why")) == [("Text", "why")]
    assert kinds(splitter.feed("</think>\n\nso")) == [("Text", "so")]
    assert kinds(splitter.feed("</think>")) == [("Text", "</think>")]


@pytest.mark.parametrize(
    ("stream", "thinking", "answer"),
    [
        ("<think>\n<think>why</think></think>so", "why", "so"),
        ("<think><thi", "<thi", ""),
        ("</think></think>\nso", "", "so"),
        ("<thinking>why</thinking>so", "", "<thinking>why</thinking>so"),
        ("<THINK>why</THINK>so", "", "<THINK>why</THINK>so"),
    ],
)
@pytest.mark.parametrize("unopened", EVERY)
def test_tags_are_doubled_but_known(*, unopened: Unopened, stream: str, thinking: str, answer: str) -> None:
    assert split([stream], unopened=unopened) == (thinking, answer)
    assert split(stream, unopened=unopened) == (thinking, answer)


@pytest.mark.parametrize(
    ("stream", "thinking", "answer"),
    [
        ("why\n</think>\n\nso", "why", "so"),
        ("why</think>so", "why", "so"),
        ("why</think>", "why", ""),
        (" \n</think>so", "", "so"),
        ("why</think><think>how</think>so", "whyhow", "so"),
        ("A `</think>` ends it.", "", "A `</think>` ends it."),
        ('if "</think>" in text:', "", 'if "</think>" in text:'),
        ("A `</think>` ends it,</think>so", "A `</think>` ends it,", "so"),
        ("So <think> begins and </think> ends it.", "", "So <think> begins and </think> ends it."),
        ('re.sub(r"<think>.*?</think>", "", text)', "", 're.sub(r"<think>.*?</think>", "", text)'),
        ("just an answer\n", "", "just an answer\n"),
        ("cut </think", "", "cut </think"),
    ],
)
def test_where_thinking_is_only_possible_an_answer_may_speak_of_tags(stream: str, thinking: str, answer: str) -> None:
    assert split([stream], unopened="possible") == (thinking, answer)
    assert split(stream, unopened="possible") == (thinking, answer)
    # What cannot be held any more loses the tag, and nothing else.
    shown = split(stream, unopened="unlikely")[1]
    assert shown == answer if not thinking else "</think>so" not in shown


@pytest.mark.parametrize("unopened", ["likely", "possible"])
def test_it_is_known_that_an_answer_began_inside_the_thinking(unopened: Unopened) -> None:
    told: dict[str, bool] = {}
    for stream in ("why</think>so", "so", "<think>why</think>so", "</think>so"):
        splitter = ThinkingSplitter(unopened)
        splitter.feed(stream)
        splitter.flush()
        told[stream] = splitter.met_unopened
    assert told == {"why</think>so": True, "so": False, "<think>why</think>so": False, "</think>so": False}


def test_part_of_a_tag_never_leaks() -> None:
    splitter = ThinkingSplitter("unlikely")
    assert [kinds(splitter.feed(piece)) for piece in ["<thi", "nk>a", " </", "think", ">", "\n", "so"]] == [
        [],
        [("Reasoning", "a")],
        [],
        [],
        [],
        [],
        [("Text", "so")],
    ]


@given(stream=TRICKY, unopened=st.sampled_from(EVERY), data=st.data())
def test_the_cut_of_the_stream_does_not_matter(*, stream: str, unopened: Unopened, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert split(pieces, unopened=unopened) == split([stream], unopened=unopened)


@given(answer=st.text(alphabet=st.characters(exclude_characters="<")), unopened=st.sampled_from(EVERY))
def test_an_answer_without_tags_passes_unchanged(*, answer: str, unopened: Unopened) -> None:
    assert split(answer, unopened=unopened) == ("", answer)
