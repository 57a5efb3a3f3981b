"""What a search costs, and that exact searches find the same (paper, sections 3.3 and 5.1, Tables 1, 5, 6 and 7).

    python -m experiments searches --data DIR [--encoder NAME] [--size N] [--json FILE]

  Table 1  one index of `--size` assets against two of half of them, each searched for the k = 1,000 nearest: mean and
           deviation over `--queries`, one query at a time, one index and two in turn, and Welch's t-test.
           Synthetic unit vectors, 512 long. The paper's million on a GPU takes 7 GB here: `--size 1000000`.
  Table 5  milliseconds to encode one text or picture, alone and in batches of 64, fetched and decoded before; only of
           pictures with captions, as embeddings are there already.
  Table 6  5,000 assets, all of them ranked (k = 5,000): a cosine a row in a Python loop, which comes nearest to the
           paper's 129 ms for vanilla search; numpy's product and a sort; FAISS's flat index; production's, which also
           leaves out the user's own and rounds scores so that replicas agree.
  Table 7  Recall@k of the pairs by numpy's cosines, by FAISS and by production's index. All three are exact, so that
           differences can only come from ties and from float16, in which production keeps vectors. The paper's FAISS
           loses .2 %.
Times are of this machine and move with its load: compare the rows of one run, not these with the paper's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress
from scipy.stats import ttest_ind

from experiments import encoding
from experiments.datasets import Items
from experiments.grid import at_least
from experiments.outcome import Outcome
from experiments.tables import markdown, share
from experiments.timing import milliseconds, spread
from zccr_stream.events import IMAGE, TEXT, Embeddings
from zccr_stream.index import LiveIndex
from zccr_stream.measures import Vectors
from zccr_stream.settings import Settings

SIZE = 200_000
QUERIES = 200
REPEATS = 20
K = 1000
DIMENSIONS = (512, 256)
ASSETS = 5000
KS = (1, 5, 10)
SEED = 0

TABLE_1 = {"one index": (13.811, 0.340), "two of half the size": (14.490, 0.433)}
"""The paper's milliseconds, mean and deviation, of a million assets on an RTX 2080 Ti."""
TABLE_6 = {(512, "a cosine a row"): 129.31, (512, "FAISS flat"): 0.72, (256, "FAISS flat"): 0.56}
TABLE_7 = {
    "CLIP, vanilla cosine": ((0.514, 0.818, 0.906), (0.529, 0.806, 0.889)),
    "CLIP, FAISS": ((0.513, 0.816, 0.904), (0.528, 0.805, 0.888)),
    "ALBEF, vanilla cosine": ((0.670, 0.931, 0.971), (0.692, 0.920, 0.971)),
    "ALBEF, FAISS": ((0.668, 0.929, 0.969), (0.691, 0.918, 0.969)),
}

Rows = npt.NDArray[np.int64]
Search = Callable[[Vectors], Rows]
"""A query (1, d) -> the rows of the nearest (1, k), best first."""
Report = dict[str, Any]


def add_options(command: argparse.ArgumentParser) -> None:
    """Add how much is searched, and how often."""
    for name, kind, default, help_ in (
        ("size", at_least(2), SIZE, "assets of Table 1"),
        ("queries", at_least(2), QUERIES, "queries of Table 1"),
        ("repeats", at_least(1), REPEATS, "searches of Table 6 and encodings of Table 5"),
    ):
        command.add_argument(
            f"--{name}", type=kind, default=default, metavar="N", help=f"{help_}; by default %(default)s"
        )


