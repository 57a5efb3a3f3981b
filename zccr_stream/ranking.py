"""Hits per area -> rankings and one feed. Pure.

Comes in: a profile, its areas, and per modality the nearest others of every area's seed. Goes out: per area
the top k of each modality, and one feed in which areas take turns, near-duplicates once.
Knows nothing of indexes, databases or the stream.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zccr_stream.events import MODALITIES, FeedItem, Recommendations, Recommended, RecommendedArea
from zccr_stream.interests import Area, Profile
from zccr_stream.vectors import at_unit_length

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
    """How many hits are shown, and which.

    `k` per area and modality, `feed_size` in the feed; `near_duplicate` is the cosine from which two assets count once
    there. `diversity`, 0 to 1, is how much being unlike what is shown counts there against the score. `calibrated`:
    scores are no cosines, but comparable across modalities where these are known. `merged`: an area's turn is then its
    best hit's, of whatever modality.
    """

    k: int
    feed_size: int
    near_duplicate: float
    diversity: float = 0.0
    calibrated: bool = False
    merged: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}; expected at least 1")
        if self.feed_size < 0:
            raise ValueError(f"feed_size is {self.feed_size}; expected 0 or more")
        if not self.near_duplicate > 0:
            raise ValueError(f"near_duplicate is {self.near_duplicate}; expected a cosine above 0 (above 1: never)")
        if not 0 <= self.diversity < 1:
            raise ValueError(f"diversity is {self.diversity}; expected a share from 0 to below 1")


@dataclass(frozen=True, slots=True)
class _Ranked:
    """One modality's lists: per area what is recommended, best first, by its number among the c candidates.

    `units` (c, d) are the candidates' directions.
    """

    lists: list[dict[int, Recommended]]
    units: npt.NDArray[np.float32]


def rank(
    profile: Profile,
    areas: Sequence[Area],
    hits: Mapping[str, Hits],
    rule: RankingRule,
    model: str,
    generated_at_ns: int,
) -> Recommendations:
    """Rank what was found; `hits[modality]` holds one line per area, in the order of `areas`, heaviest first.

    Nothing of the user's own is in any list and no asset twice. In the feed areas take turns in proportion to their
    weights, the heaviest first, each with the next of either modality, the crossmodal one first. It passes over what it
    already shows: the asset itself, or one of its modality at a cosine of `near_duplicate` or more.

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
        feed=_feed(areas, ranked, rule),
    )


def _rank_modality(hits: Hits, profile: Profile, lines: int, rule: RankingRule) -> _Ranked:
    """The best k of every line that are not the user's own; ties by asset id."""
    if len(hits.rows) != lines or hits.scores.shape != hits.rows.shape:
        raise ValueError(
            f"hits have rows {hits.rows.shape} and scores {hits.scores.shape}; expected one line per area, {lines}"
        )
    if not len(hits.asset_ids):
        return _Ranked([{} for _ in range(lines)], np.zeros((0, 0), dtype=np.float32))
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
    return _Ranked(lists, at_unit_length(hits.vectors[rows]))


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


def _feed(areas: Sequence[Area], ranked: Mapping[str, _Ranked], rule: RankingRule) -> list[FeedItem]:
    """The areas by turns in proportion to their weights (see `rank`), dealt out by Sainte-Laguë's method."""
    queues = _queues(areas, ranked, rule)
    claims = [(-area.weight, number) for number, (area, _) in enumerate(queues)]
    heapq.heapify(claims)
    turns = [0] * len(queues)
    shown = _Shown(ranked)
    feed: list[FeedItem] = []
    while claims and len(feed) < rule.feed_size:
        _, number = heapq.heappop(claims)
        area, waiting = queues[number]
        chosen = shown.choose(waiting, rule)
        if chosen is None:
            continue
        shown.add(chosen)
        item = chosen.item
        feed.append(FeedItem(item.asset_id, item.user_id, chosen.modality, area.area_id, item.score))
        turns[number] += 1
        heapq.heappush(claims, (-area.weight / (2 * turns[number] + 1), number))
    return feed


def _queues(
    areas: Sequence[Area], ranked: Mapping[str, _Ranked], rule: RankingRule
) -> list[tuple[Area, list[_Candidate]]]:
    """Who takes turns, the heaviest area first, in it the other modalities first; or all modalities together."""
    queues = []
    for line, area in enumerate(areas):
        lists = [
            [_Candidate(modality, number, item) for number, item in ranked[modality].lists[line].items()]
            for modality in sorted(ranked, key=lambda target: (target == area.modality, target))
        ]
        if rule.merged:
            lists = [sorted((waiting for of_one in lists for waiting in of_one), key=lambda one: -one.item.score)]
        queues += [(area, waiting) for waiting in lists]
    return queues


@dataclass(frozen=True, slots=True)
class _Candidate:
    """What waits for a place: an item, and its number among the candidates of its modality."""

    modality: str
    number: int
    item: Recommended


class _Shown:
    """What the feed shows, and how like it every candidate is."""

    def __init__(self, ranked: Mapping[str, _Ranked]) -> None:
        self._units = {modality: found.units for modality, found in ranked.items()}
        self._likeness = {modality: np.full(len(found.units), -1, np.float32) for modality, found in ranked.items()}
        self._asset_ids: set[str] = set()

    def choose(self, waiting: list[_Candidate], rule: RankingRule) -> _Candidate | None:
        """The candidate that gains most (maximal marginal relevance); what is shown already waits no longer."""
        waiting[:] = [
            one
            for one in waiting
            if one.item.asset_id not in self._asset_ids
            and self._likeness[one.modality][one.number] < rule.near_duplicate
        ]
        if not rule.diversity or not waiting:
            return waiting[0] if waiting else None
        return max(waiting, key=lambda one: self._gain(one, rule.diversity))

    def add(self, one: _Candidate) -> None:
        """Show it."""
        self._asset_ids.add(one.item.asset_id)
        units, likeness = self._units[one.modality], self._likeness[one.modality]
        np.maximum(likeness, units @ units[one.number], out=likeness)

    def _gain(self, one: _Candidate, diversity: float) -> float:
        likeness = max(float(self._likeness[one.modality][one.number]), 0.0)
        return (1 - diversity) * one.item.score - diversity * likeness
