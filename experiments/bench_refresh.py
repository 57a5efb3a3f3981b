"""A refresh and an exact search against their floors, in the same run.

    python -m experiments.bench_refresh [--vectors 1000000] [--sizes 10 100 1000] [--json FILE]

A refresh is what the recommend consumer does for one user: read the profile from PostgreSQL, find its areas, search
both indexes, rank, publish to Kafka. Its floor is what no such system can leave out, by numpy and scipy: all distances
within the profile and Ward's tree of them, and one product of the areas' seeds with all vectors of the index. "gemv"
and "gemm" are such products for the seeds of a search alone. One thread. Takes the servers that the settings name,
else embedded ones. A million vectors take 5 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from pathlib import Path

# These two first: they say how many threads the libraries below take when they are loaded.
from experiments.bench_index import Report, World, compare, describe, fill, floor, machine, timed, user
from experiments.bench_interests import mixture, ward_alone
from experiments.bench_ownership import empty_database
from experiments.journey import servers

# isort: split
import numpy as np
import numpy.typing as npt
from rich.console import Console

from zccr_stream import assemble
from zccr_stream.encoders import dimension_of
from zccr_stream.events import IMAGE, AssetUploaded
from zccr_stream.interests import find_areas
from zccr_stream.ownership import PostgresOwnership
from zccr_stream.parts import Writes
from zccr_stream.settings import Settings

AREAS = 10
SEARCHES = (1, 16, 64)


def main() -> None:
    """Print a line per profile size and per search, and write all numbers as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000, help="in the index of images")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1_000], help="assets of the profiles")
    parser.add_argument("--repeats", type=int, default=15, help="runs of each and its floor")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    settings = Settings()
    world = World(options.vectors, dimension_of(settings.encoder))
    fill(world)
    print(f"{options.vectors:,} vectors of {world.matrix.shape[1]}, k = {settings.k}; {machine()}")
    report: Report = {"vectors": options.vectors, "machine": machine(), "refresh": {}, "search": {}}
    with contextlib.ExitStack() as stack:
        os.environ.update(stack.enter_context(servers(Console())))
        database_url = stack.enter_context(empty_database())
        prefix = f"bench-{os.urandom(4).hex()}-"
        installed = Settings(database_url=database_url, topic_prefix=prefix)
        assemble.migrate(installed)
        assemble.ensure_topics(installed)
        for n in options.sizes:
            report["refresh"][str(n)] = refresh(world, installed, n, options.repeats)
    for s in SEARCHES:
        result = compare(world, world.seeds(s), [user(row) for row in range(s)], settings.k, options.repeats)
        print(f"search, {s:>3} seeds  {describe(result, 'gemv' if s == 1 else 'gemm')}")
        report["search"][str(s)] = result
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def refresh(world: World, settings: Settings, n: int, repeats: int) -> Report:
    """One user with n images, up to ten areas; the refresh and its floor take turns."""
    truth, publisher = assemble.ownership(settings), assemble.publisher(settings)
    user_id, vectors = f"profile-{n}", mixture(n, max(1, min(AREAS, n // 5)), world.matrix.shape[1])
    own(world, truth, settings, user_id, vectors.astype(np.float16))
    (profile,) = truth.profiles([user_id], world.index)
    seeds = np.stack(
        [area.seed for area in find_areas(profile, assemble.area_rule(settings, world.index.catalogues()))]
    )
    whole = assemble.refresh(settings, truth, world.index, publisher)

    def least() -> None:
        ward_alone(profile.vectors, seeds, settings.area_sample_size)
        floor(world.matrix, seeds)

    whole.refresh([user_id])
    pairs = np.array([(timed(lambda: whole.refresh([user_id])), timed(least)) for _ in range(repeats)])
    publisher.close(5)
    truth.close()
    ours_ms, floor_ms = (1e3 * float(value) for value in np.median(pairs, axis=0))
    each = pairs[:, 0] / pairs[:, 1]
    print(
        f"refresh, {n:>5,} assets, {len(seeds):>3} areas  {ours_ms:8.1f} ms, {ours_ms / floor_ms:.2f} x Ward and gemm"
        f" ({each.min():.2f} to {each.max():.2f}; Ward and gemm {floor_ms:.1f} ms)"
    )
    return {"areas": len(seeds), "ms": ours_ms, "floor_ms": floor_ms, "ratio": ours_ms / floor_ms}


def own(
    world: World, truth: PostgresOwnership, settings: Settings, user_id: str, vectors: npt.NDArray[np.float16]
) -> None:
    """Write a user's images to the truth and bring the index to what is announced of them."""
    events = [
        AssetUploaded(f"{user_id}/{row}", 1, 0, f"{user_id}/{row}", user_id, IMAGE, uri="data:,")
        for row in range(len(vectors))
    ]
    touched = truth.write(Writes(assemble.model(settings), events, vectors))
    with truth.announcing(touched.asset_ids, touched.user_ids) as announcement:
        world.index.apply(announcement.embeddings)


if __name__ == "__main__":
    main()
