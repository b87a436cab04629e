"""What is cut keeps whole characters, says that it was cut, and is as short as asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.shortening import beginning, printable, without_middle

_NOTE = 60


@given(st.text(), st.integers(0, 50))
def test_the_middle_is_left_out(text: str, size: int) -> None:
    cut = without_middle(text, size)
    if len(text.encode()) <= size:
        assert cut == text
    else:
        head, _, rest = cut.partition("\n[… ")
        assert text.startswith(head)
        assert text.endswith(rest.partition("]\n")[2])
        assert len(cut.encode()) <= size + _NOTE


@given(st.text(), st.integers(-1, 50))
def test_the_beginning_is_kept_and_its_cut_marked(text: str, size: int) -> None:
    cut = beginning(text, size, "…")
    if len(text.encode()) <= max(size, 0):
        assert cut == text
    else:
        assert cut.endswith("…")
        assert text.startswith(cut.removesuffix("…"))
        assert len(cut.removesuffix("…").encode()) <= max(size, 0)


def test_half_a_character_does_not_stop_it() -> None:
    assert beginning("ab\ud83dcd", 3) == "ab?"
    assert without_middle("\ud83d" * 9, 4).startswith("??\n[… 5 bytes")


def test_what_cannot_be_printed_is_replaced() -> None:
    assert printable("a\u202eb\nc 中") == "a?b?c 中"
