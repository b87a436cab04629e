"""What the model read of its tools is kept beside the response."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; earlier responses called no tools."""
    op.add_column("responses", sa.Column("exchanges", sa.LargeBinary))


def downgrade() -> None:
    """What models read is lost; the responses stay."""
    with op.batch_alter_table("responses") as table:
        table.drop_column("exchanges")
