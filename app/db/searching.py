"""What each engine searches passages with. SQLAlchemy has no words for it, so it is SQL here, and Alembic does not compare it.

SQLite: an FTS5 index that holds nothing but the words, and the vectors (float16) of up to 128 passages a row. Postgres: text search
vectors, and pgvector's of half precision and any length.
"""

from __future__ import annotations

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

POSITION_BITS = 24
"""Of a passage's number; the rest is its file's."""

SEGMENT = 128
"""Vectors in a row, on SQLite; its number is that of the first."""

_PREFIX = "passage_index"

# `ascii` takes every other character for a letter, and so leaves the words as `app/knowledge/words.py` has made them.
_SQLITE = (
    f"CREATE VIRTUAL TABLE {_PREFIX}_words USING fts5(words, content='', detail=none, columnsize=0, tokenize='ascii')",
    f"CREATE TABLE {_PREFIX}_vectors (number INTEGER PRIMARY KEY, data BLOB NOT NULL)",
)

# Vectors stay in their row, where a scan finds them; there is no index of them: see `app/knowledge/index_postgres.py`.
_POSTGRES = (
    f"CREATE TABLE {_PREFIX}_words (number bigint PRIMARY KEY, file bigint NOT NULL, words tsvector NOT NULL)",
    f"CREATE INDEX {_PREFIX}_words_file ON {_PREFIX}_words (file)",
    f"CREATE INDEX {_PREFIX}_words_words ON {_PREFIX}_words USING gin (words)",
    f"CREATE TABLE {_PREFIX}_vectors (number bigint PRIMARY KEY, file bigint NOT NULL, embedding halfvec NOT NULL)",
    f"ALTER TABLE {_PREFIX}_vectors ALTER embedding SET STORAGE main",
    f"CREATE INDEX {_PREFIX}_vectors_file ON {_PREFIX}_vectors (file)",
)

# Any number no one else uses: replicas that start together make it once.
_LOCK = 7_305_112_905


def is_own(table: str) -> bool:
    """Whether a table is one of these, or one that FTS5 keeps for itself."""
    return table.startswith(_PREFIX)


def create(connection: Connection) -> str | None:
    """Make it, if it is not there, in the connection's transaction; a sentence that says why that cannot be."""
    if connection.dialect.name == "sqlite":
        for statement in _SQLITE:
            connection.execute(text(statement))
        return None
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    if connection.execute(text(f"SELECT to_regclass('{_PREFIX}_vectors')")).scalar() is not None:
        return None
    try:
        with connection.begin_nested():
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
            for statement in _POSTGRES:
                connection.execute(text(statement))
    except DBAPIError:
        return (
            "Searching files needs pgvector 0.7 or later in the gateway's database. Install it on the server, run "
            "`CREATE EXTENSION vector` as one who may, and try again."
        )
    return None


def drop(connection: Connection) -> None:
    """Remove it; the extension stays."""
    for table in (f"{_PREFIX}_words", f"{_PREFIX}_vectors"):
        connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
