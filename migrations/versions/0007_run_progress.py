"""What a background run has finished."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("runs", sa.Column("progress", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Runs whose owner dies begin again."""
    op.drop_column("runs", "progress")