def measure(items: Items, options: argparse.Namespace) -> Outcome:
    """Measure all four tables, Table 5 only where there are pictures."""
    with Progress(console=Console(stderr=True), transient=True) as progress:
        steps = progress.add_task("searching", total=4)
        report: Report = {"table_1": _one_against_two(options.size, options.queries)}
        progress.advance(steps)
        report["table_6"] = {str(d): _of_all(d, options.repeats) for d in DIMENSIONS}
        progress.advance(steps)
        report["table_7"] = _recalls(items)
        progress.advance(steps)
        report["table_5"] = encoding.measure(items, options, options.repeats)
    texts = [
        f"Table 1: {options.size:,} assets, k = {min(K, options.size // 2):,}, {options.queries} queries",
        _table_1(report["table_1"]),
        f"Table 6: {ASSETS:,} assets, k = {ASSETS:,}",
        _table_6(report["table_6"]),
        f"Table 7: {items.space}, {len(items):,} pairs",
        _table_7(report["table_7"]),
    ]
    if report["table_5"]:
        texts += [f"Table 5: {items.space}, milliseconds an item", encoding.table(report["table_5"])]
    return Outcome(report, "\n\n".join(texts))


def synthetic(n: int, d: int) -> Vectors:
    """(n, d) random unit vectors that float16 holds exactly, near enough to unit length."""
    vectors = np.random.default_rng([SEED, n, d]).standard_normal((n, d), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16).astype(np.float32)


