"""Sources in an answer: found again however the model names them, at the right places."""

from __future__ import annotations

import copy

import pytest

from app.engine.hosted.citations import Citations
from app.protocol.wire import items
from app.protocol.wire.items import Annotation
from app.tools.ports.tool import ContainerFile, FileCitation, UrlCitation

TOWER = UrlCitation("https://a.example/tower", "Tower")
CHINESE = UrlCitation("https://b.example/wiki/%E5%A1%94", "塔")
BRACKETS = UrlCitation("https://c.example/wiki/Qwen_(model)#top", "Qwen")
MANUAL = FileCitation("file_1", "manual.pdf")
PLOT = ContainerFile("cntr_1", "cfile_1", "plot (1).png", "/mnt/data/plot (1).png")
DATA = ContainerFile("cntr_1", "cfile_2", "my data.csv", "/mnt/data/my data.csv")


def citing(*sources: UrlCitation | FileCitation | ContainerFile) -> Citations:
    citations = Citations()
    for source in sources:
        citations.cite(source)
    return citations


def quoted(text: str, *sources: UrlCitation | FileCitation | ContainerFile) -> list[tuple[str, str]]:
    """What is annotated in the text, and with what."""
    return [_pair(text, annotation) for annotation in citing(*sources).annotate(text)]


def _pair(text: str, annotation: Annotation) -> tuple[str, str]:
    match annotation:
        case items.UrlCitation():
            return text[annotation.start_index : annotation.end_index], annotation.title
        case items.ContainerFileCitation():
            return text[annotation.start_index : annotation.end_index], annotation.filename
        case items.FileCitation():
            return text[annotation.index :][:3], annotation.filename


def test_a_source_keeps_its_first_number() -> None:
    citations = citing(TOWER, MANUAL)
    again = UrlCitation("https://a.example/tower/#floor", "Another title")
    assert (citations.cite(again), citations.cite(MANUAL), citations.cite(CHINESE)) == (1, 2, 3)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is high [1].", ["[1]"]),
        ("[1][2]", ["[1]", "[2]"]),
        ("High [1](https://a.example/tower)!", ["[1](https://a.example/tower)"]),
        ("See [the tower](https://a.example/tower).", ["[the tower](https://a.example/tower)"]),
        ('See [it](https://a.example/tower "The tower").', ['[it](https://a.example/tower "The tower")']),
        ("See https://a.example/tower/.", ["https://a.example/tower/"]),
        (
            "See **https://a.example/tower**, <https://a.example/tower>",
            ["https://a.example/tower", "https://a.example/tower"],
        ),
        ("见https://a.example/tower，很高。", ["https://a.example/tower"]),
        ("见https://a.example/tower很高", ["https://a.example/tower"]),
        ("高塔[2]。", ["[2]"]),
        ("见 https://b.example/wiki/塔。", ["https://b.example/wiki/塔"]),
        ("🗼🗼 high [1] 🗼", ["[1]"]),
        ("See (https://c.example/wiki/Qwen_(model)).", ["https://c.example/wiki/Qwen_(model)"]),
        ("See [Qwen](https://c.example/wiki/Qwen_(model)).", ["[Qwen](https://c.example/wiki/Qwen_(model))"]),
        ("[0] [9] [12345] a[i] [] [1", []),
        ("https://a.example/towers and https://evil.example/?u=https://a.example/tower", []),
        ("[the tower](https://a.example/other)", []),
        ("", []),
    ],
)
def test_a_page_is_found_by_number_link_or_address(text: str, found: list[str]) -> None:
    assert [place for place, _ in quoted(text, TOWER, CHINESE, BRACKETS)] == found


def test_offsets_count_characters_not_bytes_nor_utf_16() -> None:
    (annotation,) = citing(TOWER).annotate("🗼中 [1]")
    assert annotation == items.UrlCitation(TOWER.url, "Tower", 3, 6)


def test_places_that_overlap_are_annotated_once_with_the_longest() -> None:
    text = "[see https://a.example/tower](https://b.example/wiki/%E5%A1%94) and [1](https://b.example/wiki/%E5%A1%94)"
    assert quoted(text, TOWER, CHINESE) == [
        ("[see https://a.example/tower](https://b.example/wiki/%E5%A1%94)", "塔"),
        (text[-37:], "Tower"),
    ]


def test_a_file_of_the_user_is_cited_at_a_place() -> None:
    (annotation,) = citing(MANUAL).annotate("As it says [1].")
    assert annotation == items.FileCitation("file_1", "manual.pdf", 11)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Here: [plot](sandbox:/mnt/data/plot%20(1).png)", "[plot](sandbox:/mnt/data/plot%20(1).png)"),
        ("![plot](sandbox:/mnt/data/plot%20%281%29.png)", "![plot](sandbox:/mnt/data/plot%20%281%29.png)"),
        ("Saved as sandbox:/mnt/data/plot%20(1).png.", "sandbox:/mnt/data/plot%20(1).png"),
        ("Look at [1].", "[1]"),
    ],
)
def test_a_file_that_code_made_is_found_by_its_path(text: str, found: str) -> None:
    assert quoted(text, PLOT) == [(found, "plot (1).png")]


def test_a_path_with_spaces_is_found_in_a_link() -> None:
    text = "[data](sandbox:/mnt/data/my data.csv)"
    assert quoted(text, DATA) == [(text, "my data.csv")]


def test_files_that_no_answer_mentions_come_last_and_once() -> None:
    citations = citing(PLOT, TOWER, DATA)
    text = "See [data](sandbox:/mnt/data/my data.csv) [2]."
    first = citations.annotate(text)
    assert [_pair(text, annotation)[1] for annotation in first] == ["my data.csv", "Tower", "plot (1).png"]
    assert first[-1] == items.ContainerFileCitation("cntr_1", "cfile_1", "plot (1).png", len(text), len(text))
    assert citations.annotate("More.") == []
    assert [_pair("[1]", annotation)[0] for annotation in citations.annotate("[1]")] == ["[1]"]


def test_a_look_at_an_unfinished_answer_changes_nothing() -> None:
    """Who follows a stream late is shown a copy of what is being written."""
    citations = citing(PLOT)
    copy.deepcopy(citations.annotate)("half an ans")
    assert len(citations.annotate("half an answer")) == 1


def test_without_sources_there_is_nothing_to_look_for() -> None:
    assert citing().annotate("[1] https://a.example") == ()


def test_a_hostile_text_is_read_in_linear_time() -> None:
    """A quadratic reading would take hours."""
    citations = citing(TOWER)
    for piece in (
        "[",
        "[7](",
        "https://",
        "[a](https://a.example/(",
        "sandbox:/(",
        "[7, ",
        "[7-",
        "【7†",
        "[[7",
        "(source 7, ",
        "[^7]: x\n",
    ):
        assert citations.annotate(piece * 20_000) == []
    for piece in ("[^1]: x\n", "[1]", "a[1]", "`[1]", "x = [1]", "f([1]", "<code>[1]", "_1[1]"):
        assert len(citations.annotate(piece * 5_000)) <= 5_000
    labels = "".join(f"[^a{number}]: https://a.example/tower\n" for number in range(5_000))
    assert len(citations.annotate(labels)) == 10_000
