"""Find the oldest marks without sorting all: a sweep takes some hundred of them at a time, however many there are.

Revision 0004, after 0003.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("unannounced_assets_noted_at", "unannounced_assets", ["noted_at", "asset_id"])
    op.create_index("unannounced_profiles_noted_at", "unannounced_profiles", ["noted_at", "user_id"])


def downgrade() -> None:
    op.drop_index("unannounced_profiles_noted_at")
    op.drop_index("unannounced_assets_noted_at")
