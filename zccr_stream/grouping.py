"""One kind of a profile's assets -> groups that are one area each (paper, section 3.2). Pure.

Comes in: their vectors, and where known what their catalogue looks like. Goes out: a label an asset. PCA, Ward, a cut;
then, where the catalogue gives the cut, back in the full space which areas are one, who is where and what is left over.
Knows nothing of users, seeds and what is searched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import linkage
from scipy.linalg.lapack import ssyevd
from scipy.spatial.distance import squareform

from zccr_stream.catalogue import COPY, Catalogue
from zccr_stream.events.identifiers import lot
from zccr_stream.vectors import TIE, at_unit_length

CUT = 1.1
"""Where no catalogue says up to which distance two assets are one area: of CLIP models, roughly."""

_BLOCK_ROWS = 8192  # 16 MB of 512 float32: what is worked on at once, however large the profile is
_FREE, _INERTIA = 5, 0.01  # rounds of moving assets to what is closer at all, and how much closer a round after them
_LEAST = 0.25  # of how far strangers lie apart: what is closer is one area, whatever the doubt
_BROADLY = 2.0  # deviations of the mean cosine between all areas: more is not by chance
_STRANGE = 0.25  # of how close an area's own assets are to it: what is further off stays out
_PLAINLY = (
    8 * 1.4826
)  # times the median absolute deviation, which is a standard deviation over 1.4826 where all is normal

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Limits:
    """Up to which Ward distance assets are one area, by what their catalogue and their profile look like.

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

    Ward's areas tend to be of one size, so it parts what one user has much of. Two of several assets each are one where
    the mean cosine between them is at least

        alike c + clear / sqrt(p) and c - apart, c being the mean cosine inside them

    since kinds that are clear and share a world are more alike than strangers. Copies count once there. An area whose
    mean cosine is below loose / sqrt(p) holds what is left over, and falls into parts that do not.

    What no pair of areas says all of them may say together: a profile is of one broad kind, and one area, where the
    mean cosine of two assets of different areas is at least

        (q / p) max(broad, 2 u) / sqrt(p), u being what that mean deviates by among strangers, in 1 / sqrt(p)

    q / p times as much, for the kinds of a profile may be of one world by chance. Copies count once there too.

    A large area may be as wide as kinds lie apart, and then holds a few strangers. Where `strangers` of its assets or
    more are plainly so, all that is strange to it is put out, never one alone. A stranger's cosine with the sum of the
    others is below a quarter of its median in the area; plainly, where it is also below 0, or eight deviations below
    that median.

    `python -m experiments.constants` says how good these values are (docs/results.md).
    """

    rise: float = 1.75
    nearest: float = 0.6
    doubt_max: float = 3.0
    sure: float = 12.0
    even: float = 3.0
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
        for name in ("clear", "apart", "loose", "broad"):
            if math.isnan(getattr(self, name)):
                raise ValueError(f"{name} is not a number")

    def heights(self, tree: Wide, cosines: Wide, catalogue: Catalogue) -> Wide:
        """How high the merges of a tree are, (n - 1,), 1 being the highest that leaves one area.

        Of a tree, (n - 1, 4) as scipy has it, and the mean cosine of two of each merge's assets, (n - 1,).
        """
        n, m = len(tree) + 1, tree[:, 3]
        surety = _typical_highest(tree, np.sqrt(catalogue.dimensions * (m - 1)) * cosines)
        doubt = self.doubt_max * max(1 - surety / self.sure, 0) ** 2
        nearer = self.nearest * np.sqrt(2 * np.log(n / m)) / math.sqrt(catalogue.dimensions)
        of_one = (self.rise * np.sqrt(m / 2) - doubt) / math.sqrt(catalogue.dimensions * self.worlds(catalogue))
        limits = 1 + of_one - nearer
        heights: Wide = tree[:, 2] / (math.sqrt(2) * np.maximum(limits, _LEAST))
        return heights

    def least(self, catalogue: Catalogue) -> float:
        """The mean cosine below which assets are no area; copies never are strangers."""
        return min(self.loose / math.sqrt(catalogue.dimensions), COPY)

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


def find_groups(
    vectors: Floats, asset_ids: Sequence[str], rule: GroupRule, catalogue: Catalogue | None = None
) -> Labels:
    """(n,) labels 0, 1, … of (n, d) unit vectors: of all together, or of a sample with the rest given to the nearest.

    The sample is the assets whose ids hash lowest: one upload more or less changes at most one of it. The rest goes to
    the nearest centroid, which where the catalogue gives the cut is the closest in direction, by one product without
    asking for kin; unlike where assets settle, none stays out.
    """
    n = len(vectors)
    if rule.cut is not None:
        catalogue = None
    if n <= rule.sample_size:
        return _cluster(_seen(vectors, catalogue), rule, catalogue)
    hashes = np.array([lot(asset_id) for asset_id in asset_ids], dtype=np.uint64)
    sample = np.sort(np.argsort(hashes, kind="stable")[: rule.sample_size])
    seen = _seen(vectors[sample], catalogue)
    sampled = _cluster(seen, rule, catalogue)
    centroids = np.stack([seen[sampled == label].mean(axis=0) for label in range(sampled.max() + 1)])
    if catalogue is None:
        offsets = np.einsum("kd,kd->k", centroids, centroids) / 2
    else:
        centroids = at_unit_length(centroids) @ catalogue.whitener.T
        offsets = centroids @ catalogue.mean
    labels = np.empty(n, dtype=np.intp)
    for start in range(0, n, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        labels[block] = np.argmax(vectors[block] @ centroids.T - offsets, axis=1)
    labels[sample] = sampled
    return labels


def _seen(vectors: Floats, catalogue: Catalogue | None) -> Floats:
    """(n, d) where assets are compared: as seen from the catalogue, where one is known."""
    return vectors if catalogue is None else catalogue.seen(vectors)


def _cluster(seen: Floats, rule: GroupRule, catalogue: Catalogue | None) -> Labels:
    """(n,) labels 0, 1, … of the Ward tree over PCA's projection, cut by the rule (eqs. 5 and 6).

    Where the catalogue gives the cut, (n, d) `seen` assets are compared among their kin. Areas that are as close as one
    are then joined, assets settle in those that are closest to them, what is left over is parted and what is strange is
    put out; an absolute cut leaves them where Ward has put them, as in the paper.
    """
    n = len(seen)
    if n < 2:
        return np.zeros(n, dtype=np.intp)
    if catalogue is None:
        tree = _tree(seen, rule)
        limits = (CUT if rule.cut is None else rule.cut) * (tree[:, 3] / 2) ** rule.growth
        return _cut(tree, tree[:, 2] / limits, rule.areas_max)
    among_kin = catalogue.among_kin(seen)
    tree = _tree(among_kin, rule)
    heights = rule.limits.heights(tree, _cosines(among_kin, tree), catalogue)
    labels = _settle(among_kin, _cut(tree, heights, rule.areas_max))
    copies = _cut(tree, tree[:, 2] / math.sqrt(2 - 2 * COPY), n)
    labels = _settle(among_kin, _join(among_kin, labels, copies, rule.limits, catalogue))
    labels = _part(among_kin, labels, rule, catalogue)
    labels = _one_if_broad(among_kin, labels, copies, rule.limits, catalogue)
    return _put_out(among_kin, labels, copies, rule, catalogue)


def _tree(seen: Floats, rule: GroupRule) -> Wide:
    """Ward's tree of (n, d) assets over PCA's projection, (n - 1, 4) as scipy has it."""
    tree: Wide = linkage(_distances(_project(seen, rule.variance)), method="ward")
    return tree


def _merges(tree: Wide) -> list[tuple[int, int]]:
    """The two nodes that each merge of a tree merges; the first n are the assets."""
    return list(zip(*tree[:, :2].T.astype(np.intp).tolist(), strict=True))


def _typical_highest(tree: Wide, values: Wide) -> float:
    """The median over all assets of the highest value, (n - 1,), of the merges that hold the asset; at least 0."""
    n = len(tree) + 1
    pairs, highest = _merges(tree), [0.0] * n + values.tolist()
    for node in range(2 * n - 2, n - 1, -1):
        for child in pairs[node - n]:
            highest[child] = max(highest[child], highest[node])
    return float(np.median(highest[:n]))


def _settle(seen: Floats, labels: Labels) -> Labels:
    """Move each of (n, d) assets to the area whose seed it is closest to, its own's as that would be without it.

    Ward takes no merge back, though what joined early may lie closer to what came together later. These are rounds of
    spherical k-means in which all assets move at once. Two may change places for ever; so after `_FREE` rounds another
    area must be closer by more in every round, and all come to rest. What is alone stays alone, what is far from an
    area's assets stays out, and no area is added.
    """
    every = np.arange(len(seen))
    for turn in count():
        totals, sizes = _sums(seen, labels), np.bincount(labels)
        closeness = seen @ totals.T / np.maximum(np.linalg.norm(totals, axis=1), TIE)
        own, alone = _closeness_to(totals[labels] - seen, seen)
        nearest_strangers = _STRANGE * np.bincount(labels, own) / sizes
        closeness[closeness < nearest_strangers] = -1  # below any cosine that may win
        closeness[every, labels] = np.where(alone, np.inf, own + max(TIE, _INERTIA * (turn - _FREE)))
        closest = np.argmax(closeness, axis=1)
        if np.array_equal(closest, labels):
            break
        labels = np.unique(closest, return_inverse=True)[1]
    return labels


def _join(seen: Floats, labels: Labels, copies: Labels, limits: Limits, catalogue: Catalogue) -> Labels:
    """Make one area of any two of (n, d) assets' areas that are as close as one, the clearest first (`Limits`).

    Assets of one number in `copies`, (n,), are copies of each other and count as one together.
    """
    several = np.flatnonzero(np.bincount(labels) > 1)
    shares = (1 / np.bincount(copies)[copies]).astype(np.float32)
    k, sizes = len(several), np.bincount(labels, shares)[several]
    totals = _sums(seen * shares[:, None], labels)[several].astype(np.float64)
    products = totals @ totals.T
    clear = limits.clear / math.sqrt(catalogue.dimensions)
    left = np.ones(k, np.bool_)

    def surplus_of(one: int) -> Wide:
        inside, pairs = products.diagonal() - sizes, sizes * (sizes - 1)  # cosines of different assets, and how many
        of_both = pairs[one] + pairs
        known = of_both > 1  # not of copies alone
        usual = np.where(known, (inside[one] + inside) / np.maximum(of_both, 1), 1)
        between = products[one] / (sizes[one] * sizes)
        told_apart = known & (usual - between > limits.apart)
        surplus: Wide = between - limits.alike * usual - clear
        return np.where(left & (np.arange(k) != one) & ~told_apart, surplus, -np.inf)

    surplus = np.stack([surplus_of(one) for one in range(k)]) if k > 1 else np.full((1, 1), -np.inf)
    labels = labels.copy()
    while surplus.max() >= 0:
        one, other = divmod(int(surplus.argmax()), k)
        products[one] += products[other]
        products[:, one] += products[:, other]
        sizes[one] += sizes[other]
        left[other] = False
        labels[labels == several[other]] = several[one]
        surplus[one] = surplus[:, one] = surplus_of(one)
        surplus[other] = surplus[:, other] = -np.inf
    return np.unique(labels, return_inverse=True)[1]


def _part(seen: Floats, labels: Labels, rule: GroupRule, catalogue: Catalogue) -> Labels:
    """Part the areas of (n, d) assets that hold what is left over, along trees of their own (`Limits`).

    How surely these have kin is asked of them alone, as if they were all there is. One area after the other is parted
    as long as there is room. What lies at the catalogue's mean has no direction and stays where it is.
    """
    totals, sizes = _sums(seen, labels).astype(np.float64), np.bincount(labels)
    squares = np.einsum("nd,nd->n", seen, seen)
    own = np.bincount(labels, squares)
    inside = np.einsum("kd,kd->k", totals, totals) - own
    least = rule.limits.least(catalogue)
    labels, areas = labels.copy(), len(sizes)
    for label in np.flatnonzero((own > 1.5) & (inside < least * np.maximum(sizes * (sizes - 1), 1))).tolist():
        rows = np.flatnonzero((labels == label) & (squares > TIE))
        parts = _parts(seen[rows], rule, catalogue, rule.areas_max - areas + 1)
        labels[rows[parts > 0]] = areas - 1 + parts[parts > 0]
        areas += int(parts.max())
    return labels


def _parts(seen: Floats, rule: GroupRule, catalogue: Catalogue, areas_max: int) -> Labels:
    """(m,) labels 0, 1, … of (m, d) assets that are no area: by a tree of their own, as if they were all there is."""
    tree = _tree(seen, rule)
    cosines = _cosines(seen, tree)
    loose = cosines < rule.limits.least(catalogue)
    return _cut(tree, np.where(loose, np.inf, rule.limits.heights(tree, cosines, catalogue)), areas_max)


def _one_if_broad(seen: Floats, labels: Labels, copies: Labels, limits: Limits, catalogue: Catalogue) -> Labels:
    """Make all areas of (n, d) assets one, where they are closer together than strangers on average (`Limits`).

    Among strangers the product of two areas' sums deviates by that of their lengths, times sqrt(1 / p). Assets of one
    number in `copies`, (n,), count as one together.
    """
    if not labels.any():
        return labels
    shares = (1 / np.bincount(copies)[copies]).astype(np.float32)
    totals, sizes = _sums(seen * shares[:, None], labels).astype(np.float64), np.bincount(labels, shares)
    whole, squares = totals.sum(axis=0), np.einsum("kd,kd->k", totals, totals)
    between, pairs = whole @ whole - squares.sum(), sizes.sum() ** 2 - (sizes**2).sum()
    deviation = math.sqrt(2 * max(squares.sum() ** 2 - (squares**2).sum(), 0))
    least = max(limits.broad * pairs, _BROADLY * deviation) * limits.worlds(catalogue) / math.sqrt(catalogue.dimensions)
    return np.zeros_like(labels) if between >= least else labels


def _put_out(seen: Floats, labels: Labels, copies: Labels, rule: GroupRule, catalogue: Catalogue) -> Labels:
    """Put out of their areas what of (n, d) assets is strange to them, where some are plainly so (`Limits`).

    An area keeps at least half. Assets of one number in `copies`, (n,), count as one. What is put out falls into parts,
    as far as there is room.
    """
    once = np.unique(copies, return_index=True)[1]
    areas_of, each = labels[once], seen[once]
    own, _ = _closeness_to(_sums(each, areas_of)[areas_of] - each, each)
    closest = np.full(labels.max() + 1, -1.0)
    np.maximum.at(closest, areas_of, own)
    far = np.bincount(areas_of, own < np.maximum(_STRANGE * closest, 0)[areas_of])  # most areas need no median
    labels, areas = labels.copy(), len(closest)
    for label in np.flatnonzero(far >= rule.limits.strangers).tolist():
        if _plain_strangers(own[areas_of == label]) < rule.limits.strangers:
            continue
        rows = once[areas_of == label]
        kept = _not_strange(seen[rows])
        out = rows[~kept]
        room = rule.areas_max - areas
        if 2 * np.count_nonzero(kept) < len(rows) or len(out) < 2 or room < 1:
            continue
        parts = np.full(len(once), -1)
        parts[copies[out]] = _parts(seen[out], rule, catalogue, room)
        moved = (labels == label) & (parts[copies] >= 0)
        labels[moved] = areas + parts[copies[moved]]
        areas += int(parts.max()) + 1
    return labels


def _plain_strangers(own: Floats) -> int:
    """How many of (m,) cosines of an area's assets with the sum of the others are plainly a stranger's (`Limits`)."""
    usual = float(np.median(own))
    tight = usual - _PLAINLY * float(np.median(np.abs(own - usual)))
    return int(np.count_nonzero(own < max(min(_STRANGE * usual, tight), 0) - TIE))


def _not_strange(seen: Floats) -> npt.NDArray[np.bool_]:
    """(m,) which of an area's (m, d) assets are not strange to the others; what has no direction is not."""
    kept, undirected = np.ones(len(seen), np.bool_), np.einsum("md,md->m", seen, seen) <= TIE
    while True:
        own, _ = _closeness_to(seen[kept].sum(axis=0) - kept[:, None] * seen, seen)
        near: npt.NDArray[np.bool_] = kept & (undirected | (own >= _STRANGE * np.median(own[kept])))
        if np.array_equal(near, kept) or not near.any():
            return near
        kept = near


