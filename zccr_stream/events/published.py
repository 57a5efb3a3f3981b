"""`recommendations`: a user's refreshed areas and feed -> the contract's JSON, and its values back for a reader.

Knows the published form; does not know how anything was found or ranked.
"""

from __future__ import annotations

import math
from typing import Any

from pydantic_core import to_json

from zccr_stream.events.envelope import read_object, shown, write_headers
from zccr_stream.events.identifiers import read_count, read_identifier
from zccr_stream.events.times import format_time
from zccr_stream.events.vocabulary import (
    RECOMMENDATIONS,
    RECOMMENDATIONS_TYPE,
    BadEventError,
    CorruptRecordError,
    Message,
    Recommendations,
    RecommendedArea,
    Record,
)

SOURCE = "zccr-stream"
# A float32 cosine has about seven digits; the sixth decimal is the last that means something.
_DIGITS = 6


def dump_recommendations(recommendations: Recommendations) -> Message:
    """`recommendations`: the contract's JSON, or a tombstone where the user has no assets left.

    Raises:
        ValueError: a score or a weight that is not finite.
    """
    user_id, version = recommendations.user_id, recommendations.profile_version
    generated_at = format_time(recommendations.generated_at_ns, digits=3)
    value = _value(recommendations, generated_at) if recommendations.areas else None
    headers = write_headers(
        f"{user_id}/{version}", RECOMMENDATIONS_TYPE, SOURCE, generated_at, has_data=value is not None
    )
    return Message(RECOMMENDATIONS, user_id.encode(), value, headers)


def _value(recommendations: Recommendations, generated_at: str) -> bytes:
    data = {
        "user_id": recommendations.user_id,
        "profile_version": recommendations.profile_version,
        "generated_at": generated_at,
        "model": recommendations.model,
        "areas": [_area(area) for area in recommendations.areas],
        "feed": [
            {
                "asset_id": item.asset_id,
                "user_id": item.user_id,
                "modality": item.modality,
                "area_id": item.area_id,
                "score": _rounded(item.score),
            }
            for item in recommendations.feed
        ],
    }
    return to_json(data)


def _area(area: RecommendedArea) -> dict[str, Any]:
    return {
        "area_id": area.area_id,
        "modality": area.modality,
        "size": area.size,
        "weight": _rounded(area.weight),
        "representative": area.representative,
        "recommended": {
            modality: [
                {"asset_id": item.asset_id, "user_id": item.user_id, "score": _rounded(item.score)} for item in found
            ]
            for modality, found in area.recommended.items()
        },
    }


def _rounded(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"a score or weight is {value}, and JSON has no such number")
    return round(float(value), _DIGITS)


def parse_recommendations(value: bytes) -> dict[str, Any]:
    """Read one value of `recommendations`, as a subscriber does.

    Raises:
        BadEventError: not an object with a user and a version.
    """
    data = read_object("value", value)
    for field, kind, expected in (("user_id", str, "a string"), ("profile_version", int, "an integer")):
        if not isinstance(data.get(field), kind):
            raise BadEventError(f"{field}: got {shown(data.get(field))}, expected {expected}")
    return data


def recommendations_id(record: Record) -> tuple[str, int]:
    """The user and the version that a record of `recommendations` is about; a tombstone says it in its id alone.

    Raises:
        CorruptRecordError: a record that this program did not write.
    """
    try:
        user_id, _, version = (dict(record.headers)["ce_id"] or b"").decode().rpartition("/")
        return read_identifier(user_id), read_count(version)
    except (KeyError, ValueError) as error:
        raise CorruptRecordError(record, f"header ce_id: {error}; expected <user_id>/<profile_version>") from error
