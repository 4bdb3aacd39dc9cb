"""The first tables: who the node is, its founding, Raft's hard state, the log.

Revision: 0001, the first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "meta",
        sa.Column("id", sa.Integer(), sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
        sa.Column("format", sa.Integer(), nullable=False),
        sa.Column("cluster_id", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False),
        sa.Column("commit_seq", sa.Integer(), nullable=False),
        sa.Column("last_index", sa.Integer(), nullable=False),
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        sa.Column("hard_state_crc", sa.Integer(), nullable=False),
        sa.Column("crc", sa.Integer(), nullable=False),
    )
    op.create_table(
        "founding",
        sa.Column("id", sa.Integer(), sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("crc", sa.Integer(), nullable=False),
    )
    op.create_table(
        "hard_state",
        sa.Column("id", sa.Integer(), sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("voted_for", sa.Integer(), nullable=False),
        sa.Column("commit_index", sa.Integer(), nullable=False),
        sa.Column("crc", sa.Integer(), nullable=False),
    )
    op.create_table(
        "log",
        sa.Column("first_index", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("last_index", sa.Integer(), nullable=False),
        sa.Column("crc", sa.Integer(), nullable=False),
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )


def downgrade() -> None:
    raise RuntimeError("A node's data does not go back to an older schema: start the newer release.")
