"""Everything that is live in one model's space, in one snapshot, for whoever looks at the whole.

A connection with a snapshot comes in. It does not know what its readers count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from zccr_stream.evaluation import Uploads
from zccr_stream.events import Embeddings
from zccr_stream.ownership import reading
from zccr_stream.ownership import statements as sql

_PAGE_ROWS = 10_000  # 12 MB of 512 dimensions


class Everything:
    """Live assets in one model's space; all answers are of the same moment."""

    def __init__(self, connection: sa.Connection, model: str, dimension: int) -> None:
        self._connection = connection
        self._model = model
        self._dimension = dimension

    def sizes(self) -> dict[str, int]:
        """How many live assets each user has, of all who have any."""
        rows = self._connection.execute(sql.ALL_SIZES, {"model": self._model})
        return {user_id: int(size) for user_id, size in rows}

    def uploads(self, user_ids: Sequence[str]) -> list[Uploads]:
        """These users' assets without vectors."""
        return reading.uploads(self._connection, user_ids, self._model)

    def pages(self) -> Iterator[Embeddings]:
        """All assets with their vectors, by ascending id; one page is in memory at a time."""
        return reading.live_assets(self._connection, self._model, self._dimension, _PAGE_ROWS)