def _closeness_to(others: Floats, seen: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(n,) the cosines of (n, d) assets with the sums of their others, (n, d), 1 where there is none; and where so."""
    lengths = np.linalg.norm(others, axis=1)
    alone = lengths <= TIE
    own: Floats = np.where(alone, 1, np.einsum("nd,nd->n", seen, others) / np.maximum(lengths, TIE))
    return own, alone


def _cosines(seen: Floats, tree: Wide) -> Wide:
    """(n - 1,) the mean cosine of two of the (n, d) assets that each merge holds; what has no direction has 0."""
    n = len(seen)
    totals = np.concatenate([seen, np.empty_like(seen[1:])])
    own = np.concatenate([np.einsum("nd,nd->n", seen, seen), np.empty(n - 1)])
    sizes = np.ones(2 * n - 1)
    for node, (left, right) in enumerate(_merges(tree), start=n):
        totals[node] = totals[left] + totals[right]
        own[node] = own[left] + own[right]
        sizes[node] = sizes[left] + sizes[right]
    cosines: Wide = np.einsum("nd,nd->n", totals[n:], totals[n:]) - own[n:]
    return cosines / (sizes[n:] * (sizes[n:] - 1))


def _sums(seen: Floats, labels: Labels) -> Floats:
    """The sum of each area's assets, (k, d), of (n, d)."""
    holds = np.zeros((labels.max() + 1, len(seen)), np.float32)
    holds[labels, np.arange(len(seen))] = 1
    sums: Floats = holds @ seen
    return sums


def _cut(tree: Wide, heights: Wide, areas_max: int) -> Labels:
    """(n,) labels 0, 1, … of a tree's n - 1 merges: what holds a merge higher than 1 is split, the widest first.

    (scipy's fcluster takes 0.2 ms for the smallest tree and expects heights that only rise.)
    """
    n = len(tree) + 1
    pairs, highest = _merges(tree), [0.0] * n + heights.tolist()
    for node, (left, right) in enumerate(pairs, start=n):
        highest[node] = max(highest[node], highest[left], highest[right])
    too_high = [(width, node) for node, width in enumerate(tree[:, 2].tolist(), start=n) if highest[node] > 1]
    split = {node for _, node in sorted(too_high, reverse=True)[: areas_max - 1]}  # parents before children
    labels, areas = [0] * (2 * n - 1), 1
    for node in range(2 * n - 2, n - 1, -1):
        left, right = pairs[node - n]
        labels[left] = labels[node]
        labels[right] = areas if node in split else labels[node]
        areas += node in split
    return np.array(labels[:n], dtype=np.intp)


def _project(vectors: Floats, variance: float) -> Floats:
    """(n, d') coordinates in the fewest principal components that keep the share `variance` (eqs. 3 and 4).

    From the eigenvectors of the smaller of the Gram matrix (n x n) and the scatter matrix (d x d): exact.
    """
    centred = vectors - vectors.mean(axis=0)
    n, d = centred.shape
    values, axes, failed = ssyevd(centred @ centred.T if n < d else centred.T @ centred)
    if failed:
        raise ValueError(f"no principal components of {n} vectors (LAPACK's ssyevd: {failed})")
    values, axes = np.maximum(values[::-1], 0), axes[:, ::-1]
    kept = 1 + int(np.searchsorted(np.cumsum(values), variance * values.sum()))
    points: Floats = axes[:, :kept] * np.sqrt(values[:kept]) if n < d else centred @ axes[:, :kept]
    return points


def _distances(points: Floats) -> Wide:
    """Condensed Euclidean distances of (n, d') points, by one matrix product."""
    products = points @ points.T
    squares = products.diagonal().copy()
    products *= -2
    products += squares
    products += squares[:, None]
    condensed: Wide = squareform(products, checks=False).astype(np.float64)
    return np.sqrt(np.maximum(condensed, 0, out=condensed), out=condensed)
