"""Hits per area -> rankings and one feed. Pure.

Comes in: a profile, its areas, and per modality the nearest others of every area's seed. Goes out: per area
the top k of each modality, and one feed of what the areas claim most, near-duplicates once.
Knows nothing of indexes, databases or the stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """How many hits are shown, and which.

    `k` per area and modality, `feed_size` in the feed; `near_duplicate` is the cosine from which two assets count once
    there. `diversity`, 0 to 1, is how much being unlike an area's other hits counts there against the score.
    `calibrated`: scores are no cosines, but comparable across modalities where these are known. `merged`: an area then
    has one ranking of its hits of all modalities.
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

    Nothing of the user's own is in any list and no asset twice. The feed shows first what its areas claim most. An area
    claims of each modality the best by its weight, the next by a third of it, a fifth, …, so that areas have places in
    proportion to their weights (Sainte-Laguë's method); what several find has all of their claims, for they may be
    parts of one. Of equal claims the heaviest area's comes first, and of an area's the crossmodal one. The feed passes
    over what it already shows: the asset itself, or one of its modality at a cosine of `near_duplicate` or more.

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
    return _Ranked(lists, _units(hits.vectors[rows]))


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


def _units(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.sqrt(np.einsum("cd,cd->c", vectors, vectors))
    units: npt.NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]
    return units


def _feed(areas: Sequence[Area], ranked: Mapping[str, _Ranked], rule: RankingRule) -> list[FeedItem]:
    """What areas claim most, the claims on an asset added up (see `rank`)."""
    claims: dict[tuple[str, int], float] = {}
    largest: dict[tuple[str, int], tuple[float, FeedItem]] = {}  # claim, and what stands in the feed by it
    for area, candidates in _rankings(areas, ranked, rule):
        for place, (modality, number, item) in enumerate(candidates):
            asset, claim = (modality, number), area.weight / (2 * place + 1)
            claims[asset] = claims.get(asset, 0.0) + claim
            if asset not in largest or claim > largest[asset][0]:
                shown = FeedItem(item.asset_id, item.user_id, modality, area.area_id, item.score)
                largest[asset] = claim, shown
    units = {modality: found.units for modality, found in ranked.items()}
    likeness = {modality: np.full(len(of_one), -1, np.float32) for modality, of_one in units.items()}
    feed: dict[str, FeedItem] = {}
    for modality, number in sorted(claims, key=lambda asset: -claims[asset]):
        if len(feed) == rule.feed_size:
            break
        _, shown = largest[modality, number]
        if shown.asset_id not in feed and likeness[modality][number] < rule.near_duplicate:
            feed[shown.asset_id] = shown
            np.maximum(likeness[modality], units[modality] @ units[modality][number], out=likeness[modality])
    return list(feed.values())


_Candidate = tuple[str, int, Recommended]
"""What may be shown: its modality, its number among the candidates of that, and the item."""


def _rankings(
    areas: Sequence[Area], ranked: Mapping[str, _Ranked], rule: RankingRule
) -> Iterator[tuple[Area, list[_Candidate]]]:
    """Each area's rankings, best first, those of the other modalities before its own; or one of all modalities."""
    for line, area in enumerate(areas):
        rankings = [
            [(modality, number, item) for number, item in ranked[modality].lists[line].items()]
            for modality in sorted(ranked, key=lambda target: (target == area.modality, target))
        ]
        if rule.merged:
            rankings = [sorted((one for of_one in rankings for one in of_one), key=lambda one: -one[2].score)]
        for ranking in rankings:
            yield area, _diverse(ranking, ranked, rule.diversity)


def _diverse(ranking: list[_Candidate], ranked: Mapping[str, _Ranked], diversity: float) -> list[_Candidate]:
    """The ranking in the order of maximal marginal relevance (Carbonell, Goldstein 1998).

    The next is what gains most: its score, less how like it is to what of its modality came before.
    """
    if not diversity or not ranking:
        return ranking
    units = np.stack([ranked[modality].units[number] for modality, number, _ in ranking])
    modalities = np.array([modality for modality, _, _ in ranking])
    scores = np.array([item.score for _, _, item in ranking])
    likeness, left, order = np.zeros(len(ranking)), np.ones(len(ranking), np.bool_), []
    for _ in ranking:
        gains = np.where(left, (1 - diversity) * scores - diversity * likeness, -np.inf)
        chosen = int(gains.argmax())
        order.append(ranking[chosen])
        left[chosen] = False
        np.maximum(likeness, units @ units[chosen], out=likeness, where=modalities == modalities[chosen])
    return order
