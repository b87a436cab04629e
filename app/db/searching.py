"""The search tables of each engine. SQLAlchemy cannot express them, so they are SQL here, and Alembic does not compare
them.

SQLite: an FTS5 index of the words only, and the vectors (float16) of up to 128 passages per row. Postgres: text search
vectors, and pgvector's half-precision vectors of any length.
"""

from __future__ import annotations

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

POSITION_BITS = 24
"""Bits of a passage's number for its position; the rest is its file's number."""

SEGMENT = 128
"""Vectors per row on SQLite; the row's number is that of the first."""

_PREFIX = "passage_index"

# `ascii` treats every other character as a letter, and so leaves the words as `app/knowledge/words.py` produces them.
_SQLITE = (
    f"CREATE VIRTUAL TABLE {_PREFIX}_words USING fts5(words, content='', detail=none, columnsize=0, tokenize='ascii')",
    f"CREATE TABLE {_PREFIX}_vectors (number INTEGER PRIMARY KEY, data BLOB NOT NULL)",
)

# Vectors are stored inline in their rows for sequential scans; there is no index on them: see
# `app/knowledge/index_postgres.py`.
_POSTGRES = (
    f"CREATE TABLE {_PREFIX}_words (number bigint PRIMARY KEY, file bigint NOT NULL, words tsvector NOT NULL)",
    f"CREATE INDEX {_PREFIX}_words_file ON {_PREFIX}_words (file)",
    f"CREATE INDEX {_PREFIX}_words_words ON {_PREFIX}_words USING gin (words)",
    f"CREATE TABLE {_PREFIX}_vectors (number bigint PRIMARY KEY, file bigint NOT NULL, embedding halfvec NOT NULL)",
    f"ALTER TABLE {_PREFIX}_vectors ALTER embedding SET STORAGE main",
    f"CREATE INDEX {_PREFIX}_vectors_file ON {_PREFIX}_vectors (file)",
)

# An arbitrary number that nothing else uses: of replicas that start together, one creates the tables.
_LOCK = 7_305_112_905


def is_own(table: str) -> bool:
    """Whether a table is one of these, or one of FTS5's shadow tables."""
    return table.startswith(_PREFIX)


def create(connection: Connection) -> str | None:
    """Create the tables if they are missing, in the connection's transaction.

    If that is impossible, returns a sentence that says why.
    """
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
            "`CREATE EXTENSION vector` as a user with the privilege, and try again."
        )
    return None


def drop(connection: Connection) -> None:
    """Drop the tables; the extension stays."""
    for table in (f"{_PREFIX}_words", f"{_PREFIX}_vectors"):
        connection.execute(text(f"DROP TABLE IF EXISTS {table}"))
