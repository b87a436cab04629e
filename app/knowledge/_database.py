"""Shared by the records: conversion of the database's errors to the port's, and pagination of lists."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, RowMapping, Select

from app.db.engine import Database
from app.db.writer import DatabaseUnavailable, RowRefused
from app.knowledge.ports.errors import KnowledgeUnavailable
from app.protocol.wire.paging import Page


@contextmanager
def database_errors() -> Generator[None]:
    """Every database error is the same to the caller."""
    try:
        yield
    except (DatabaseUnavailable, RowRefused) as error:
        raise KnowledgeUnavailable(str(error)) from error


async def fetch(database: Database, statement: Any, parameters: Mapping[str, Any] | None = None) -> Sequence[RowMapping]:
    """All rows of a read. Raises KnowledgeUnavailable."""
    with database_errors():
        return await database.fetch(statement, parameters)


def cut(statement: Select[*tuple[Any, ...]], page: Page, identity: Column[str]) -> Select[*tuple[Any, ...]]:
    """The page of a list whose ids grow with time; a cursor may be the id of something that was deleted.

    A page before a cursor is the entries next to it, so it is read in the opposite direction (see `in_order`).
    """
    forwards = page.order == "asc"
    if page.after is not None:
        statement = statement.where(identity > page.after if forwards else identity < page.after)
    if page.before is not None:
        statement = statement.where(identity < page.before if forwards else identity > page.before)
    ascending = forwards != is_backwards(page)
    return statement.order_by(identity.asc() if ascending else identity.desc()).limit(page.limit)


def in_order(page: Page, rows: Sequence[RowMapping]) -> list[RowMapping]:
    """The rows of `cut` in the order of the list."""
    return list(reversed(rows)) if is_backwards(page) else list(rows)


def is_backwards(page: Page) -> bool:
    """Whether the page is read from its end."""
    return page.before is not None and page.after is None
