"""What was fetched is remembered within its bounds."""

from __future__ import annotations

import weakref

from app.tools.fetch.cache import Recent


class _Page:
    """Something that can be seen to be gone."""


def test_a_value_is_good_for_its_time() -> None:
    now = [0.0]
    recent: Recent[str] = Recent(weight=10, seconds=5, clock=lambda: now[0])
    recent.put("a", "A", 1)
    now[0] = 4.9
    assert recent.get("a") == "A"
    now[0] = 5.0
    assert recent.get("a") is None


def test_what_has_expired_is_let_go_when_something_comes() -> None:
    now = [0.0]
    recent: Recent[_Page] = Recent(weight=10, seconds=5, clock=lambda: now[0])
    old, page = weakref.ref(first := _Page()), _Page()
    recent.put("a", first, 1)
    del first
    now[0] = 5.0
    recent.put("b", page, 1)
    assert old() is None
    assert recent.get("b") is page


def test_the_oldest_go_when_it_is_too_much_and_what_is_too_heavy_is_not_kept() -> None:
    recent: Recent[str] = Recent(weight=10, seconds=5)
    for key in "abc":
        recent.put(key, key.upper(), 4)
    recent.put("huge", "HUGE", 11)
    assert [recent.get(key) for key in ("a", "b", "c", "huge")] == [None, "B", "C", None]


def test_a_value_that_is_put_again_counts_once() -> None:
    recent: Recent[str] = Recent(weight=10, seconds=5)
    recent.put("a", "A", 4)
    for _ in range(5):
        recent.put("b", "B", 6)
    assert (recent.get("a"), recent.get("b")) == ("A", "B")
