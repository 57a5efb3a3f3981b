"""The last part of the order of writes: what decides between uploads that are equal in time and id.

Revision 0002, after 0001. Rows that stand get the greatest, as those of a process that does not know the column do.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    greatest = sa.text(rf"'\x{'ff' * 32}'::bytea")
    op.add_column("assets", sa.Column("tie_break", sa.LargeBinary, nullable=False, server_default=greatest))


def downgrade() -> None:
    op.drop_column("assets", "tie_break")
