"""How assets are grouped: the sizes, and up to which distance they are one area. Pure.

`GroupRule` is what settings say. `Limits` are the constants of the cut that a catalogue calibrates, and what they make
of a tree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zccr_stream.catalogue import Catalogue
from zccr_stream.grouping import trees
from zccr_stream.vectors import TIE

CUT = 1.1
"""Where no catalogue says up to which distance two assets are one area: of CLIP models, roughly."""

_LEAST = 0.25  # of how far strangers lie apart: what is closer is one area, whatever the doubt
_SEVERAL = 3  # assets a side that say whether it is an area of its own

Wide = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limits:
    """Up to which Ward distance assets are one area, by what their catalogue and their profile look like.

    Assets are different ones: copies of one count once, whatever the step, and share its area.

    Strangers lie sqrt(2) apart as seen from the catalogue, give or take some sqrt(2 / p) in p dimensions, two standard
    deviations. A merge to m of n assets is one area up to sqrt(2) times

        1 + (rise sqrt(m / 2) - doubt) / sqrt(q) - nearest sqrt(2 ln(n / m)) / sqrt(p), at least a quarter

    - rise: within one cloud merges rise with the root of m, as its longest axis is that much longer than the others;
    - nearest: of n / m groups that are strangers the nearest two are nearer than most, as the least of so many draws;
    - doubt = doubt_max max(0, 1 - s / sure)^2: as long as the assets may have no kin in the profile, what is one area
      must be closer. The surety s is the mean cosine of a merge's assets in deviations of an asset's mean cosine to
      m - 1 strangers, sqrt(1 / (p (m - 1))): of each asset the highest of all merges that hold it, and of these the
      median;
    - q: what one area is like goes by the dimensions that assets of one kind differ in, where these are many more than
      p: the catalogue's `within` over `even`, from p to `even` times p.

    A limit that rises with m lets the small into the large. A merge whose sides hold three assets or more each is two
    areas, whatever its height, where the mean cosine between the sides is below

        unlike c, c being the mean cosine inside them.

    Ward's areas tend to be of one size, so it parts what one user has much of. Two of several assets each are one where
    the mean cosine between them is at least

        alike c + clear / sqrt(p) and c - apart, c being the mean cosine inside them

    since kinds that are clear and share a world are more alike than strangers. An area whose
    mean cosine is below loose / sqrt(p) holds what is left over, and falls into parts that do not.

    What no pair of areas says all of them may say together: a profile is of one broad kind, and one area, where the
    mean cosine of two assets of different areas is at least

        (q / p) max(broad, 2 u) / sqrt(p), u being what that mean deviates by among strangers, in 1 / sqrt(p)

    q / p times as much, for the kinds of a profile may be of one world by chance.

    A large area may be as wide as kinds lie apart, and then holds a few strangers. Where `strangers` of its assets or
    more are plainly so, all that is strange to it is put out. A stranger's cosine with the sum of the others is below a
    quarter of its median in the area; plainly, where it is also below 0, or eight deviations below that median. Of
    fewer, what is both is put out.

    `python -m experiments.constants` says how good these values are (docs/results.md).
    """

    rise: float = 1.75
    nearest: float = 0.6
    doubt_max: float = 3.0
    sure: float = 12.0
    even: float = 3.0
    unlike: float = 0.1
    alike: float = 0.3
    clear: float = 0.5
    apart: float = 0.3
    loose: float = 1.0
    broad: float = 0.4
    strangers: float = 2.0

    def __post_init__(self) -> None:
        for name in ("rise", "nearest", "doubt_max", "alike"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}; expected a number of at least 0")
        if not self.sure > 0:
            raise ValueError(f"sure is {self.sure}; expected a number above 0, or infinity: nothing ends doubt")
        if not self.even >= 1:
            raise ValueError(f"even is {self.even}; expected at least 1, which leaves p as it is")
        if not self.strangers >= 1:
            raise ValueError(f"strangers is {self.strangers}; expected at least 1, or infinity: none are put out")
        for name in ("unlike", "clear", "apart", "loose", "broad"):
            if math.isnan(getattr(self, name)):
                raise ValueError(f"{name} is not a number")

    def heights(self, tree: Wide, cosines: Wide, catalogue: Catalogue) -> Wide:
        """How high the merges of a tree are, (n - 1,), 1 being the highest that leaves one area.

        Of a tree, (n - 1, 4) as scipy has it, and the mean cosine of two of each merge's assets, (n - 1,).
        """
        n, m = len(tree) + 1, tree[:, 3]
        surety = trees.typical_highest(tree, np.sqrt(catalogue.dimensions * (m - 1)) * cosines)
        doubt = self.doubt_max * max(1 - surety / self.sure, 0) ** 2
        nearer = self.nearest * np.sqrt(2 * np.log(n / m)) / math.sqrt(catalogue.dimensions)
        of_one = (self.rise * np.sqrt(m / 2) - doubt) / math.sqrt(catalogue.dimensions * self.worlds(catalogue))
        limits = 1 + of_one - nearer
        heights: Wide = tree[:, 2] / (math.sqrt(2) * np.maximum(limits, _LEAST))
        return heights

    def are_two(self, inside: Wide, between: Wide, smaller: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Which merges are of two areas, (n - 1,): by the mean cosines in and between their sides (`trees.sides`)."""
        two: npt.NDArray[np.bool_] = (smaller >= _SEVERAL) & (between < self.unlike * np.maximum(inside, TIE))
        return two

    def least(self, catalogue: Catalogue) -> float:
        """The mean cosine below which assets are no area."""
        return self.loose / math.sqrt(catalogue.dimensions)

    def worlds(self, catalogue: Catalogue) -> float:
        """How many times p the dimensions are that assets of one kind differ in, q / p, from 1 to `even`."""
        return min(max(catalogue.within / self.even / catalogue.dimensions, 1), self.even)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRule:
    """How assets are grouped.

    `variance` is the share that PCA keeps. `cut` is the Ward distance up to which two single assets are one area, for n
    assets together that times (n / 2) ** `growth`; None: where the catalogue is known it says so (`limits`), else
    `CUT`. `areas_max` is the most areas of a modality (more are merged along the tree). Above `sample_size` assets a
    sample of that many is clustered.
    """

    variance: float
    cut: float | None
    growth: float
    areas_max: int
    sample_size: int
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not 0 < self.variance <= 1:
            raise ValueError(f"variance is {self.variance}; expected a share above 0 and up to 1")
        if self.cut is not None and not self.cut > 0:
            raise ValueError(f"cut is {self.cut}; expected a Ward distance above 0")
        if not 0 <= self.growth <= 0.5:
            raise ValueError(f"growth is {self.growth}; expected an exponent from 0 to 0.5")
        if self.areas_max < 1:
            raise ValueError(f"areas_max is {self.areas_max}; expected at least 1")
        if self.sample_size < 1:
            raise ValueError(f"sample_size is {self.sample_size}; expected at least 1")
