"""How well a passage fits, by likeness, words, scripts and weights."""

from __future__ import annotations

import pytest

from app.knowledge.relevance import FITTING, SCALES, Relevance

SCALE = SCALES["multilingual-e5-small"]


def rating(query: str, *, meaning: float = 1.0, words: float = 1.0) -> Relevance:
    return Relevance(SCALE, query, meaning=meaning, words=words)


@pytest.mark.parametrize(
    ("query", "text", "likeness", "fits"),
    [
        ("How long?", "Eight years.", 0.85, True),
        ("How long?", "Eight years.", 0.78, False),
        ("多久", "历时八年。", 0.88, True),
        ("多久", "历时八年。", 0.84, False),
        ("How long?", "历时八年。", 0.80, True),
        ("多久", "Eight years.", 0.80, True),
        ("多久", "Eight years.", 0.75, False),
    ],
)
def test_a_likeness_is_measured_from_where_unrelated_texts_of_these_scripts_lie(
    query: str, text: str, likeness: float, fits: bool
) -> None:
    assert (rating(query).of(text, likeness, 0.0) >= FITTING) is fits


@pytest.mark.parametrize(
    ("query", "text", "likeness", "fits"),
    [
        ("How long?", "Eight years.", 0.22, True),
        ("How long?", "Eight years.", 0.1, False),
        ("多久", "历时八年。", 0.22, True),
        ("多久", "历时八年。", 0.14, False),
        ("多久", "Eight years.", 0.15, True),
        ("How long?", "历时八年。", 0.1, False),
    ],
)
def test_a_model_has_a_scale_of_its_own(query: str, text: str, likeness: float, fits: bool) -> None:
    rated = Relevance(SCALES["universal-sentence-encoder-multilingual-3"], query, meaning=1, words=1)
    assert (rated.of(text, likeness, 0.0) >= FITTING) is fits


def test_words_alone_can_fit_and_both_together_fit_better() -> None:
    rated = rating("E-417")
    assert rated.of("Error E-417", None, 1.0) == 1.0
    assert rated.of("Error E-417", None, 0.0) == 0.0
    assert rated.of("Error E-417", 0.8, 0.5) > max(
        rated.of("Error E-417", 0.8, 0.0), rated.of("Error E-417", None, 0.5)
    )


def test_weights_decide_what_counts() -> None:
    assert rating("x", meaning=1, words=0).of("x", None, 1.0) == 0.0
    assert rating("x", meaning=0, words=2).of("x", 0.99, 0.5) == 0.5
    assert rating("x", meaning=10, words=1).of("x", None, 1.0) == pytest.approx(0.1)


def test_every_rating_is_between_0_and_1() -> None:
    for likeness in (-1.0, 0.0, 0.5, 0.9, 1.0):
        assert 0 <= rating("x").of("x", likeness, 0.3) <= 1