def live_index(vectors: Vectors, modalities: Sequence[str]) -> LiveIndex:
    """Production's index of these vectors, dealt out to modalities in equal parts in order; ids are the rows."""
    settings = Settings()
    n = len(vectors)
    index = LiveIndex(vectors.shape[1], settings.index_segment_rows, settings.index_dead_share_max)
    size = -(-n // len(modalities))
    index.apply(
        Embeddings(
            "",
            [str(row) for row in range(n)],
            ["others"] * n,
            [modalities[row // size] for row in range(n)],
            np.ones(n, np.int64),
            np.zeros(n, np.int64),
            vectors.astype(np.float16),
            np.ones(n, np.bool_),
        )
    )
    return index


def _one_against_two(size: int, queries: int) -> Report:
    vectors = synthetic(size, DIMENSIONS[0])
    seeds = _unit(np.random.default_rng(SEED).standard_normal((queries, vectors.shape[1]), dtype=np.float32))
    k = min(K, size // 2)
    return {"production": _production_in_turn(vectors, seeds, k), "FAISS flat": _faiss_in_turn(vectors, seeds, k)}


def _production_in_turn(vectors: Vectors, seeds: Vectors, k: int) -> Report:
    one, two = live_index(vectors, [IMAGE]), live_index(vectors, [IMAGE, TEXT])
    return _in_turn(
        lambda seed: one.search(IMAGE, seed, ["user"], k),
        lambda seed: [two.search(modality, seed, ["user"], k) for modality in (IMAGE, TEXT)],
        seeds,
    )


def _faiss_in_turn(vectors: Vectors, seeds: Vectors, k: int) -> Report:
    half = len(vectors) // 2
    one, two = _flat(vectors), (_flat(vectors[:half]), _flat(vectors[half:]))
    return _in_turn(lambda seed: one.search(seed, k), lambda seed: [part.search(seed, k) for part in two], seeds)


def _in_turn(one: Callable[[Vectors], object], two: Callable[[Vectors], object], seeds: Vectors) -> Report:
    """Milliseconds of both, query by query; the first of each is not counted."""
    ways = dict(zip(TABLE_1, (one, two), strict=True))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in (0, *range(len(seeds))):
        for name, search in ways.items():
            times[name].append(milliseconds(search, seeds[number : number + 1]))
    counted = {name: taken[1:] for name, taken in times.items()}
    report: Report = {name: spread(taken) for name, taken in counted.items()}
    report["p_value"] = float(ttest_ind(*counted.values(), equal_var=False).pvalue)
    return report


def _of_all(d: int, repeats: int) -> Report:
    """Milliseconds by way of ranking all assets."""
    vectors = synthetic(ASSETS, d)
    seeds = _unit(np.random.default_rng(SEED).standard_normal((repeats, d), dtype=np.float32))
    report = {}
    for name, search in _searches(vectors, ASSETS).items():
        search(seeds[:1])
        report[name] = spread([milliseconds(search, seeds[row : row + 1]) for row in range(repeats)])
    return report


def _searches(vectors: Vectors, k: int) -> dict[str, Search]:
    """Exact searches of the same vectors (n, d)."""
    flat, live = _flat(vectors), live_index(vectors, [IMAGE])

    def by_production(seed: Vectors) -> Rows:
        hits = live.search(IMAGE, seed, ["user"] * len(seed), k)
        return np.array([int(name) for name in hits.asset_ids])[hits.rows]

    return {
        "a cosine a row": lambda seed: _row_by_row(vectors, seed[0])[None, :k],
        "numpy's product and a sort": lambda seed: np.argsort(-(vectors @ seed[0]), kind="stable")[None, :k],
        "FAISS flat": lambda seed: flat.search(seed, k)[1],
        "production": by_production,
    }


def _row_by_row(vectors: Vectors, seed: Vectors) -> Rows:
    cosines = [np.dot(vector, seed) / (np.linalg.norm(vector) * np.linalg.norm(seed)) for vector in vectors]
    return np.argsort(-np.array(cosines), kind="stable")


def _recalls(items: Items) -> Report:
    """R@k by way and direction, and the mean difference from numpy's, in %."""
    report: Report = {}
    for direction, queries, answers in (("t2i", items.captions, items.images), ("i2t", items.images, items.captions)):
        k = min(max(KS), len(items))
        searches = _searches(answers, k)
        del searches["a cosine a row"]
        for name, search in searches.items():
            ranks = _ranks(search, queries)
            report.setdefault(name, {})[direction] = {str(k): float((ranks < k).mean()) for k in KS}
    vanilla = report["numpy's product and a sort"]
    for of_way in report.values():
        of_way["delta_percent"] = {
            direction: 100 * float(np.mean([_relative(of_way, vanilla, direction, str(k)) for k in KS]))
            for direction in ("t2i", "i2t")
        }
    return report


def _relative(of_way: Report, vanilla: Report, direction: str, k: str) -> float:
    before = vanilla[direction][k]
    return (of_way[direction][k] - before) / before if before else 0.0


def _ranks(search: Search, queries: Vectors) -> Rows:
    """(n,) the place of row i among what query i finds, from 0; behind all where it is not found."""
    found = np.concatenate([search(queries[row : row + 1]) for row in range(len(queries))])
    right = found == np.arange(len(queries))[:, None]
    return np.where(right.any(axis=1), right.argmax(axis=1), len(queries))


def _flat(vectors: Vectors) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _unit(vectors: Vectors) -> Vectors:
    units: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def _table_1(report: Mapping[str, Report]) -> str:
    rows = [
        ["paper (1,000,000 on a GPU)", name, f"{mean:.3f}", f"{std:.3f}", "–", "≈ 0"]
        for name, (mean, std) in TABLE_1.items()
    ]
    for way, of_way in report.items():
        for name in TABLE_1:
            of_name = of_way[name]
            shown = [f"{of_name[value]:.3f}" for value in ("mean_ms", "std_ms", "median_ms")]
            rows.append([way, name, *shown, f"{of_way['p_value']:.2g}"])
    return markdown(["index", "", "mean, ms", "std", "median", "p"], rows)


def _table_6(report: Mapping[str, Report]) -> str:
    rows = []
    for d, of_d in report.items():
        for name, of_way in of_d.items():
            paper = TABLE_6.get((int(d), name))
            shown = [f"{of_way[value]:.2f}" for value in ("mean_ms", "std_ms", "median_ms")]
            rows.append([name, d, *shown, "–" if paper is None else f"{paper:.2f}"])
    return markdown(["search", "dimensions", "mean, ms", "std", "median", "paper, ms"], rows)


def _table_7(report: Mapping[str, Report]) -> str:
    rows = [
        [f"paper, MSCOCO: {name}", *(share(value) for values in both for value in values), "–", "–"]
        for name, both in TABLE_7.items()
    ]
    for name, of_way in report.items():
        shares = [share(of_way[direction][str(k)]) for direction in ("t2i", "i2t") for k in KS]
        deltas = [f"{of_way['delta_percent'][direction]:+.3f} %" for direction in ("t2i", "i2t")]
        rows.append([name, *shares, *deltas])
    heads = [f"{name} R@{k}" for name in ("text to image", "image to text") for k in KS]
    return markdown(["search", *heads, "delta, text to image", "delta, image to text"], rows)
