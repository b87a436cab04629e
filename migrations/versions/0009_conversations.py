"""Conversations, their items, and the locks of the responses that add to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "conversations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("metadata", sa.LargeBinary(), nullable=False),
        sa.Column("next_position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
    )
    op.create_index("ix_conversations_expires_at", "conversations", ["expires_at"])
    op.create_table(
        "conversation_items",
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("item", sa.LargeBinary(), nullable=False),
        sa.Column("exchange", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("conversation_id", "position", name="pk_conversation_items"),
    )
    op.create_index("ix_conversation_items_conversation_id", "conversation_items", ["conversation_id", "item_id"])
    op.create_table(
        "conversation_locks",
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("response_id", sa.String(36), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", name="pk_conversation_locks"),
    )
    op.create_index("ix_conversation_locks_response_id", "conversation_locks", ["response_id"])


def downgrade() -> None:
    """Conversations are lost; responses stay."""
    for table in ("conversation_locks", "conversation_items", "conversations"):
        op.drop_table(table)
