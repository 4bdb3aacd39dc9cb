"""Records of topics, and up to where they were stored.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "record",
        sa.Column("topic", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("first_offset", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("last_offset", sa.Integer(), nullable=False),
        sa.Column("crc", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "record_progress",
        sa.Column("id", sa.Integer(), sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
        sa.Column("applied_index", sa.Integer(), nullable=False),
        sa.Column("crc", sa.Integer(), nullable=False),
    )


def downgrade() -> None:
    raise RuntimeError("A node's data does not go back to an older schema: start the newer release.")
