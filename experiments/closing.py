"""Ways to close the modality gap, each from samples of both modalities, and what each makes of a mixed search space.

Comes in: samples, and pairs to test on. Go out: R@k with and without the queries' own modality in what is searched.
A `Way` is a map of each modality's vectors, by which one index holds both, or a standard of scores, by which the lists
of an index a modality are merged; or both. What production uses comes from `zccr_stream.calibration`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.covariance import oas

from zccr_stream.calibration import align, comparable, local_mean
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.measures import Vectors
from zccr_stream.scores import NEIGHBOURS as STREAM

KS = (1, 5, 10)
NEIGHBOURS = 1
"""Of a single asset its nearest one says best what is usual; of areas' seeds, in the stream, the nearest ten."""
FEED = 10

_TIE = 1e-6
_ROWS = 2048  # queries whose scores are held at once
_TOP = 3  # principal directions that are taken away by "all but the top"
_SHARED = 100  # dimensions of the shared subspace
_TEMPERATURE = 40.0  # of inverted softmax: near the 1 / .01 to 1 / .07 that contrastive encoders are trained with

Matrix = npt.NDArray[np.floating]
Map = Callable[[Vectors], Vectors]
Maps = tuple[Map, Map]
Fit = Callable[[Vectors, Vectors], Maps]
"""Samples of images (m, d) and of captions (m', d) -> the maps of images and of captions."""

Score = Callable[[Vectors, Vectors, Vectors, Vectors], Vectors]
"""Queries (q, d), assets (n, d), samples of the queries' and of the assets' modality -> scores (q, n)."""

Shares = dict[str, float]
Directions = dict[str, Shares]
"""By `t2i` and `i2t`, by k as text."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to close the gap; `paired` ones need to know what belongs together."""

    fit: Fit
    score: Score
    one_index: bool
    paired: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What a way makes of the test pairs; `own` is the share of the queries' own modality in the first ten."""

    mixed: Directions
    unimodal: Directions
    own: dict[str, float]


def try_way(way: Way, samples: tuple[Vectors, Vectors], images: Vectors, captions: Vectors) -> Found:
    """Close the gap between `images` and `captions` (n, d), row by row pairs, as samples of both tell."""
    map_images, map_captions = way.fit(*samples)
    images, captions = map_images(images), map_captions(captions)
    banks = map_images(samples[0]), map_captions(samples[1])
    found = Found({}, {}, {})
    for name, queries, answers, of_queries, of_answers in (
        ("t2i", captions, images, banks[1], banks[0]),
        ("i2t", images, captions, banks[0], banks[1]),
    ):
        ahead, ahead_within, own = (np.empty(len(queries), np.intp) for _ in range(3))
        for start in range(0, len(queries), _ROWS):
            block = slice(start, start + _ROWS)
            across = way.score(queries[block], answers, of_queries, of_answers)
            within = way.score(queries[block], queries, of_queries, of_queries)
            rows = np.arange(len(across))
            within[rows, start + rows] = -np.inf
            least = across[rows, start + rows, None] - _TIE
            ahead[block] = (across >= least).sum(axis=1) - 1
            ahead_within[block] = (within >= least).sum(axis=1)
            own[block] = _own(across, within)
        found.unimodal[name] = {str(k): float((ahead < k).mean()) for k in KS}
        found.mixed[name] = {str(k): float((ahead + ahead_within < k).mean()) for k in KS}
        found.own[name] = float(own.mean()) / min(FEED, 2 * len(queries) - 1)
    return found


def _own(across: Vectors, within: Vectors) -> npt.NDArray[np.intp]:
    """(q,) how many of the first ten of each query are of its own modality."""
    both = np.concatenate([across, within], axis=1)
    length = min(FEED, both.shape[1] - 1)
    first = np.argpartition(-both, length - 1, axis=1)[:, :length]
    counts: npt.NDArray[np.intp] = np.count_nonzero(first >= across.shape[1], axis=1)
    return counts


def cosine(queries: Vectors, assets: Vectors, of_queries: Vectors, of_assets: Vectors) -> Vectors:
    """Leave the scores as they are."""
    return queries @ assets.T


def calibrated(neighbours: int) -> Score:
    """Production's calibration of scores, told how many neighbours say what is usual."""

    def score(queries: Vectors, assets: Vectors, of_queries: Vectors, of_assets: Vectors) -> Vectors:
        usual = local_mean(assets, of_queries, min(neighbours, len(of_queries)))
        return comparable(
            queries @ assets.T,
            local_mean(queries, of_assets, min(neighbours, len(of_assets))),
            np.broadcast_to(usual, (len(queries), len(assets))),
        )

    return score


def by_pair_mean(queries: Vectors, assets: Vectors, of_queries: Vectors, of_assets: Vectors) -> Vectors:
    """Less the mean cosine of the two modalities."""
    scores: Vectors = queries @ assets.T - _others(of_queries, of_assets).mean()
    return scores


