"""How texts are cut into passages."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.knowledge.chunking import estimate, passages, split

CHINESE = "数据库在启动时会检查所有的表是否完整，如果发现错误就会停止服务。管理员应当查看日志；然后重新启动！"
ENGLISH = "The pump starts at noon. Nobody is allowed to open the valve, which is hot. "


def texts(text: str, size: int = 100, overlap: int = 50) -> list[str]:
    """Their texts alone."""
    return [passage.text for passage in passages(text, size, overlap)]


_RANDOM = random.Random(7)  # noqa: S311 - the same texts in every run


def _letters(alphabet: str, count: int) -> str:
    return "".join(_RANDOM.choices(alphabet, k=count))


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"第{n}句：{_letters(CHINESE, 30)}。" for n in range(90)),
        "".join(f"{n} {_letters('abcdef ', 60)}. " for n in range(90)),
        _letters("abcdefghij", 9000),
        _letters("".join(chr(0x4E00 + n) for n in range(500)), 4000),
        "".join(f"混合 {n} mixed 文本 text. " for n in range(300)),
    ],
)
def test_no_passage_is_too_long_and_nothing_is_lost(text: str) -> None:
    found = passages(text, 100, 50)
    assert [passage.position for passage in found] == list(range(len(found)))
    assert max(estimate(passage.text) for passage in found) <= 100
    assert min(estimate(passage.text) for passage in found[:-1]) >= 60
    rest = "".join(text.split())
    at = 0
    for passage in found:
        piece = "".join(passage.text.split())
        start = rest.find(piece, max(0, at - len(piece)))
        assert 0 <= start <= at
        at = max(at, start + len(piece))
    assert at == len(rest)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"第{n}句话说明一件事情。" for n in range(300)),
        "".join(f"Sentence number {n} is here. " for n in range(300)),
    ],
)
def test_sentences_stay_whole_and_neighbours_overlap(text: str) -> None:
    found = texts(text)
    assert all(one[-1] in "。." for one in found)
    assert all(one[0] in "第S" for one in found)
    for before, after in itertools.pairwise(found):
        assert after[:20] in before
        assert estimate(before[before.index(after[:20]) :]) <= 50


def test_without_overlap_nothing_comes_twice() -> None:
    found = texts("".join(f"Sentence {n}. " for n in range(500)), overlap=0)
    assert "".join("".join(found).split()) == "".join(f"Sentence{n}." for n in range(500))


def test_a_passage_says_under_which_heading_it_stands() -> None:
    found = texts(f"# Pumps\n\n{ENGLISH * 12}\n\n## Noise\n\n{ENGLISH * 12}")
    assert found[0].startswith("# Pumps\n\nThe pump")
    assert found[-1].startswith("## Noise\n\nThe pump")
    assert all(one.startswith(("# Pumps\n\n", "## Noise\n\n")) for one in found)


@pytest.mark.parametrize("letters", ["".join(chr(0x4E00 + n) for n in range(500)), "abcdefghij"])
def test_a_long_heading_leaves_room_for_what_it_stands_over(letters: str) -> None:
    """Else a hostile file becomes many times as many passages, each with the whole heading."""
    heading, body = f"# {_letters(letters, 150)}", _letters(letters, 20_000)
    under, alone = texts(f"{heading}\n{body}"), texts(body)

    assert len(under) < 3 * len(alone)
    assert all(text.startswith(heading[:25]) for text in under)


def test_chinese_chapters_are_headings() -> None:
    found = texts(f"第一章 总则\n{CHINESE * 8}\n第二章 细则\n{CHINESE * 8}")
    assert found[0].startswith("第一章 总则\n")
    assert found[-1].startswith("第二章 细则\n")
    assert all(one.startswith(("第一章 总则\n", "第二章 细则\n")) for one in found)


def test_a_paragraph_is_the_better_place_to_cut() -> None:
    paragraph = ENGLISH * 4 + "\n\n"
    assert all(one.startswith("The pump") and one.endswith("hot.") for one in texts(paragraph * 10, overlap=0))


@pytest.mark.parametrize("text", ["", " \n\t ", "\0\0", "\n" * 1000])
def test_a_text_without_words_has_no_passages(text: str) -> None:
    assert texts(text) == []


@given(st.text(max_size=600), st.integers(100, 200), st.integers(0, 50))
def test_any_text_is_cut(text: str, size: int, overlap: int) -> None:
    for passage in passages(text, size, overlap):
        assert passage.text.strip()
        assert "\0" not in passage.text
        assert estimate(passage.text) <= size


@pytest.mark.parametrize(
    "text",
    [
        "." * 400_000,
        ". " * 200_000,
        '"' * 400_000,
        "# a\n" * 100_000,
        "，" * 200_000,
        "\r\n \t" * 100_000,
        ".\"'" * 130_000,
    ],
)
def test_hostile_texts_take_time_in_proportion(text: str) -> None:
    """Whatever grows with the square of the length would not end here."""
    assert all(estimate(passage.text) <= 800 for passage in passages(text, 800, 400))


async def test_it_is_done_in_another_process() -> None:
    assert [passage.text for passage in await split(ENGLISH * 3, size=800, overlap=400, project="p")] == [
        (ENGLISH * 3).strip()
    ]
