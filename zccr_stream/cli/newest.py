"""The newest recommendations of every user, as every subscriber should keep them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from zccr_stream.events import BadEventError, CorruptRecordError, Record, parse_recommendations, recommendations_id

logger = logging.getLogger(__name__)


class Newest:
    """Of each user the greatest version; of equal ones the last published, as compaction keeps it.

    `by_user` has None where a user has no assets left, `arrived_s` the monotonic time of each newest, and `changed`
    the users whose newest has changed since somebody cleared it.
    """

    def __init__(self) -> None:
        self.by_user: dict[str, dict[str, Any] | None] = {}
        self.versions: dict[str, int] = {}
        self.arrived_s: dict[str, float] = {}
        self.changed: set[str] = set()

    def take(self, records: Sequence[Record]) -> None:
        """Keep what is not older than what was seen."""
        for record in records:
            try:
                user_id, version = recommendations_id(record)
                recommendations = None if record.value is None else parse_recommendations(record.value)
            except (CorruptRecordError, BadEventError) as error:
                logger.warning("passed over: %s", error)
                continue
            if version < self.versions.get(user_id, 0):
                continue
            self.versions[user_id] = version
            self.by_user[user_id] = recommendations
            self.arrived_s[user_id] = time.monotonic()
            self.changed.add(user_id)