def by_pair_z(queries: Vectors, assets: Vectors, of_queries: Vectors, of_assets: Vectors) -> Vectors:
    """In standard deviations from the mean cosine of the two modalities."""
    others = _others(of_queries, of_assets)
    scores: Vectors = (queries @ assets.T - others.mean()) / max(float(others.std()), _TIE)
    return scores


def by_query_z(queries: Vectors, assets: Vectors, of_queries: Vectors, of_assets: Vectors) -> Vectors:
    """In standard deviations from the query's mean cosine with the assets' modality."""
    others = queries @ of_assets.T
    deviations = np.maximum(others.std(axis=1, keepdims=True), _TIE)
    scores: Vectors = (queries @ assets.T - others.mean(axis=1, keepdims=True)) / deviations
    return scores


def by_quantile(queries: Vectors, assets: Vectors, of_queries: Vectors, of_assets: Vectors) -> Vectors:
    """The share of a sample of the assets' modality that the query is less near to; above all of it, by how much."""
    others = np.sort(queries @ of_assets.T, axis=1)
    cosines = queries @ assets.T
    places = np.stack([np.searchsorted(line, scores) for line, scores in zip(others, cosines, strict=True)])
    scores: Vectors = (places / others.shape[1] + np.maximum(cosines - others[:, -1:], 0)).astype(np.float32)
    return scores


def inverted_softmax(queries: Vectors, assets: Vectors, of_queries: Vectors, of_assets: Vectors) -> Vectors:
    """The softmax over a sample of queries instead of over assets (Smith et al. 2017), as its logarithm."""
    return queries @ assets.T * _TEMPERATURE - _log_mean_exp(assets @ of_queries.T)


def dual_softmax(queries: Vectors, assets: Vectors, of_queries: Vectors, of_assets: Vectors) -> Vectors:
    """Both softmaxes multiplied, over samples of both."""
    one_way = inverted_softmax(queries, assets, of_queries, of_assets)
    scores: Vectors = one_way + queries @ assets.T * _TEMPERATURE - _log_mean_exp(queries @ of_assets.T)[:, None]
    return scores


def _log_mean_exp(cosines: Vectors) -> Vectors:
    means: Vectors = np.log(np.exp(_TEMPERATURE * cosines).mean(axis=1))
    return means


def _others(one: Vectors, other: Vectors) -> Vectors:
    """All cosines of two samples, none with itself."""
    cosines = one @ other.T
    return cosines[~np.eye(len(one), dtype=np.bool_)] if one is other and len(one) > 1 else cosines


def as_is(images: Vectors, captions: Vectors) -> Maps:
    """Leave the vectors as they are."""
    return _unit, _unit


def centred(images: Vectors, captions: Vectors) -> Maps:
    """Take each modality's mean away."""
    return _linear(images), _linear(captions)


def aligned(images: Vectors, captions: Vectors) -> Maps:
    """Production's alignment: both to the barycentre of their covariances."""
    found = align({IMAGE: images, TEXT: captions})
    return found[IMAGE].apply, found[TEXT].apply


def standardised(images: Vectors, captions: Vectors) -> Maps:
    """Take the mean away and divide every dimension by its deviation."""
    one, other = (_linear(sample, np.diag(1 / np.maximum(sample.std(axis=0), _TIE))) for sample in (images, captions))
    return one, other


def whitened(images: Vectors, captions: Vectors) -> Maps:
    """Whiten each modality by its own covariance."""
    return _linear(images, _power(_covariance(images), -0.5)), _linear(captions, _power(_covariance(captions), -0.5))


def whitened_together(images: Vectors, captions: Vectors) -> Maps:
    """Whiten both by the mean of their covariances."""
    white = _power((_covariance(images) + _covariance(captions)) / 2, -0.5)
    return _linear(images, white), _linear(captions, white)


def shared_subspace(images: Vectors, captions: Vectors) -> Maps:
    """Keep the dimensions in which both vary: the first axes of the geometric mean of their covariances."""
    axes = _shared(images, captions)[1]
    return _linear(images, axes), _linear(captions, axes)


def shared_whitened(images: Vectors, captions: Vectors) -> Maps:
    """The same, whitened."""
    values, axes = _shared(images, captions)
    return _linear(images, axes / np.sqrt(values)), _linear(captions, axes / np.sqrt(values))


def coral(images: Vectors, captions: Vectors) -> Maps:
    """Whiten the captions and give them the images' covariance (Sun et al. 2016)."""
    recoloured = _power(_covariance(captions), -0.5) @ _power(_covariance(images), 0.5)
    return _linear(images), _linear(captions, recoloured)


