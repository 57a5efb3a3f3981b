"""The SQL of `postgres`, in the order of its use: one statement serves a whole batch, whose columns come as arrays.

Reasons stand here where a statement's form has one. It does not know when a statement runs.
"""

import sqlalchemy as sa

# Besides the users of the batch, those who own its assets now: they lose them if the writes are greater.
LOCK_USERS = sa.text("""
    SELECT user_id, deleted_at_ns
    FROM users
    WHERE user_id = ANY(ARRAY(
        SELECT unnest(CAST(:user_ids AS text[]))
        UNION
        SELECT user_id FROM assets WHERE asset_id = ANY(CAST(:asset_ids AS text[]))
    ))
    ORDER BY user_id
    FOR UPDATE
""")

# For users that were not there to be locked, and for deletions, which thus stand before an asset is looked at.
PUT_USERS = sa.text("""
    INSERT INTO users (user_id, deleted_at_ns)
    SELECT * FROM unnest(CAST(:user_ids AS text[]), CAST(:deleted AS bigint[])) AS wanted (user_id, deleted_at_ns)
    ORDER BY user_id COLLATE "C"
    ON CONFLICT (user_id) DO UPDATE SET deleted_at_ns = greatest(users.deleted_at_ns, excluded.deleted_at_ns)
    RETURNING user_id, deleted_at_ns
""")

LOCK_ASSETS = sa.text("""
    SELECT asset_id, user_id, revision, occurred_at_ns, deleted, event_id, tie_break
    FROM assets
    WHERE asset_id = ANY(ARRAY(
        SELECT unnest(CAST(:asset_ids AS text[]))
        UNION
        SELECT asset_id FROM assets WHERE user_id = ANY(CAST(:deleted_users AS text[]))
    ))
    ORDER BY asset_id
    FOR UPDATE
""")

DELETE_ASSETS = sa.text("DELETE FROM assets WHERE asset_id = ANY(CAST(:asset_ids AS text[]))")

COPY_ASSETS = """
    COPY assets (asset_id, user_id, modality, model, occurred_at_ns, deleted, event_id, tie_break, revision, embedding)
    FROM STDIN (FORMAT binary)
"""

# A mark that is being announced is waited for (DO NOTHING would not): its announcer is about to delete it, and the news
# of this change with it.
MARK_ASSETS = sa.text("""
    INSERT INTO unannounced_assets (asset_id)
    SELECT asset_id FROM unnest(CAST(:asset_ids AS text[])) AS changed (asset_id)
    ORDER BY asset_id COLLATE "C"
    ON CONFLICT (asset_id) DO UPDATE SET noted_at = unannounced_assets.noted_at
""")

MARK_USERS = sa.text("""
    WITH changed AS (
        UPDATE users SET profile_version = profile_version + 1
        FROM unnest(CAST(:user_ids AS text[]), CAST(:received AS bigint[])) AS wanted (user_id, received_at_ms)
        WHERE users.user_id = wanted.user_id
        RETURNING users.user_id, received_at_ms
    )
    INSERT INTO unannounced_profiles (user_id, received_at_ms)
    SELECT user_id, received_at_ms FROM changed ORDER BY user_id
    ON CONFLICT (user_id) DO UPDATE
    SET received_at_ms = least(unannounced_profiles.received_at_ms, excluded.received_at_ms)
""")

LOCK_MARKED_ASSETS = sa.text("""
    SELECT asset_id FROM unannounced_assets WHERE asset_id = ANY(CAST(:asset_ids AS text[]))
    ORDER BY asset_id FOR UPDATE
""")

LOCK_MARKED_USERS = sa.text("""
    SELECT user_id, received_at_ms FROM unannounced_profiles WHERE user_id = ANY(CAST(:user_ids AS text[]))
    ORDER BY user_id FOR UPDATE
""")

# Marks of assets in another model's space are left out: they would fill the limit and never go. A scalar subquery is
# asked mark by mark, along the index until the limit; NOT EXISTS becomes a join, which may read all assets.
LOCK_LEFT_ASSETS = sa.text("""
    SELECT asset_id
    FROM unannounced_assets AS mark
    WHERE noted_at < now() - make_interval(secs => :older_than_s)
        AND coalesce((SELECT model FROM assets WHERE assets.asset_id = mark.asset_id), :model) = :model
    ORDER BY noted_at, asset_id
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
""")

LOCK_LEFT_USERS = sa.text("""
    SELECT user_id, received_at_ms
    FROM unannounced_profiles
    WHERE noted_at < now() - make_interval(secs => :older_than_s)
    ORDER BY noted_at, user_id
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
""")

COPY_STATES = """
    COPY (
        SELECT asset_id, user_id, modality, revision, occurred_at_ns, embedding
        FROM assets
        WHERE asset_id = ANY(CAST(%(asset_ids)s AS text[])) AND (model IS NULL OR model = %(model)s)
        ORDER BY asset_id
    ) TO STDOUT (FORMAT binary)
"""

COPY_LIVE_ASSETS = """
    COPY (
        SELECT asset_id, user_id, modality, revision, occurred_at_ns, embedding
        FROM assets
        WHERE model = %(model)s AND asset_id > %(after)s
        ORDER BY asset_id
        LIMIT %(rows)s
    ) TO STDOUT (FORMAT binary)
"""

VERSIONS = sa.text("""
    SELECT user_id, profile_version FROM users WHERE user_id = ANY(CAST(:user_ids AS text[])) ORDER BY user_id
""")

CLEAR_MARKS = sa.text("""
    WITH announced AS (DELETE FROM unannounced_assets WHERE asset_id = ANY(CAST(:asset_ids AS text[])))
    DELETE FROM unannounced_profiles WHERE user_id = ANY(CAST(:user_ids AS text[]))
""")

