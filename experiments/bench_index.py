"""The index against its floors: numpy over one contiguous matrix, in the same run.

    python -m experiments.bench_index [--n 1000000] [--json FILE]

"gemv" is numpy's `X @ q` and "gemm" its `Q @ X.T`, both without any selection of the best. Times move with the
machine's load; ratios are of medians of runs that alternate, and the lowest and highest single ratio is given too.
Set OMP_NUM_THREADS and OPENBLAS_NUM_THREADS alike (1 by default here) to compare like with like. With a million
vectors it takes 7 GB: the matrix of the floor, the index, and the one that is restored.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read by the libraries below when they are loaded
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from zccr_stream.events import IMAGE, Embeddings  # noqa: E402
from zccr_stream.index import LiveIndex  # noqa: E402
from zccr_stream.settings import Settings  # noqa: E402

BATCH = 64
CLUSTERS = 2_000
Report = dict[str, Any]
Floats = npt.NDArray[np.float32]


def main() -> None:
    """Run all parts, print a line per number, and write them all as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200_000, help="vectors in the index")
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7, help="runs of each search and its floor")
    parser.add_argument("--seconds", type=float, default=10, help="of searching, idle and beside a writer each")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    report: Report = {"n": options.n, "d": options.dimension, "k": options.k, "machine": machine()}
    print(f"{options.n:,} vectors of {options.dimension}, k = {options.k}; {report['machine']}")

    world = World(options.n, options.dimension)
    report["memory"] = fill(world)
    report["search"] = search(world, options.k, options.repeats)
    report["own"] = own(world, options.k, options.repeats)
    report["lookup"] = lookup(world, options.repeats)
    report["beside a writer"] = beside_a_writer(world, options.k, options.seconds)
    report["write"] = write(world)
    report["snapshot"] = snapshot(world)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


