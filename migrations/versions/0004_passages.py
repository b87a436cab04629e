"""The passages of files, and what they are searched with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.db import searching

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the tables.

    Where Postgres lacks pgvector the gateway says so when files are searched, and makes the rest itself later.
    """
    op.create_table(
        "passage_stores",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("vector_store_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("dimensions", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_passage_stores"),
        sa.UniqueConstraint("vector_store_id", name="uq_passage_stores_vector_store_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "passage_files",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("store_id", _NUMBER, nullable=False),
        sa.Column("file_id", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("attributes", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["passage_stores.id"], name="fk_passage_files_store_id"),
        sa.PrimaryKeyConstraint("id", name="pk_passage_files"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_passage_files_store_id", "passage_files", ["store_id", "file_id"])
    op.create_table(
        "passages",
        sa.Column("number", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_passages"),
    )
    searching.create(op.get_bind())


def downgrade() -> None:
    """Go back: files are not found any more until they are added again."""
    searching.drop(op.get_bind())
    for table in ("passages", "passage_files", "passage_stores"):
        op.drop_table(table)