STANDING = sa.text("""
    SELECT n
    FROM unnest(
        CAST(:writes AS int[]), CAST(:asset_ids AS text[]), CAST(:occurred AS bigint[]), CAST(:deleted AS boolean[]),
        CAST(:event_ids AS text[]), CAST(:tie_breaks AS bytea[])
    ) AS write (n, asset_id, occurred_at_ns, deleted, event_id, tie_break)
    JOIN assets ON assets.asset_id = write.asset_id
    WHERE (assets.occurred_at_ns, assets.deleted, assets.event_id, assets.tie_break)
        >= (write.occurred_at_ns, write.deleted, write.event_id, write.tie_break)
    UNION ALL
    SELECT n
    FROM unnest(CAST(:deletions AS int[]), CAST(:user_ids AS text[]), CAST(:user_deleted AS bigint[]))
        AS deletion (n, user_id, occurred_at_ns)
    JOIN users ON users.user_id = deletion.user_id
    WHERE users.deleted_at_ns >= deletion.occurred_at_ns
""")

# Identifiers hold no control characters, so one can separate them.
SEPARATOR = "\x01"

# One line per user, its columns packed: a third of the time of one line per asset.
COPY_PROFILES = """
    COPY (
        SELECT coalesce(users.profile_version, 0), owned.*
        FROM unnest(CAST(%(user_ids)s AS text[])) WITH ORDINALITY AS wanted (user_id, n)
        LEFT JOIN users ON users.user_id = wanted.user_id
        CROSS JOIN LATERAL (
            SELECT
                string_agg(asset_id, %(separator)s),
                string_agg(modality, %(separator)s),
                string_agg(int8send(revision), ''),
                string_agg(int8send(occurred_at_ns), '')
            FROM (
                SELECT asset_id, modality, revision, occurred_at_ns
                FROM assets WHERE user_id = wanted.user_id AND model = %(model)s
                ORDER BY asset_id
            ) AS asset
        ) AS owned
        ORDER BY n
    ) TO STDOUT (FORMAT binary)
"""

COPY_VECTORS = """
    COPY (
        SELECT embedding FROM assets WHERE asset_id = ANY(CAST(%(asset_ids)s AS text[])) ORDER BY asset_id
    ) TO STDOUT (FORMAT binary)
"""

SIZES = sa.text("""
    SELECT (SELECT count(*) FROM assets WHERE user_id = wanted.user_id AND model = :model)
    FROM unnest(CAST(:user_ids AS text[])) WITH ORDINALITY AS wanted (user_id, n)
    ORDER BY n
""")

ALL_SIZES = sa.text("SELECT user_id, count(*) FROM assets WHERE model = :model GROUP BY user_id")

BACKLOG = sa.text("""
    SELECT
        (SELECT count(*) FROM unannounced_assets),
        (SELECT count(*) FROM unannounced_profiles),
        CAST(extract(epoch FROM least(
            (SELECT min(noted_at) FROM unannounced_assets), (SELECT min(noted_at) FROM unannounced_profiles)
        )) AS double precision)
""")

COUNT_ASSETS = sa.text("SELECT modality, count(*) FROM assets GROUP BY modality ORDER BY modality")

COUNT_USERS = sa.text("SELECT count(*) FROM users")

# The digest is that of `audit.digest`.
AUDIT_ASSETS = sa.text("""
    SELECT
        asset_id,
        revision,
        decode(md5(convert_to(user_id || chr(1) || modality || chr(1), 'UTF8') || embedding), 'hex'),
        user_id
    FROM assets WHERE model = :model
""")

AUDIT_USERS = sa.text("""
    SELECT user_id, profile_version, EXISTS (SELECT FROM assets WHERE user_id = users.user_id AND model = :model)
    FROM users WHERE profile_version > 0
""")

OTHER_MODEL = sa.text("SELECT model FROM assets WHERE model <> :model LIMIT 1")

UNANNOUNCED_ASSETS = sa.text("SELECT asset_id FROM unannounced_assets")

UNANNOUNCED_USERS = sa.text("SELECT user_id FROM unannounced_profiles")

# Recommenders and subscribers keep the greatest, so a state that is announced again must be greater than all they saw.
RAISE_VERSIONS = sa.text("""
    INSERT INTO users (user_id, profile_version)
    SELECT * FROM unnest(CAST(:user_ids AS text[]), CAST(:versions AS bigint[])) AS published (user_id, version)
    ORDER BY user_id COLLATE "C"
    ON CONFLICT (user_id) DO UPDATE SET profile_version = greatest(users.profile_version, excluded.profile_version)
""")

# An asset without a row gets one that any write overtakes.
RAISE_REVISIONS = sa.text("""
    INSERT INTO assets (asset_id, occurred_at_ns, deleted, event_id, revision)
    SELECT asset_id, :never, false, '', revision + 1
    FROM unnest(CAST(:asset_ids AS text[]), CAST(:revisions AS bigint[])) AS published (asset_id, revision)
    ORDER BY asset_id COLLATE "C"
    ON CONFLICT (asset_id) DO UPDATE SET revision = greatest(assets.revision + 1, excluded.revision)
""")

DEAD_LETTERS_DONE = sa.text("SELECT partition, position FROM dead_letters_done WHERE topic = :topic")

# Two people at work, or one who looks at all again, take nothing back.
NOTE_DEAD_LETTERS = sa.text("""
    INSERT INTO dead_letters_done AS done (topic, partition, position)
    SELECT :topic, noted.*
    FROM unnest(CAST(:partitions AS int[]), CAST(:positions AS bigint[])) AS noted (partition, position)
    ORDER BY partition
    ON CONFLICT (topic, partition) DO UPDATE SET position = greatest(done.position, excluded.position)
""")
