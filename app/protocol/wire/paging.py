"""The page of a list that a client asks for."""

from __future__ import annotations

from typing import Literal

import msgspec


class Page(msgspec.Struct, frozen=True):
    """At most `limit` objects; `after` and `before` are ids in the list."""

    limit: int
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    before: str | None = None
