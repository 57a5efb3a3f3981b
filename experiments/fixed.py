"""Ward's tree cut at a fixed distance, as the paper does it: what a rule for the cut is compared with.

Comes in: a profile of one modality and its catalogue. Go out: its groups by every distance of a grid, from which the
experiments choose by labels, as nobody can in production. Knows nothing of users and tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage, maxdists
from sklearn.preprocessing import normalize

from zccr_stream.catalogue import Catalogue
from zccr_stream.interests import Profile
from zccr_stream.measures import Classes

Wide = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Distance:
    """The most that assets of one area lie apart: `cut` for two, that times (m / 2) ** `growth` for m together.

    Between vectors as they are or, `from_mean`, as seen from their catalogue's mean.
    """

    cut: float
    growth: float
    from_mean: bool

    def __str__(self) -> str:
        grown = f" (m / 2)^{self.growth:g}" if self.growth else ""
        return f"{self.cut:g}{grown}" + (" from the mean" if self.from_mean else "")


DISTANCES = tuple(
    Distance(cut, growth, from_mean)
    for from_mean in (False, True)
    for growth in (0.0, 0.1, 0.2, 0.3)
    for cut in np.arange(0.6, 3.05, 0.1).round(1).tolist()
)


def groupings(profile: Profile, catalogue: Catalogue | None, distances: Sequence[Distance]) -> list[Classes]:
    """The groups, (n,), of a profile's n >= 2 assets by each of the distances; without a catalogue all are as it is."""
    vectors = profile.vectors
    seen = vectors if catalogue is None else normalize(vectors - catalogue.mean)
    needed = {distance.from_mean for distance in distances}
    trees = {from_mean: linkage(seen if from_mean else vectors, "ward") for from_mean in needed}
    return [_cut(trees[distance.from_mean], distance) for distance in distances]


def _cut(tree: Wide, distance: Distance) -> Classes:
    heights = tree.copy()
    heights[:, 2] /= distance.cut * (tree[:, 3] / 2) ** distance.growth
    labels: Classes = fcluster(tree, 1, "monocrit", monocrit=maxdists(heights)).astype(np.intp)
    return labels
