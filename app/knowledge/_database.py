"""Shared by the records: conversion of the database's errors to the port's, and pagination of lists."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from sqlalchemy import Column, RowMapping, Select, tuple_

from app.db.engine import Database
from app.db.writer import DatabaseUnavailable, RowRefused
from app.knowledge.ports.errors import KnowledgeUnavailable
from app.protocol.wire.paging import Page

Cursor: TypeAlias = tuple[Any, ...] | None


@contextmanager
def database_errors() -> Generator[None]:
    """Every database error is the same to the caller."""
    try:
        yield
    except (DatabaseUnavailable, RowRefused) as error:
        raise KnowledgeUnavailable(str(error)) from error


async def fetch(
    database: Database, statement: Any, parameters: Mapping[str, Any] | None = None
) -> Sequence[RowMapping]:
    """All rows of a read. Raises KnowledgeUnavailable."""
    with database_errors():
        return await database.fetch(statement, parameters)


def cut(
    statement: Select[*tuple[Any, ...]], page: Page, columns: Sequence[Column[Any]], after: Cursor, before: Cursor
) -> Select[*tuple[Any, ...]]:
    """The page of a list in the order of these columns; a cursor is their values, also those of something that was
    deleted.

    A page before a cursor is the entries next to it, so it is read in the opposite direction (see `in_order`).
    """
    forwards, place = page.order == "asc", tuple_(*columns)
    if after is not None:
        statement = statement.where(place > after if forwards else place < after)
    if before is not None:
        statement = statement.where(place < before if forwards else place > before)
    ascending = forwards != page.is_backwards
    return statement.order_by(*(column.asc() if ascending else column.desc() for column in columns)).limit(page.limit)


def cut_by_id(statement: Select[*tuple[Any, ...]], page: Page, identity: Column[str]) -> Select[*tuple[Any, ...]]:
    """The page of a list whose ids grow with time."""
    return cut(statement, page, [identity], _cursor(page.after), _cursor(page.before))


def in_order(page: Page, rows: Sequence[RowMapping]) -> list[RowMapping]:
    """The rows of `cut` in the order of the list."""
    return list(reversed(rows)) if page.is_backwards else list(rows)


def _cursor(identity: str | None) -> Cursor:
    return None if identity is None else (identity,)
