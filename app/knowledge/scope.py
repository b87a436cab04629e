"""Versions of files in the passage index, and the ones that a search covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import ColumnElement, and_

from app.db.searching import POSITION_BITS
from app.db.tables import passages


class Version(msgspec.Struct, frozen=True):
    """One version of a file's passages."""

    id: int
    store: int

    def number(self, position: int) -> int:
        """The number of the passage at that position."""
        return self.id << POSITION_BITS | position


class Scope(msgspec.Struct, frozen=True):
    """What is searched."""

    stores: Mapping[int, Sequence[int]]
    """The ids of all file versions in each store."""
    wanted: Sequence[int]
    """The ids of those that match the filters."""
    size: int
    """The number of passages in those."""


def belongs(version: Version) -> ColumnElement[bool]:
    """The condition that a passage is part of the version."""
    following = Version(version.id + 1, version.store)
    return and_(passages.c.number >= version.number(0), passages.c.number < following.number(0))


def marked(store: int) -> str:
    """A word that every passage of a store has, and that occurs in no text: it begins with a private-use character."""
    return f"\ue000{store}"
