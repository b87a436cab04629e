"""Marks as models write them, in an answer with five sources; and what looks like one."""

from __future__ import annotations

import pytest

from app.engine.hosted.citations import Citations
from app.protocol.wire import items
from app.tools.ports.tool import UrlCitation


@pytest.fixture
def citations() -> Citations:
    found = Citations()
    for number in range(1, 6):
        found.cite(UrlCitation(f"https://e{number}.example/p?id={number}&utm_source=feed", str(number)))
    return found


def cited(citations: Citations, text: str) -> list[tuple[str, str]]:
    """What is annotated, and the number of its source."""
    notes = [note for note in citations.annotate(text) if isinstance(note, items.UrlCitation)]
    return [(text[note.start_index : note.end_index], note.title) for note in notes]


@pytest.mark.parametrize(
    ("mark", "numbers"),
    [
        ("[1]", "1"),
        ("[1, 2]", "12"),
        ("[1,2,5]", "125"),
        ("[1;2]", "12"),
        ("[ 1 ]", "1"),
        ("[1, 1]", "1"),
        ("[1-3]", "123"),
        ("[1–2]", "12"),
        ("[1-2, 4]", "124"),
        ("[1、2]", "12"),
        ("[１，２]", "12"),
        ("［1］", "1"),
        ("【1】", "1"),
        ("【1, 2】", "12"),
        ("【1†source】", "1"),
        ("【2†L10-L20】", "2"),
        ("[ref_1]", "1"),
        ("[ref_1, ref_2]", "12"),
        ("[Ref. 3]", "3"),
        ("[^1]", "1"),
        ("[^ref_2]", "2"),
        ("[source 1]", "1"),
        ("[Source: 1]", "1"),
        ("[citation:3]", "3"),
        ("[cite: 1, 2]", "12"),
        ("[来源1]", "1"),
        ("【来源：1、2】", "12"),
        ("(source 1)", "1"),
        ("(Sources 1, 2)", "12"),
        ("（来源1）", "1"),
        ("[[1]]", "1"),
        ("[[1]](https://e1.example/p?id=1)", "1"),
        ("[1](https://elsewhere.example/)", "1"),
        ("[1, 9]", "1"),
    ],
)
@pytest.mark.parametrize(
    "around", ["Fact {}. End", "{}", "塔很高{}。", "🗼 **tall** {}", "* {} is a line of a list", "| a | {} |"]
)
def test_a_mark_is_annotated_as_it_stands(citations: Citations, mark: str, numbers: str, around: str) -> None:
    assert cited(citations, around.format(mark)) == [(mark, number) for number in numbers]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("F [1][2]", ["[1]", "[2]"]),
        ("F 【1】【2】", ["【1】", "【2】"]),
        ("F [ref_1][ref_2]", ["[ref_1]", "[ref_2]"]),
        ("F [1], [2]、[3]", ["[1]", "[2]", "[3]"]),
        ("F [[1], [2]]", ["[1]", "[2]"]),
        ("It is tall[1].", ["[1]"]),
        ("It is tall[1][2].", ["[1]", "[2]"]),
        ("By GPT4[1] in 2023[2] (as above)[3]", ["[1]", "[2]", "[3]"]),
        ("Read [the tower][1].", ["[1]"]),
        ("`arr[1]` is said in [2]", ["[2]"]),
        ("```\nx[1]\n```\nSaid [2].", ["[2]"]),
        ("<sup>[1]</sup>", ["[1]"]),
        ("[1].The next sentence", ["[1]"]),
    ],
)
def test_several_in_a_row_and_close_to_words(citations: Citations, text: str, found: list[str]) -> None:
    assert [place for place, _ in cited(citations, text)] == found


@pytest.mark.parametrize(
    "text",
    [
        "`arr[1]`",
        "```python\nprint(arr[1], [1, 2])\n```",
        "~~~\n[1]\n~~~",
        "- a list:\n  ```\n  [1]\n  ```",
        "<code>[1]</code> and <pre>a\n[2]</pre>",
        "Take arr[1] or data[2] of it",
        "x[1], sys.argv[1], self.items[1], user_ids[1], myList[2], $row[1]",
        "matrix[1][2] and m[i][1] and f(x)[1]",
        "the words[1] of\n```py\nwords = [1]\n```",
        "a = [1, 2] and f([1, 2]) and [1, 2].map(f)",
        '{"ids": [1, 2]}',
        "$[1, 2]$ and x ∈ [1, 2]",
        "[0] [0, 1] [9] [12345] [2019-2020] [1-100] [3-1] [x] [ ] [a1] [1a] [1.5] [12:30]",
        "(1) and (see 1) and ref 1 and source 1",
    ],
)
def test_what_is_no_mark_is_not_annotated(citations: Citations, text: str) -> None:
    assert cited(citations, text) == []


@pytest.mark.parametrize(
    ("address", "number"),
    [
        ("https://e1.example/p?id=1", "1"),
        ("http://e1.example/p?id=1", "1"),
        ("https://E1.Example:443/p/?utm_medium=x&id=1#part", "1"),
        ("https://e3.example/p?id=3&fbclid=zz&gclid=y", "3"),
        ("https://e3.example/p?utm_source=openai&amp;id=3", "3"),
    ],
)
def test_an_address_is_known_without_its_tracking(citations: Citations, address: str, number: str) -> None:
    assert cited(citations, f"See {address}, please") == [(address, number)]
    assert cited(citations, f"See [it]({address}).") == [(f"[it]({address})", number)]


@pytest.mark.parametrize(
    "address", ["https://e1.example/p?id=2", "https://e1.example/q?id=1", "https://e1.example:8443/p?id=1"]
)
def test_another_address_is_another_page(citations: Citations, address: str) -> None:
    assert cited(citations, f"See {address}") == []


def test_pages_that_differ_in_tracking_only_are_one_source(citations: Citations) -> None:
    assert citations.cite(UrlCitation("http://e2.example/p/?id=2&utm_campaign=y", "again")) == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "F [^1].\n\n[^1]: https://e3.example/p?id=3",
            [("[^1]", "3"), ("[^1]", "3"), ("https://e3.example/p?id=3", "3")],
        ),
        (
            "F [^a].\n\n[^a]: See <https://e4.example/p?id=4>",
            [("[^a]", "4"), ("[^a]", "4"), ("https://e4.example/p?id=4", "4")],
        ),
        (
            "[it][t]\n\n[t]: https://e5.example/p?id=5 'T'",
            [("[t]", "5"), ("[t]", "5"), ("https://e5.example/p?id=5", "5")],
        ),
        (
            "F [1].\n\n[1] Title, https://e2.example/p?id=2",
            [("[1]", "2"), ("[1]", "2"), ("https://e2.example/p?id=2", "2")],
        ),
        ("F [^2].\n\n[^2]: The second page.", [("[^2]", "2"), ("[^2]", "2")]),
    ],
)
def test_notes_at_the_end_say_what_their_marks_mean(
    citations: Citations, text: str, found: list[tuple[str, str]]
) -> None:
    assert cited(citations, text) == found


def test_each_source_of_a_mark_has_its_place_in_code_points(citations: Citations) -> None:
    notes = citations.annotate("🗼高[1, 2]")
    assert [(note.start_index, note.end_index) for note in notes if isinstance(note, items.UrlCitation)] == [
        (2, 8),
        (2, 8),
    ]
