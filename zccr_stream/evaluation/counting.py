"""One feed -> the measures of one user; measures of many users -> means with their intervals.

What was held out is all that is known to be right, so these numbers are low: a feed may be full of what a user would
have liked and show none of it. They tell better from worse, on the same users, night after night.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zccr_stream import measures
from zccr_stream.events import Recommendations
from zccr_stream.measures import NOTHING
from zccr_stream.vectors import at_unit_length

LENGTHS = (10, 20, 50)
"""Places of the feed that count."""
MEASURES = ("recall", "precision", "ndcg", "coverage", "near_duplicates", "diversity", "crossmodal")
"""What is counted of each feed and length, one number a user, from 0 to 1 (diversity: to 2)."""

NEAR = 0.9  # cosine from which two items of a feed look alike; by default production passes over those from .97 on

Values = dict[tuple[str, int], float]
"""By measure and length, NaN where it cannot be said of this feed."""


@dataclass(frozen=True, slots=True)
class Feed:
    """What one user is shown, f assets, best first.

    `modalities` (f,) are theirs; `crossmodal` (f,) is 1 where an asset is of another modality than the area it is shown
    for, else 0, and NaN where it is shown for none.
    """

    asset_ids: Sequence[str]
    modalities: npt.NDArray[np.str_]
    crossmodal: npt.NDArray[np.float64]

    @classmethod
    def of(cls, recommendations: Recommendations) -> Feed:
        """The feed of one user's recommendations."""
        modalities = {area.area_id: area.modality for area in recommendations.areas}
        feed = recommendations.feed
        return cls(
            [item.asset_id for item in feed],
            np.array([item.modality for item in feed], np.str_),
            np.array([item.modality != modalities[item.area_id] for item in feed], np.float64),
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over the users of whom it can be said, and half of its 95 % confidence interval; None: it cannot."""

    mean: float | None
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """The estimate from one value a user, NaN where there is none."""
        said = [value for value in values if not math.isnan(value)]
        if not said:
            return cls(None, None)
        width = measures.half_width(said)
        return cls(round(float(np.mean(said)), 6), round(width, 6) if math.isfinite(width) else None)


def count(feed: Feed, vectors: npt.NDArray[np.float32], wanted: Mapping[str, int]) -> Values:
    """Count one feed by every measure and length.

    Args:
        feed: f assets.
        vectors: (f, d) theirs.
        wanted: the assets to be found, and the area of each in the full profile, by number.
    """
    areas = {area: number for number, area in enumerate(sorted(set(wanted.values())))}
    places = [areas[wanted[asset_id]] if asset_id in wanted else NOTHING for asset_id in feed.asset_ids]
    classes, relevant = np.array([places], np.intp), np.array([len(wanted)])
    units = at_unit_length(vectors)
    near = measures.near_duplicates(units, NEAR)
    values: Values = {}
    for length in LENGTHS:
        first = slice(length)
        values["recall", length] = float(measures.recall(classes, relevant, length)[0])
        values["precision", length] = float(measures.precision(classes, length)[0])
        values["ndcg", length] = float(measures.ndcg(classes, relevant, length)[0])
        values["coverage", length] = float(measures.coverage(classes, len(areas), length)[0])
        values["near_duplicates", length] = _mean(near[first])
        values["diversity", length] = measures.diversity(units[first], feed.modalities[first])
        values["crossmodal", length] = _mean(feed.crossmodal[first])
    return values


def _mean(values: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else math.nan
