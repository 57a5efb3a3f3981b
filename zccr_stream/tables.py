"""The tables of the truth: assets as last-writer-wins registers, users, what is still to be announced.

Beside it: which dead letters were dealt with. Goes out: SQLAlchemy metadata, which `migrations/` is held against. It
does not know what the rows mean together; that is `ownership`. Text that is ordered or compared has the collation "C":
by code point, as Python compares.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.schema import conv

metadata = sa.MetaData()

_CODE_POINTS = sa.Text(collation="C")

_GREATEST = rf"'\x{'ff' * 32}'::bytea"

# A live asset has an owner, a modality, a model and a vector. Any other row is a tombstone and has none of them: ids,
# times and a hash of the owner, so that an erasure leaves nothing of what was uploaded, and a row is a function of the
# set of writes whatever their order. What was written before there was a `tie_break` has the greatest: no write that is
# equal in all else replaces it.
assets = sa.Table(
    "assets",
    metadata,
    sa.Column("asset_id", _CODE_POINTS, primary_key=True),
    sa.Column("user_id", _CODE_POINTS),
    sa.Column("modality", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("occurred_at_ns", sa.BigInteger, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Column("event_id", _CODE_POINTS, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("embedding", sa.LargeBinary),
    sa.Column("tie_break", sa.LargeBinary, nullable=False, server_default=sa.text(_GREATEST)),
    sa.CheckConstraint("num_nulls(user_id, modality, model, embedding) IN (0, 4)", name=conv("assets_live_or_not")),
    sa.CheckConstraint("NOT deleted OR user_id IS NULL", name=conv("assets_deleted_is_not_live")),
    sa.Index("assets_user_id", "user_id", postgresql_where=sa.text("user_id IS NOT NULL")),
)

# Vectors are random bytes: trying to compress them is wasted. Up to about 900 dimensions a row stays in one piece.
_uncompressed = sa.DDL("ALTER TABLE assets ALTER COLUMN embedding SET STORAGE EXTERNAL")  # type: ignore[no-untyped-call]
sa.event.listen(assets, "after_create", _uncompressed)

# Every batch updates its users' rows in place: room in the page keeps that off the index (HOT).
users = sa.Table(
    "users",
    metadata,
    sa.Column("user_id", _CODE_POINTS, primary_key=True),
    sa.Column("profile_version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("deleted_at_ns", sa.BigInteger),
    postgresql_with={"fillfactor": 70},
)

# The marks come and go with every batch. A sweep takes the oldest few hundred of what may be millions, after everything
# was announced again for instance: along an index, which costs a batch of 64 a tenth of its write.
_CHURN = {"autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 5000}

unannounced_assets = sa.Table(
    "unannounced_assets",
    metadata,
    sa.Column("asset_id", _CODE_POINTS, primary_key=True),
    sa.Column("noted_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Index("unannounced_assets_noted_at", "noted_at", "asset_id"),
    postgresql_with=_CHURN,
)

unannounced_profiles = sa.Table(
    "unannounced_profiles",
    metadata,
    sa.Column("user_id", _CODE_POINTS, primary_key=True),
    sa.Column("received_at_ms", sa.BigInteger, nullable=False),
    sa.Column("noted_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Index("unannounced_profiles_noted_at", "noted_at", "user_id"),
    postgresql_with=_CHURN,
)

# A topic's own id is part of its name here, since one that is made again counts its offsets anew. Kafka would forget
# the offsets of a group without members after a week, and dead letters are kept until somebody deals with them.
dead_letters_done = sa.Table(
    "dead_letters_done",
    metadata,
    sa.Column("topic", _CODE_POINTS, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
)
