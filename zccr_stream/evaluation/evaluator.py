"""Batches of sampled users -> feeds by four ways -> what was found.

Areas, search, ranking and feed are production's own code with production's rules. Every way goes over the same users
and searches the same index, so that differences are the ways' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zccr_stream.evaluation.counting import LENGTHS, MEASURES, Estimate, Feed, Values, count
from zccr_stream.evaluation.sampling import Sample, Split
from zccr_stream.evaluation.search_space import SearchSpace
from zccr_stream.interests import Area, AreaRule, Profile, areas_of, find_areas
from zccr_stream.pipeline import recommend
from zccr_stream.ranking import RankingRule
from zccr_stream.vectors import at_unit_length

PRODUCTION, ONE_AREA, EACH_ASSET, RANDOM = "production", "one_area", "each_asset", "random"
FEEDS = (PRODUCTION, ONE_AREA, EACH_ASSET, RANDOM)
"""Production's; that of one area a user and modality; of one area an asset, the newest first; drawn by chance."""

_LONGEST = max(LENGTHS)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was found.

    Attributes:
        sample: who was measured.
        assets: assets searched, by modality.
        held_out: how many assets were to be found.
        repeats: share of a user's held-out assets that production takes for near-duplicates of what remains of the
            profile; finding these says little about areas of interest.
        feeds: by feed, length and measure.
        above: how much more recall production's feed has than another of the same users, by feed and length.
        distinct: by feed and length, different assets shown over the most that so many places could show: 1 where
            everybody is shown something else, near 0 where all are shown the same. None: no feed shows anything.
    """

    sample: Sample
    assets: Mapping[str, int]
    held_out: int
    repeats: Estimate
    feeds: Mapping[str, Mapping[int, Mapping[str, Estimate]]]
    above: Mapping[str, Mapping[int, Estimate]]
    distinct: Mapping[str, Mapping[int, float | None]]


class Evaluator:
    """Recommends for batches of users, and counts.

    Production's feed follows its rules and only goes on to the longest length that is counted. The other feeds' lists
    are as long as that, so that few areas can fill it.
    """

    def __init__(self, space: SearchSpace, areas: AreaRule, ranking: RankingRule, seed: int) -> None:
        self._space = space
        self._areas = areas
        self._near_duplicate = ranking.near_duplicate
        self._production = replace(ranking, feed_size=max(_LONGEST, ranking.feed_size))
        self._filling = replace(self._production, k=max(_LONGEST, ranking.k))
        self._seed = seed
        self._values: dict[str, list[Values]] = {feed: [] for feed in FEEDS}
        self._shown: dict[tuple[str, int], set[str]] = {(feed, length): set() for feed in FEEDS for length in LENGTHS}
        self._places = dict.fromkeys(self._shown, 0)
        self._repeats: list[float] = []
        self._held_out = 0

    def add(self, splits: Sequence[Split]) -> None:
        """Measure a batch of users whose profiles fit in memory; each way takes one search a modality."""
        profiles = [self._space.profile(split.uploads) for split in splits]
        wanted = [
            dict(zip(split.wanted, _areas_of(profile, self._areas)[split.held_out].tolist(), strict=True))
            for profile, split in zip(profiles, splits, strict=True)
        ]
        for profile, split in zip(profiles, splits, strict=True):
            self._held_out += len(split.wanted)
            self._repeats.append(_repeats(profile, split.held_out, self._near_duplicate))
        left = [_rows(profile, np.flatnonzero(~of.held_out)) for profile, of in zip(profiles, splits, strict=True)]
        newest = [_rows(profile, _newest(profile)) for profile in left]
        found = [find_areas(profile, self._areas) for profile in left]
        whole = [areas_of(profile, np.zeros(len(profile.asset_ids), np.intp), self._areas) for profile in left]
        apart = [areas_of(profile, np.arange(len(profile.asset_ids)), self._areas) for profile in newest]
        self._count(PRODUCTION, self._recommend(left, found, self._production), wanted)
        self._count(ONE_AREA, self._recommend(left, whole, self._filling), wanted)
        self._count(EACH_ASSET, self._recommend(newest, apart, self._filling), wanted)
        self._count(RANDOM, [self._space.draw(split, self._seed) for split in splits], wanted)

    def evaluation(self, sample: Sample) -> Evaluation:
        """What was found of the users until now, who were these of `sample`."""
        return Evaluation(
            sample,
            self._space.sizes(),
            self._held_out,
            Estimate.of(self._repeats),
            {feed: {length: self._estimates(feed, length) for length in LENGTHS} for feed in FEEDS},
            {feed: {length: self._above(feed, length) for length in LENGTHS} for feed in FEEDS if feed != PRODUCTION},
            {feed: {length: self._distinct(feed, length) for length in LENGTHS} for feed in FEEDS},
        )

    def _recommend(
        self, profiles: Sequence[Profile], areas: Sequence[Sequence[Area]], ranking: RankingRule
    ) -> list[Feed]:
        return [
            Feed.of(of) for of in recommend(self._space.index, profiles, areas, self._areas, ranking, "", lambda: 0)
        ]

    def _count(self, name: str, feeds: Sequence[Feed], wanted: Sequence[Mapping[str, int]]) -> None:
        vectors = self._space.vectors([asset_id for feed in feeds for asset_id in feed.asset_ids])
        ends = np.cumsum([len(feed.asset_ids) for feed in feeds])
        for feed, of_user, end in zip(feeds, wanted, ends.tolist(), strict=True):
            self._values[name].append(count(feed, vectors[end - len(feed.asset_ids) : end], of_user))
            for length in LENGTHS:
                self._shown[name, length].update(feed.asset_ids[:length])
                self._places[name, length] += min(length, len(feed.asset_ids))

    def _estimates(self, feed: str, length: int) -> dict[str, Estimate]:
        return {
            measure: Estimate.of([values[measure, length] for values in self._values[feed]]) for measure in MEASURES
        }

    def _above(self, feed: str, length: int) -> Estimate:
        pairs = zip(self._values[PRODUCTION], self._values[feed], strict=True)
        return Estimate.of([ours["recall", length] - others["recall", length] for ours, others in pairs])

    def _distinct(self, feed: str, length: int) -> float | None:
        most = min(self._places[feed, length], sum(self._space.sizes().values()))
        return round(len(self._shown[feed, length]) / most, 6) if most else None


def _areas_of(profile: Profile, rule: AreaRule) -> npt.NDArray[np.intp]:
    """(n,) the number of each asset's area."""
    areas = np.empty(len(profile.asset_ids), np.intp)
    for number, area in enumerate(find_areas(profile, rule)):
        areas[area.members] = number
    return areas


def _rows(profile: Profile, rows: npt.NDArray[np.intp]) -> Profile:
    """A profile of some of the assets."""
    return replace(
        profile,
        asset_ids=[profile.asset_ids[row] for row in rows.tolist()],
        modalities=[profile.modalities[row] for row in rows.tolist()],
        occurred_at_ns=profile.occurred_at_ns[rows],
        vectors=profile.vectors[rows],
    )


def _newest(profile: Profile) -> npt.NDArray[np.intp]:
    """Rows of the newest assets, one for each place of the longest feed."""
    return np.argsort(-profile.occurred_at_ns, kind="stable")[:_LONGEST]


def _repeats(profile: Profile, held_out: npt.NDArray[np.bool_], cosine: float) -> float:
    """Share of what is held out that has a near-duplicate of its modality in what remains."""
    units = at_unit_length(profile.vectors)
    modalities = np.array(profile.modalities, np.str_)
    near = (units[held_out] @ units[~held_out].T >= cosine) & (modalities[held_out, None] == modalities[~held_out])
    return float(near.any(axis=1).mean())
