"""Hits per area -> rankings and one feed. Pure.

Comes in: a profile, its areas, and per modality the nearest others of every area's seed. Goes out: per area
the top k of each modality, and one feed of all areas in turn, near-duplicates once.
Knows nothing of indexes, databases or the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zccr_stream.events import MODALITIES, FeedItem, Recommendations, Recommended, RecommendedArea
from zccr_stream.interests import Area, Profile

_DECIMALS = 6  # float32 does not carry more; scores that agree in these are ties, whichever replica searched


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest others of s seeds in one modality, best first.

    `scores` (s, k) float32 and `rows` (s, k) int64; a row points into the arrays below, -1 where there is
    no hit (always at the end). `asset_ids` and `user_ids` are (m,), `vectors` is (m, d) float32: each asset
    found once.
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
    """`k` per area and modality, `feed_size` in the feed, cosine from which two assets are near-duplicates."""

    k: int
    feed_size: int
    near_duplicate: float

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}; expected at least 1")
        if self.feed_size < 0:
            raise ValueError(f"feed_size is {self.feed_size}; expected 0 or more")
        if not self.near_duplicate > 0:
            raise ValueError(f"near_duplicate is {self.near_duplicate}; expected a cosine above 0 (above 1: never)")


@dataclass(frozen=True, slots=True)
class _Ranked:
    """One modality's lists: per area what is recommended, best first, by its number among the c candidates.

    `near` (c, c) says which candidates show the same.
    """

    lists: list[dict[int, Recommended]]
    near: npt.NDArray[np.bool_]


def rank(
    profile: Profile,
    areas: Sequence[Area],
    hits: Mapping[str, Hits],
    rule: RankingRule,
    model: str,
    generated_at_ns: int,
) -> Recommendations:
    """Rank what was found; `hits[modality]` holds one line per area, in the order of `areas`, heaviest first.

    Nothing of the user's own is in any list and no asset twice. The feed takes the areas in turn, and in an
    area's turn the next of each modality, the crossmodal ones first. It passes over what it already shows:
    the asset itself, or one of its modality at a cosine of `near_duplicate` or more.

    Raises:
        ValueError: hits of a modality do not hold one line per area.
    """
    ranked = {modality: _rank_modality(found, profile, len(areas), rule) for modality, found in hits.items() if areas}
    return Recommendations(
        user_id=profile.user_id,
        profile_version=profile.profile_version,
        generated_at_ns=generated_at_ns,
        model=model,
        areas=[
            RecommendedArea(
                area_id=area.area_id,
                modality=area.modality,
                size=len(area.members),
                weight=area.weight,
                representative=profile.asset_ids[area.medoid],
                recommended={
                    modality: list(ranked[modality].lists[line].values()) if modality in ranked else []
                    for modality in MODALITIES
                },
            )
            for line, area in enumerate(areas)
        ],
        feed=_feed(areas, ranked, rule.feed_size),
    )


def _rank_modality(hits: Hits, profile: Profile, lines: int, rule: RankingRule) -> _Ranked:
    """The best k of every line that are not the user's own; ties by asset id."""
    if len(hits.rows) != lines or hits.scores.shape != hits.rows.shape:
        raise ValueError(
            f"hits have rows {hits.rows.shape} and scores {hits.scores.shape}; expected one line per area, {lines}"
        )
    if not len(hits.asset_ids):
        return _Ranked([{} for _ in range(lines)], np.zeros((0, 0), dtype=np.bool_))
    rows, candidates = np.unique(hits.rows, return_inverse=True)  # (c,) and (s, k), which points into it
    asset_ids = [hits.asset_ids[row] for row in rows.tolist()]
    user_ids = [hits.user_ids[row] for row in rows.tolist()]
    barred = (rows < 0) | _own(asset_ids, user_ids, profile)
    scores = np.round(hits.scores.astype(np.float64), _DECIMALS) + 0.0  # + 0.0: no negative zero
    order = np.lexsort((_places(asset_ids)[candidates], -scores, barred[candidates]))
    candidates, scores = np.take_along_axis(candidates, order, 1), np.take_along_axis(scores, order, 1)
    counts = np.minimum(np.count_nonzero(~barred[candidates], axis=1), rule.k)
    lists = [
        {
            candidate: Recommended(asset_ids[candidate], user_ids[candidate], score)
            for candidate, score in zip(line[:count].tolist(), line_scores[:count].tolist(), strict=True)
        }
        for line, line_scores, count in zip(candidates, scores, counts.tolist(), strict=True)
    ]
    return _Ranked(lists, _near_duplicates(hits.vectors[rows], rule.near_duplicate))


def _own(asset_ids: Sequence[str], user_ids: Sequence[str], profile: Profile) -> npt.NDArray[np.bool_]:
    """(c,) what is the user's own, by the profile or, where the index is behind it, by the index."""
    own = set(asset_ids).intersection(profile.asset_ids)
    return np.array(
        [user_id == profile.user_id or asset_id in own for asset_id, user_id in zip(asset_ids, user_ids, strict=True)],
        dtype=np.bool_,
    )


def _places(names: Sequence[str]) -> npt.NDArray[np.intp]:
    """(c,) each name's place in their order."""
    places = np.empty(len(names), dtype=np.intp)
    places[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return places


def _near_duplicates(vectors: npt.NDArray[np.float32], cosine: float) -> npt.NDArray[np.bool_]:
    """(c, c) which of the (c, d) candidates show the same: one matrix product for all."""
    lengths = np.sqrt(np.einsum("cd,cd->c", vectors, vectors))
    units = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
    near: npt.NDArray[np.bool_] = units @ units.T >= cosine
    return near


def _feed(areas: Sequence[Area], ranked: Mapping[str, _Ranked], size: int) -> list[FeedItem]:
    """The round-robin merge of the lists (see `rank`): whose turn it was comes again behind all others."""
    queues = deque(
        (area, modality, iter(ranked[modality].lists[line].items()))
        for line, area in enumerate(areas)
        for modality in sorted(ranked, key=lambda target: (target == area.modality, target))
    )
    shown = {modality: np.zeros(len(found.near), dtype=np.bool_) for modality, found in ranked.items()}
    taken: set[str] = set()
    feed: list[FeedItem] = []
    while queues and len(feed) < size:
        area, modality, queue = queues.popleft()
        for candidate, item in queue:
            if not shown[modality][candidate] and item.asset_id not in taken:
                shown[modality] |= ranked[modality].near[candidate]
                taken.add(item.asset_id)
                feed.append(FeedItem(item.asset_id, item.user_id, modality, area.area_id, item.score))
                queues.append((area, modality, queue))
                break
    return feed
