"""Finding a profile's areas and ranking for them, against the floor of clustering by Ward, in the same run.

    python -m experiments.bench_interests [--sizes 10 100 1000 5000 100000] [--json FILE]

The floor is all distances by one matrix product and scipy's Ward, without PCA, cut, seeds or medoids; above the sample
size that of the sample, and one product of all vectors with the areas' centroids. Runs of both take turns. Times are
medians of the one thread's CPU time, which a busy machine distorts less than the clock on the wall.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read by the libraries below when they are loaded
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
from scipy.cluster.hierarchy import linkage  # noqa: E402
from scipy.spatial.distance import squareform  # noqa: E402

from zccr_stream.assemble import area_rule, ranking_rule  # noqa: E402
from zccr_stream.events import IMAGE, MODALITIES  # noqa: E402
from zccr_stream.interests import Area, Profile, find_areas  # noqa: E402
from zccr_stream.ranking import Hits, rank  # noqa: E402
from zccr_stream.settings import Settings  # noqa: E402

USERS = 64
AREAS = 10

Floats = npt.NDArray[np.float32]
Row = dict[str, float]


def main() -> None:
    """Print a line per profile size and one for ranking."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1_000, 5_000, 100_000])
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    settings = Settings()
    clustering = [clustered(n, options.dimension, settings) for n in options.sizes]
    print(f"{'assets':>8}{'areas':>7}{'ms':>10}{'floor ms':>10}{'ratio':>8}")
    for row in clustering:
        print(
            f"{row['assets']:>8.0f}{row['areas']:>7.0f}{row['ms']:>10.2f}{row['floor_ms']:>10.2f}{row['ratio']:>8.2f}"
        )
    user_ms = ranked_ms(options.dimension, settings) / USERS
    print(f"ranking: {user_ms:.2f} ms a user ({USERS} users, {AREAS} areas, {len(MODALITIES)} modalities)")
    if options.json:
        options.json.write_text(json.dumps({"areas": clustering, "ranking_ms": user_ms}, indent=1))


def clustered(n: int, dimension: int, settings: Settings) -> Row:
    """A profile of n images of up to ten areas."""
    rule = area_rule(settings, {})
    vectors = mixture(n, max(1, min(AREAS, n // 5)), dimension)
    profile = Profile("user", 1, [f"asset-{row}" for row in range(n)], [IMAGE] * n, np.arange(n), vectors)
    areas = find_areas(profile, rule)
    ours_ms, floor_ms = alternating_ms(
        31 if n <= 1_000 else 7,
        partial(find_areas, profile, rule),
        partial(ward_alone, vectors, np.stack([area.seed for area in areas]), rule.sample_size),
    )
    return {"assets": n, "areas": len(areas), "ms": ours_ms, "floor_ms": floor_ms, "ratio": ours_ms / floor_ms}


def ward_alone(vectors: Floats, centroids: Floats, sample_size: int) -> None:
    """The floor."""
    sample = vectors[:sample_size]
    squares = 2 - 2 * (sample @ sample.T)
    np.fill_diagonal(squares, 0)
    linkage(np.sqrt(np.maximum(squareform(squares, checks=False), 0)), method="ward")
    if len(vectors) > sample_size:
        np.argmax(vectors @ centroids.T, axis=1)


def ranked_ms(dimension: int, settings: Settings) -> float:
    """Ranking of a batch of users, each seed having found others' assets of its own."""
    rule = ranking_rule(settings)
    random = np.random.default_rng(0)
    found = USERS * AREAS * rule.k
    hits = {
        modality: Hits(
            scores=-np.sort(-random.random((USERS * AREAS, rule.k), dtype=np.float32), axis=1),
            rows=random.permutation(found).reshape(USERS * AREAS, rule.k),
            asset_ids=[f"{modality}-{row}" for row in range(found)],
            user_ids=[f"owner-{row % 997}" for row in range(found)],
            vectors=mixture(found, found, dimension),
        )
        for modality in MODALITIES
    }
    areas = [
        Area(f"area-{number}", modality, 1 / AREAS, np.arange(10), 0, np.zeros(dimension, np.float32), (modality,))
        for number, modality in enumerate(itertools.islice(itertools.cycle(MODALITIES), AREAS))
    ]
    profiles = [
        Profile(
            f"user-{user}",
            1,
            [f"own-{user}-{row}" for row in range(100)],
            [IMAGE] * 100,
            np.arange(100),
            hits[IMAGE].vectors[:100],
        )
        for user in range(USERS)
    ]

    def rank_all() -> None:
        for user, profile in enumerate(profiles):
            lines = slice(user * AREAS, (user + 1) * AREAS)
            rank(profile, areas, {modality: hits[modality].lines(lines) for modality in hits}, rule, "model", 0)

    return alternating_ms(7, rank_all)[0]


def mixture(n: int, areas: int, dimension: int) -> Floats:
    """(n, dimension) unit vectors around `areas` directions."""
    random = np.random.default_rng(n)
    centres = random.standard_normal((areas, dimension), dtype=np.float32) / dimension**0.5
    vectors = centres[random.integers(areas, size=n)]
    vectors += 0.6 * random.standard_normal((n, dimension), dtype=np.float32) / dimension**0.5
    units: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def alternating_ms(repeats: int, *works: Callable[[], object]) -> Sequence[float]:
    """Median CPU times of works that take turns."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, of_work in zip(works, times, strict=True):
            start = time.thread_time()
            work()
            of_work.append(1e3 * (time.thread_time() - start))
    return [statistics.median(of_work) for of_work in times]


if __name__ == "__main__":
    main()
