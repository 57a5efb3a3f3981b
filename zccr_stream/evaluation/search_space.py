"""Everybody's assets in an index of the evaluation's own.

What was held out belongs to nobody there, so that it is found as if others had uploaded it; what remains is the user's
own and is never found. One index serves all sampled users: to each of them what others lost is still somebody's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from zccr_stream.evaluation.counting import LENGTHS, Feed
from zccr_stream.evaluation.sampling import Split, Uploads, draw
from zccr_stream.events import Embeddings
from zccr_stream.interests import Profile
from zccr_stream.parts import Index

NOBODY = "held out\n"  # no identifier has a line feed

_REVISION = 1  # every asset is applied once


class SearchSpace:
    """Live assets, and the index that is searched.

    Args:
        index: an empty one.
        splits: of all sampled users.
    """

    def __init__(self, index: Index, splits: Iterable[Split]) -> None:
        self.index = index
        self._held_out = frozenset(asset_id for split in splits for asset_id in split.wanted)
        self._asset_ids: list[str] = []
        self._modalities: list[str] = []

    def add(self, page: Embeddings) -> None:
        """Take live assets, each for the first time."""
        owners = [
            NOBODY if asset_id in self._held_out else user_id
            for asset_id, user_id in zip(page.asset_ids, page.user_ids, strict=True)
        ]
        self.index.apply(replace(page, user_ids=owners, revisions=np.full(len(page), _REVISION)))
        self._asset_ids.extend(page.asset_ids)
        self._modalities.extend(page.modalities)

    def sizes(self) -> Mapping[str, int]:
        """Assets by modality."""
        return dict(Counter(self._modalities))

    def vectors(self, asset_ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """(n, d) vectors as the truth keeps them."""
        held, vectors = self.index.vectors(asset_ids, np.full(len(asset_ids), _REVISION))
        assert held.all(), f"{asset_ids[int(np.argmin(held))]!r} is not in the search space"
        return vectors.astype(np.float32)

    def profile(self, uploads: Uploads) -> Profile:
        """A user's whole profile."""
        columns = uploads.asset_ids, uploads.modalities, uploads.occurred_at_ns
        return Profile(uploads.user_id, 0, *columns, self.vectors(uploads.asset_ids))

    def draw(self, split: Split, seed: int) -> Feed:
        """A feed of different assets, each equally likely but those that remain the user's own."""
        own = set(split.uploads.asset_ids).difference(split.wanted)
        total, longest = len(self._asset_ids), max(LENGTHS)
        random = np.random.default_rng(draw(split.uploads.user_id, seed))
        rows = random.choice(total, min(longest + len(own), total), replace=False).tolist()
        rows = [row for row in rows if self._asset_ids[row] not in own][:longest]
        return Feed(
            [self._asset_ids[row] for row in rows],
            np.array([self._modalities[row] for row in rows], np.str_),
            np.full(len(rows), np.nan),
        )
