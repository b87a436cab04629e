"""The page of a list that a client asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec


class Page(msgspec.Struct, frozen=True):
    """At most `limit` objects; `after` and `before` are ids in the list."""

    limit: int
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    before: str | None = None

    @property
    def is_backwards(self) -> bool:
        """It is the end of what comes before a cursor."""
        return self.before is not None and self.after is None


class UnknownCursor(Exception):
    """The list has no object with the id in `param`."""

    def __init__(self, param: Literal["after", "before"], cursor: str) -> None:
        super().__init__(cursor)
        self.param: Literal["after", "before"] = param
        self.cursor = cursor


def window(ids: Sequence[str], page: Page) -> tuple[slice, bool]:
    """Where the page is in a list with these ids, which are in the page's order, and whether there is more.

    Raises UnknownCursor.
    """
    start = 0 if page.after is None else _place(ids, "after", page.after) + 1
    end = len(ids) if page.before is None else _place(ids, "before", page.before)
    if page.is_backwards:
        first = max(start, end - page.limit)
        return slice(first, end), first > start
    last = min(end, start + page.limit)
    return slice(start, max(start, last)), last < end


def _place(ids: Sequence[str], param: Literal["after", "before"], cursor: str) -> int:
    try:
        return ids.index(cursor)
    except ValueError:
        raise UnknownCursor(param, cursor) from None