def all_but_the_top(images: Vectors, captions: Vectors) -> Maps:
    """Take the mean and the first principal directions of each modality away (Mu, Viswanath 2018)."""
    maps = []
    for sample in (images, captions):
        top = np.linalg.svd(sample - sample.mean(axis=0), full_matrices=False)[2][:_TOP]
        maps.append(_linear(sample, np.eye(sample.shape[1]) - top.T @ top))
    return maps[0], maps[1]


def procrustes(images: Vectors, captions: Vectors) -> Maps:
    """Turn the captions so that they are nearest to their images."""
    left, _, right = np.linalg.svd(_centre(captions).T @ _centre(images))
    return _linear(images), _linear(captions, left @ right)


def ridge(images: Vectors, captions: Vectors) -> Maps:
    """Predict the images from the captions, linearly; shrunk as the captions' covariance is."""
    cross = _centre(captions).T @ _centre(images) / len(images)
    return _linear(images), _linear(captions, np.linalg.pinv(_covariance(captions), hermitian=True) @ cross)


def cca(images: Vectors, captions: Vectors) -> Maps:
    """Canonical correlations, each axis weighted by its own."""
    white = _power(_covariance(images), -0.5), _power(_covariance(captions), -0.5)
    cross = _centre(images).T @ _centre(captions) / len(images)
    left, correlations, right = np.linalg.svd(white[0] @ cross @ white[1])
    return _linear(images, white[0] @ left * correlations), _linear(captions, white[1] @ right.T * correlations)


def _unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    units: Vectors = (vectors / lengths).astype(np.float32)
    return units


def _linear(sample: Vectors, matrix: Matrix | None = None) -> Map:
    mean = sample.mean(axis=0)
    return lambda vectors: _unit(vectors - mean if matrix is None else (vectors - mean) @ matrix)


def _centre(sample: Vectors) -> Matrix:
    centre: Matrix = sample.astype(np.float64) - sample.mean(axis=0, dtype=np.float64)
    return centre


def _covariance(sample: Vectors) -> Matrix:
    shrunk: Matrix = oas(sample.astype(np.float64))[0]
    return shrunk


def _power(matrix: Matrix, exponent: float) -> Matrix:
    values, axes = np.linalg.eigh(matrix)
    least = max(_TIE * values[-1], np.finfo(np.float32).tiny)  # where nothing varies
    power: Matrix = (axes * np.maximum(values, least) ** exponent) @ axes.T
    return power


def _shared(images: Vectors, captions: Vectors) -> tuple[Matrix, Matrix]:
    """The greatest eigenvalues (k,) and their axes (d, k) of the geometric mean of both covariances."""
    one, other = _covariance(images), _covariance(captions)
    root, inverse = _power(one, 0.5), _power(one, -0.5)
    values, axes = np.linalg.eigh(root @ _power(inverse @ other @ inverse, 0.5) @ root)
    return values[-_SHARED:], axes[:, -_SHARED:]


WAYS: Mapping[str, Way] = {
    "as it is": Way(as_is, cosine, True),
    "centred": Way(centred, cosine, True),
    "standardised": Way(standardised, cosine, True),
    "whitened, each": Way(whitened, cosine, True),
    "whitened, together": Way(whitened_together, cosine, True),
    "shared subspace": Way(shared_subspace, cosine, True),
    "shared subspace, whitened": Way(shared_whitened, cosine, True),
    "all but the top": Way(all_but_the_top, cosine, True),
    "CORAL": Way(coral, cosine, True),
    "aligned": Way(aligned, cosine, True),
    "mean of modality pair": Way(as_is, by_pair_mean, False),
    "z-score of modality pair": Way(as_is, by_pair_z, False),
    "z-score of query": Way(as_is, by_query_z, False),
    "quantile of query": Way(as_is, by_quantile, False),
    "inverted softmax": Way(centred, inverted_softmax, False),
    "dual softmax": Way(centred, dual_softmax, False),
    "calibrated": Way(as_is, calibrated(NEIGHBOURS), False),
    "calibrated, 3 neighbours": Way(as_is, calibrated(3), False),
    f"calibrated, {STREAM} neighbours": Way(as_is, calibrated(STREAM), False),
    "centred and calibrated": Way(centred, calibrated(NEIGHBOURS), False),
    "aligned and calibrated": Way(aligned, calibrated(NEIGHBOURS), False),
    "Procrustes": Way(procrustes, cosine, True, paired=True),
    "ridge": Way(ridge, cosine, True, paired=True),
    "CCA": Way(cca, cosine, True, paired=True),
}
"""By name, in the order of the tables; production's are `aligned` and `calibrated, 10 neighbours`."""


def mean_shares(several: Sequence[Directions]) -> Directions:
    """Means over several draws."""
    return {name: {str(k): float(np.mean([one[name][str(k)] for one in several])) for k in KS} for name in several[0]}
