"""Jobs of files are due by the database's clock, in milliseconds."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Seconds become milliseconds."""
    op.execute("UPDATE vector_store_files SET due_at = due_at * 1000 WHERE due_at IS NOT NULL")


def downgrade() -> None:
    """Milliseconds become seconds."""
    op.execute("UPDATE vector_store_files SET due_at = due_at / 1000 WHERE due_at IS NOT NULL")
