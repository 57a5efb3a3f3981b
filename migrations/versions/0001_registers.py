"""Registers, users and the marks of what is still to be announced.

Revision 0001, the first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_CODE_POINTS = sa.Text(collation="C")
_CHURN = {"autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 5000}


def upgrade() -> None:
    encoding = op.get_bind().exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise ValueError(f"the database's encoding is {encoding}; identifiers are any Unicode: create it with UTF8")
    op.create_table(
        "assets",
        sa.Column("asset_id", _CODE_POINTS, primary_key=True),
        sa.Column("user_id", _CODE_POINTS),
        sa.Column("modality", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("occurred_at_ns", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.Column("event_id", _CODE_POINTS, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("embedding", sa.LargeBinary),
        sa.CheckConstraint("num_nulls(user_id, modality, model, embedding) IN (0, 4)", name=op.f("assets_live_or_not")),
        sa.CheckConstraint("NOT deleted OR user_id IS NULL", name=op.f("assets_deleted_is_not_live")),
    )
    op.create_index("assets_user_id", "assets", ["user_id"], postgresql_where=sa.text("user_id IS NOT NULL"))
    op.execute("ALTER TABLE assets ALTER COLUMN embedding SET STORAGE EXTERNAL")
    op.create_table(
        "users",
        sa.Column("user_id", _CODE_POINTS, primary_key=True),
        sa.Column("profile_version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("deleted_at_ns", sa.BigInteger),
        postgresql_with={"fillfactor": 70},
    )
    op.create_table(
        "unannounced_assets",
        sa.Column("asset_id", _CODE_POINTS, primary_key=True),
        sa.Column("noted_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
        postgresql_with=_CHURN,
    )
    op.create_table(
        "unannounced_profiles",
        sa.Column("user_id", _CODE_POINTS, primary_key=True),
        sa.Column("received_at_ms", sa.BigInteger, nullable=False),
        sa.Column("noted_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
        postgresql_with=_CHURN,
    )


def downgrade() -> None:
    for table in ("unannounced_profiles", "unannounced_assets", "users", "assets"):
        op.drop_table(table)
