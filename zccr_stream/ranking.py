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
    """One list: rows of that modality's hits, and what to say of them."""

    rows: list[int]
    recommended: list[Recommended]


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
    own = frozenset(profile.asset_ids)
    ranked = {
        modality: _rank_modality(found, len(areas), own, profile.user_id, rule.k)
        for modality, found in hits.items()
        if areas
    }
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
                    modality: ranked[modality][line].recommended if modality in ranked else []
                    for modality in MODALITIES
                },
            )
            for line, area in enumerate(areas)
        ],
        feed=_feed(areas, ranked, hits, rule),
    )


def _rank_modality(hits: Hits, lines: int, own: frozenset[str], user_id: str, k: int) -> list[_Ranked]:
    """One list per area: the best k that are not the user's own, ties by asset id, each asset once."""
    if len(hits.rows) != lines or hits.scores.shape != hits.rows.shape:
        raise ValueError(
            f"hits have rows {hits.rows.shape} and scores {hits.scores.shape}; "
            f"expected one line for each of {lines} areas"
        )
    others = [
        owner != user_id and asset_id not in own for asset_id, owner in zip(hits.asset_ids, hits.user_ids, strict=True)
    ]
    return [
        _rank_line(hits, rows, scores, others, k)
        for rows, scores in zip(hits.rows.tolist(), hits.scores.tolist(), strict=True)
    ]


def _rank_line(hits: Hits, rows: list[int], scores: list[float], others: list[bool], k: int) -> _Ranked:
    best: dict[str, tuple[float, int]] = {}
    for row, score in zip(rows, scores, strict=True):
        if row >= 0 and others[row]:
            best.setdefault(hits.asset_ids[row], (-round(score, _DECIMALS), row))
    order = sorted((cost, asset_id, row) for asset_id, (cost, row) in best.items())[:k]
    return _Ranked(
        rows=[row for _, _, row in order],
        recommended=[Recommended(asset_id, hits.user_ids[row], -cost) for cost, asset_id, row in order],
    )


def _feed(
    areas: Sequence[Area],
    ranked: Mapping[str, list[_Ranked]],
    hits: Mapping[str, Hits],
    rule: RankingRule,
) -> list[FeedItem]:
    """The round-robin merge of the lists (see `rank`): each queue's turn comes again behind all others."""
    alike = {modality: _near_duplicates(hits[modality], lists, rule) for modality, lists in ranked.items()}
    queues = deque(
        (
            area,
            modality,
            deque(zip(ranked[modality][line].rows, ranked[modality][line].recommended, strict=True)),
        )
        for line, area in enumerate(areas)
        for modality in sorted(ranked, key=lambda target: (target == area.modality, target))
    )
    shown: dict[str, set[int]] = {modality: set() for modality in ranked}
    feed: list[FeedItem] = []
    taken: set[str] = set()
    while queues and len(feed) < rule.feed_size:
        area, modality, queue = queues.popleft()
        while queue:
            row, item = queue.popleft()
            if row not in shown[modality] and item.asset_id not in taken:
                shown[modality] |= alike[modality][row]
                taken.add(item.asset_id)
                feed.append(FeedItem(item.asset_id, item.user_id, modality, area.area_id, item.score))
                queues.append((area, modality, queue))
                break
    return feed


def _near_duplicates(hits: Hits, lists: Sequence[_Ranked], rule: RankingRule) -> dict[int, set[int]]:
    """Per listed row the listed rows that show the same, itself among them: one matrix product for all."""
    rows = np.array(sorted({row for ranked in lists for row in ranked.rows}), dtype=np.intp)
    vectors = hits.vectors[rows].astype(np.float32, copy=False)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    near = vectors @ vectors.T >= rule.near_duplicate
    return {int(row): {int(row), *rows[alike].tolist()} for row, alike in zip(rows, near, strict=True)}