class World:
    """Anisotropic clusters of unit vectors that float16 holds exactly, and an index of them."""

    def __init__(self, n: int, d: int) -> None:
        self.rng = np.random.default_rng(0)
        self.n = n
        self.scale = np.linspace(1.5, 0.3, d, dtype=np.float32)
        self.centres = self.rng.standard_normal((CLUSTERS, d), dtype=np.float32) * self.scale
        self.matrix = np.empty((n, d), np.float32)
        for start in range(0, n, 20_000):
            block = self.matrix[start : start + 20_000]
            block[:] = self.vectors(len(block))
        self.owners = self.rng.integers(0, max(1, n // 50), n)
        settings = Settings()
        self.index = LiveIndex(d, settings.index_segment_rows, settings.index_dead_share_max)
        self.revision = 0

    def vectors(self, n: int) -> npt.NDArray[np.float16]:
        """(n, d) unit vectors."""
        rows = self.centres[self.rng.integers(0, CLUSTERS, n)]
        rows = rows + 0.6 * self.scale * self.rng.standard_normal(rows.shape, dtype=np.float32)
        return unit(rows).astype(np.float16)

    def embeddings(self, asset_ids: Sequence[str], user_ids: Sequence[str], vectors: Any = None) -> Embeddings:
        """A batch newer than all before it; removals where there are no vectors."""
        n = len(asset_ids)
        self.revision += 1
        return Embeddings(
            model="bench",
            asset_ids=asset_ids,
            user_ids=user_ids,
            modalities=[IMAGE] * n,
            revisions=np.full(n, self.revision, np.int64),
            occurred_at_ns=np.zeros(n, np.int64),
            vectors=np.zeros((n, self.matrix.shape[1]), np.float16) if vectors is None else vectors,
            live=np.full(n, vectors is not None),
        )

    def seeds(self, s: int) -> Floats:
        """(s, d) unit vectors near some assets."""
        rows = self.matrix[self.rng.integers(0, self.n, s)]
        noise = self.scale * self.rng.standard_normal(rows.shape, dtype=np.float32) / 160
        return unit(rows + noise)


def fill(world: World) -> Report:
    """Apply everything in batches of the size that a rebuild from the topic uses, and weigh it."""
    gc.collect()
    before, started = resident_bytes(), time.perf_counter()
    for start in range(0, world.n, 4096):
        rows = range(start, min(world.n, start + 4096))
        names, users = [asset(row) for row in rows], [user(world.owners[row]) for row in rows]
        world.index.apply(world.embeddings(names, users, world.matrix[start : start + 4096].astype(np.float16)))
    took_s = time.perf_counter() - started
    per_asset = (resident_bytes() - before) / world.n
    vector = 4 * world.matrix.shape[1]
    print(f"memory      {per_asset:,.0f} bytes an asset, {vector:,} of them its vector in float32")
    print(f"fill        {world.n / took_s:,.0f} rows/s, batches of 4,096")
    return {"bytes_per_asset": per_asset, "vector_bytes": vector, "fill_rows_per_s": world.n / took_s}


def search(world: World, k: int, repeats: int) -> Report:
    """Seeds of as many users as seeds, each with about 50 own assets."""
    report: Report = {}
    for s in (1, 2, 4, 16, 64, 256):
        seeds = world.seeds(s)
        users = [user(row) for row in range(s)]
        result = compare(world, seeds, users, k, repeats)
        print(f"search {s:>4} {describe(result, 'gemv' if s == 1 else 'gemm')}")
        report[str(s)] = result
    return report


def own(world: World, k: int, repeats: int) -> Report:
    """One user with more and more own assets, all nearer to the seeds than anything else, spread over the index."""
    report: Report = {}
    spread = world.rng.permutation(world.n)
    for count in (0, 10, 100, 1_000, 10_000, 100_000):
        if count > world.n // 2:
            continue
        names = [asset(row) for row in spread[:count].tolist()]
        centre = world.seeds(1)
        near = centre + world.scale * world.rng.standard_normal((count, centre.shape[1]), dtype=np.float32) / 400
        near = unit(near).astype(np.float16)
        for start in range(0, count, 4096):
            span = slice(start, start + 4096)
            world.index.apply(world.embeddings(names[span], ["heavy"] * len(names[span]), near[span]))
        for s in (1, 64):
            seeds = np.repeat(centre, s, axis=0)
            mixed = ["heavy"] * max(1, s // 4) + [user(row) for row in range(s - max(1, s // 4))]
            result = compare(world, seeds, mixed, k, repeats)
            print(f"own {count:>7,}, {s:>2} seeds {describe(result, 'gemv' if s == 1 else 'gemm')}")
            report[f"{count}/{s}"] = result
    return report


def lookup(world: World, repeats: int) -> Report:
    """The vectors of a profile of 1,000 assets."""
    names = [asset(row) for row in world.rng.integers(0, world.n, 1000).tolist()]
    revisions = np.ones(1000, np.int64)
    took = [timed(lambda: world.index.vectors(names, revisions)) for _ in range(repeats)]
    print(f"vectors     {1e3 * float(np.median(took)):.2f} ms for 1,000 assets")
    return {"vectors_1000_ms": 1e3 * float(np.median(took))}


def beside_a_writer(world: World, k: int, seconds: float) -> Report:
    """Single searches: alone, and while a thread applies batches of 64, at 100 batches a second and without pause."""
    seeds = world.seeds(64)
    report: Report = {}
    for name, pause_s in (("alone", None), ("100 batches/s", 0.01), ("no pause", 0.0)):
        stop, batches = threading.Event(), [0]
        thread = threading.Thread(target=_keep_writing, args=(world, stop, batches, pause_s))
        if pause_s is not None:
            thread.start()
        took: list[float] = []
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            started, row = time.perf_counter(), len(took) % 64
            world.index.search(IMAGE, seeds[row : row + 1], [user(row)], k)
            took.append(time.perf_counter() - started)
        stop.set()
        if pause_s is not None:
            thread.join()
        p50, p99, worst = (1e3 * float(value) for value in (*np.percentile(took, (50, 99)), max(took)))
        print(
            f"searching   {name}: p50 {p50:.1f} ms, p99 {p99:.1f}, worst {worst:.1f}; {batches[0] * BATCH} rows written"
        )
        report[name] = {"p50_ms": p50, "p99_ms": p99, "worst_ms": worst, "rows_written": batches[0] * BATCH}
    return report


def _keep_writing(world: World, stop: threading.Event, batches: list[int], pause_s: float) -> None:
    rng = np.random.default_rng(3)
    vectors = world.matrix[:BATCH].astype(np.float16)
    while not stop.wait(pause_s):
        names = [asset(row) for row in rng.integers(0, world.n, BATCH).tolist()]
        world.index.apply(world.embeddings(names, ["w"] * BATCH, vectors))
        batches[0] += 1


def write(world: World) -> Report:
    """Batches of 64 new and 64 replaced assets, with whatever growth and compaction they cause, and removals."""
    report: Report = {}
    vectors = world.vectors(BATCH)
    new = [[f"new-{batch}-{row}" for row in range(BATCH)] for batch in range(600)]
    old = [[asset(row) for row in world.rng.integers(0, world.n, BATCH).tolist()] for _ in range(600)]
    for name, batches in (("new", new), ("replaced", old)):
        took = [apply_ms(world, world.embeddings(names, ["w"] * BATCH, vectors)) for names in batches]
        print(f"apply 64    {name}: mean {np.mean(took):.3f} ms, worst {max(took):.1f}, of {len(took)} batches")
        report[name] = {"mean_ms": float(np.mean(took)), "worst_ms": max(took)}
    for count in (1, 100, 10_000):
        names = [asset(row) for row in world.rng.choice(world.n, min(count, world.n), replace=False).tolist()]
        report[f"remove {count}"] = apply_ms(world, world.embeddings(names, [""] * len(names)))
        print(f"remove      {count:,}: {report[f'remove {count}']:.3f} ms")
    return report


def apply_ms(world: World, batch: Embeddings) -> float:
    """Milliseconds that a batch takes."""
    return 1e3 * timed(lambda: world.index.apply(batch))


def snapshot(world: World) -> Report:
    """Write and restore, and the memory that writing takes on top."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.snapshot"
        before = resident_bytes()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        saving_s = timed(lambda: world.index.snapshot(path, {0: 1}, "bench", 0.0))
        extra = peak_bytes() - before
        size = path.stat().st_size
        settings = Settings()
        other = LiveIndex(world.matrix.shape[1], settings.index_segment_rows, settings.index_dead_share_max)
        restoring_s = timed(lambda: other.restore(path, "bench"))
    mb = size / 2**20
    print(
        f"snapshot    {mb:,.0f} MB: written in {saving_s:.2f} s (peak {extra / 2**20:.0f} MB more), restored in",
        end=" ",
    )
    print(f"{restoring_s:.2f} s")
    return {"bytes": size, "write_s": saving_s, "restore_s": restoring_s, "write_peak_bytes": extra}


def floor(matrix: Floats, seeds: Floats) -> Floats:
    """All inner products, and nothing else."""
    products: Floats = matrix @ seeds[0] if len(seeds) == 1 else seeds @ matrix.T
    return products


def unit(rows: npt.NDArray[np.floating]) -> Floats:
    """The same directions, each of length 1."""
    directions: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return directions


def compare(world: World, seeds: Floats, users: Sequence[str], k: int, repeats: int) -> Report:
    """Medians of a search and its floor in turn, and the range of the ratios of neighbours."""

    def once() -> tuple[float, float]:
        ours = timed(lambda: world.index.search(IMAGE, seeds, users, k))
        return ours, timed(lambda: floor(world.matrix, seeds))

    once()
    pairs = np.array([once() for _ in range(repeats)])
    each = pairs[:, 0] / pairs[:, 1]
    middle = np.median(pairs, axis=0)
    return {
        "ms": 1e3 * float(middle[0]),
        "floor_ms": 1e3 * float(middle[1]),
        "ratio": float(middle[0] / middle[1]),
        "lowest": float(each.min()),
        "highest": float(each.max()),
    }


def describe(result: Report, floor_name: str) -> str:
    """One result as text."""
    return (
        f"{result['ms']:8.1f} ms, {result['ratio']:.2f} x {floor_name}"
        f" ({result['lowest']:.2f} to {result['highest']:.2f}; {floor_name} {result['floor_ms']:.1f} ms)"
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """The most memory of this process since that was last forgotten."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def machine() -> str:
    """What the numbers depend on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{platform.machine()}, {os.cpu_count()} cores, {os.environ['OMP_NUM_THREADS']} thread, load {load}"


def asset(row: int) -> str:
    """An id of the length of a UUID."""
    return f"asset-{row:030}"


def user(row: int) -> str:
    """A user's id."""
    return f"user-{row}"


if __name__ == "__main__":
    main()
