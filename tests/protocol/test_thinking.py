"""Thinking is split from the answer, however the stream was cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.deltas import Delta, Reasoning, Text
from app.protocol.thinking import ThinkingSplitter

TRICKY = st.lists(st.sampled_from(["<think>", "</think>", "<", "</", "<thi", "nk>", "think", ">", " ", "\n", "a", "答"]), max_size=14).map(
    "".join
)


def split(pieces: Iterable[str], *, unopened: Unopened = "unlikely") -> tuple[str, str]:
    """The thinking and the answer of a stream of pieces."""
    splitter = ThinkingSplitter(expect_unopened=expect_unopened)
    deltas: list[Delta] = [delta for piece in pieces for delta in splitter.feed(piece)]
    deltas += splitter.flush()
    assert all(isinstance(delta, Text | Reasoning) and delta.text for delta in deltas)
    return (
        "".join(delta.text for delta in deltas if isinstance(delta, Reasoning)),
        "".join(delta.text for delta in deltas if isinstance(delta, Text)),
    )


def kinds(deltas: Sequence[Delta]) -> list[tuple[str, str]]:
    return [(type(delta).__name__, delta.text) for delta in deltas if isinstance(delta, Text | Reasoning)]


@pytest.mark.parametrize("expect_unopened", [True, False])
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
def test_the_block_is_split_off_and_nothing_else(*, expect_unopened: bool, stream: str, thinking: str, answer: str) -> None:
    assert split([stream], expect_unopened=expect_unopened) == (thinking, answer)
    assert split(stream, expect_unopened=expect_unopened) == (thinking, answer)


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
    assert split([stream], expect_unopened=True) == (thinking, answer)
    assert split(stream, expect_unopened=True) == (thinking, answer)


def test_an_unopened_block_shows_nothing_before_its_end() -> None:
    splitter = ThinkingSplitter(expect_unopened=True)
    assert not splitter.feed("why ")
    assert not splitter.feed("how")
    assert kinds(splitter.feed("</think>so")) == [("Reasoning", "why how"), ("Text", "so")]


def test_an_opened_block_streams_although_an_unopened_one_was_expected() -> None:
    splitter = ThinkingSplitter(expect_unopened=True)
    assert kinds(splitter.feed("<think>why")) == [("Reasoning", "why")]
    assert kinds(splitter.feed(" how")) == [("Reasoning", " how")]


def test_a_stray_end_is_dropped_from_an_answer_that_is_under_way() -> None:
    splitter = ThinkingSplitter(expect_unopened=False)
    assert kinds(splitter.feed("why")) == [("Text", "why")]
    assert kinds(splitter.feed("</think>\n\nso")) == [("Text", "so")]
    assert kinds(splitter.feed("</think>")) == [("Text", "</think>")]


def test_part_of_a_tag_never_leaks() -> None:
    splitter = ThinkingSplitter(expect_unopened=False)
    assert [kinds(splitter.feed(piece)) for piece in ["<thi", "nk>a", " </", "think", ">", "\n", "so"]] == [
        [],
        [("Reasoning", "a")],
        [],
        [],
        [],
        [],
        [("Text", "so")],
    ]


@given(stream=TRICKY, expect_unopened=st.booleans(), data=st.data())
def test_the_cut_of_the_stream_does_not_matter(*, stream: str, expect_unopened: bool, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert split(pieces, expect_unopened=expect_unopened) == split([stream], expect_unopened=expect_unopened)


@given(answer=st.text(alphabet=st.characters(exclude_characters="<")), expect_unopened=st.booleans())
def test_an_answer_without_tags_passes_unchanged(*, answer: str, expect_unopened: bool) -> None:
    assert split(answer, expect_unopened=expect_unopened) == ("", answer)
