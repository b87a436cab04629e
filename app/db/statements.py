"""Core statements as drivers take them: to execute one through SQLAlchemy costs more than the database itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Delete, Insert
from sqlalchemy.engine.interfaces import Dialect

from app.db.writer import Change


class _Compiled(NamedTuple):
    """A statement with places for its parameters."""

    text: str
    places: Sequence[str]
    constants: Mapping[str, Any]


def compiled(change: Change, dialect: Dialect) -> tuple[str, list[Any]]:
    """A change's statement in the dialect, and its values by place.

    Statements are compiled once: they must be constants.
    """
    text, places, constants = _compile(change.statement, dialect, tuple(change.parameters))
    values = {**constants, **change.parameters}
    return text, [values[place] for place in places]


@cache
def _compile(statement: Insert | Delete, dialect: Dialect, names: Sequence[str]) -> _Compiled:
    made = statement.compile(dialect=dialect, column_keys=list(names))
    return _Compiled(made.string, made.positiontup or (), made.params)
