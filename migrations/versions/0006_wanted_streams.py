"""Live streams that readers of other processes wait for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "wanted_streams",
        sa.Column("response_id", sa.String(36), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("wanted_until", sa.BigInteger(), nullable=False),
        sa.Column("confirmed_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("response_id", "project_id", name="pk_wanted_streams"),
    )


def downgrade() -> None:
    """Readers that wait find nothing."""
    op.drop_table("wanted_streams")
