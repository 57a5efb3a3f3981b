"""Events in and out: what the stream's records and messages say.

vocabulary     frozen types: topics, records, messages, events, errors
times          RFC 3339 <-> nanoseconds
identifiers    which ids and counts there may be
envelope       the CloudEvents envelope over Kafka
inputs         asset-uploaded, asset-deleted, user-deleted
announcements  asset-embedded, profile-changed
published      recommendations
dead_letters   what failed, and why

Knows CloudEvents and JSON; knows nothing of Kafka clients, databases or vectors' meaning.
"""

from zccr_stream.events.announcements import (
    dump_embeddings,
    dump_profile_changes,
    parse_embeddings,
    parse_profile_changed,
)
from zccr_stream.events.dead_letters import (
    DeadLetter,
    dump_dead_letter,
    parse_dead_letter,
    restore_dead_letter,
    shorten_dead_letter,
)
from zccr_stream.events.inputs import dump_input, parse
from zccr_stream.events.published import dump_recommendations, parse_recommendations, recommendations_id
from zccr_stream.events.times import NS_MIN, format_time, parse_time
from zccr_stream.events.vocabulary import (
    ASSET_DELETED,
    ASSET_EMBEDDED,
    ASSET_UPLOADED,
    DEAD_LETTER_SUFFIX,
    IMAGE,
    INPUT_TYPES,
    MODALITIES,
    PROFILE_CHANGED,
    RECOMMENDATIONS,
    RECOMMENDATIONS_TYPE,
    TEXT,
    USER_DELETED,
    AssetDeleted,
    AssetUploaded,
    BadEventError,
    BadInputError,
    CorruptRecordError,
    Embeddings,
    FeedItem,
    InputEvent,
    Message,
    ProfileChanged,
    Recommendations,
    Recommended,
    RecommendedArea,
    Record,
    TryLaterError,
    UserDeleted,
)

__all__ = [
    "ASSET_DELETED",
    "ASSET_EMBEDDED",
    "ASSET_UPLOADED",
    "DEAD_LETTER_SUFFIX",
    "IMAGE",
    "INPUT_TYPES",
    "MODALITIES",
    "NS_MIN",
    "PROFILE_CHANGED",
    "RECOMMENDATIONS",
    "RECOMMENDATIONS_TYPE",
    "TEXT",
    "USER_DELETED",
    "AssetDeleted",
    "AssetUploaded",
    "BadEventError",
    "BadInputError",
    "CorruptRecordError",
    "DeadLetter",
    "Embeddings",
    "FeedItem",
    "InputEvent",
    "Message",
    "ProfileChanged",
    "Recommendations",
    "Recommended",
    "RecommendedArea",
    "Record",
    "TryLaterError",
    "UserDeleted",
    "dump_dead_letter",
    "dump_embeddings",
    "dump_input",
    "dump_profile_changes",
    "dump_recommendations",
    "format_time",
    "parse",
    "parse_dead_letter",
    "parse_embeddings",
    "parse_profile_changed",
    "parse_recommendations",
    "parse_time",
    "recommendations_id",
    "restore_dead_letter",
    "shorten_dead_letter",
]
