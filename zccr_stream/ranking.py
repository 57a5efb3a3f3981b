"""Hits per area -> rankings and one feed: drop own, no asset twice, near-duplicates once, areas in turn. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zccr_stream.events import Recommendations
from zccr_stream.interests import Area, Profile


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest others of s seeds in one modality, best first.

    `scores` (s, k) float32 and `rows` (s, k) int64; a row points into the arrays below, -1 where there is no hit
    (always at the end). `asset_ids` and `user_ids` are (m,), `vectors` is (m, d) float32: each asset found once.
    """

    scores: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    asset_ids: Sequence[str]
    user_ids: Sequence[str]
    vectors: npt.NDArray[np.float32]

    def lines(self, lines: slice) -> Hits:
        """The hits of some of the seeds."""
        return replace(self, scores=self.scores[lines], rows=self.rows[lines])


@dataclass(frozen=True, slots=True)
class RankingRule:
    """`k` per area and modality, at most `feed_size` in the feed, cosine from which two assets are near-duplicates."""

    k: int
    feed_size: int
    near_duplicate: float


def rank(
    profile: Profile,
    areas: Sequence[Area],
    hits: Mapping[str, Hits],
    rule: RankingRule,
    model: str,
    generated_at_ns: int,
) -> Recommendations:
    """Rank what was found; `hits[modality]` holds one line per area, in the order of `areas`."""
    raise ValueError
