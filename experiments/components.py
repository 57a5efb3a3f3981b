"""The parts that find areas of interest, each exchanged (paper, sections 4.3 and 5.2, Table 2, Figures 14 to 18).

    python -m experiments components --data DIR [--encoder NAME] [--json FILE] [--figures DIR]

Simulated users as in `areas`: m assets of each of c classes, all of one modality, up to 1,000 assets of others, among
them one of each class that is wanted; other assets of the classes are left out. All four tasks, text or image to text
or image. Exchanged are
  projection   none, PCA (99 % of the variance), or t-SNE onto a plane (perplexity 30, or a third of the neighbours
               where these are fewer; profiles of three assets or fewer stay as they are);
  clustering   Ward or HDBSCAN (scikit-learn's, least size 5, which the paper does not give: `--smallest`);
  seed         centroid or medoid.
Ward is production's: cut by its rule, then settled; over unprojected vectors by the same (PCA with all of the
variance, which only turns them). The scale of t-SNE's map is arbitrary, so that its tree is cut, without labels either,
where the mean silhouette is best, and not at all where that is below .5. The paper gives no cut. `Ward, true number` is
given the number of classes: there the projections are compared without any cut. `true areas` are the classes
themselves.
HDBSCAN calls assets noise, and never finds a single area only; the paper does not say what becomes of noise. It is
left out (`HDBSCAN`; an asset of no area recommends nothing), or one area together, or each asset is one.
Counted are
  paper recall  the paper's Recall@10: of the wanted, one a class, the share in the union of all seeds' top 10, each
                once. More areas are more places, so that finer always gains;
  feed recall   the share in the first 20 places of one feed: what a user sees;
  ARI           the adjusted Rand index of areas and classes, an asset in no area being alone; and the number of areas.
All systems search with the same users, drawn as in `areas`; t-SNE, which costs .1 to 2 s a profile, with the first
`--tsne-draws` of them. Differences are of the same users. A conclusion of the paper "holds" if the 95 % interval is on
its side; systems are alike if it lies within ± .02. Seven minutes of one slow core with 1,000 pairs.
The paper uses ALBEF and labels by ImageNet's classes, c = 1, 2, 5 (or 10) and 100 users a cell.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from experiments import grid, plots
from experiments.clusterings import (
    CLUSTERINGS,
    DENSITY,
    DENSITY_EACH,
    DENSITY_ONE,
    LINEAR,
    NONE,
    NONLINEAR,
    PROJECTIONS,
    WARD,
    WARD_TRUE,
    clustered,
    medoid_seeds,
)
from experiments.comparison import NEAR, TASKS, Comparison, Expected, Values, compare
from experiments.datasets import Items
from experiments.outcome import Outcome
from experiments.plots import Line, small_multiples
from experiments.simulation import (
    Rules,
    User,
    group_numbers,
    paper_measures,
    search,
    search_space,
    uploaded,
)
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.interests import CENTROID, MEDOID, Area, AreaRule, Profile, areas_of
from zccr_stream.measures import Classes, adjusted_rand
from zccr_stream.settings import Settings

DRAWS = 20
LENGTH = 20  # of the feed
LISTED = 30  # hits a seed, so that a single area fills the feed though near-duplicates are passed over
TSNE_DRAWS = 10
SMALLEST = 5  # scikit-learn's

TRUE = "true areas"


def _seeds(clustering: str) -> tuple[str, ...]:
    """Other ways with noise change nothing about the seeds."""
    return (CENTROID,) if clustering in (DENSITY_ONE, DENSITY_EACH) else (CENTROID, MEDOID)


def _name(projection: str, clustering: str, seed: str) -> str:
    return f"{clustering}, {seed}" if clustering == TRUE else f"{projection}, {clustering}, {seed}"


SYSTEMS = [
    *(
        _name(projection, clustering, seed)
        for projection in PROJECTIONS
        for clustering in CLUSTERINGS
        for seed in _seeds(clustering)
    ),
    *(_name(NONE, TRUE, seed) for seed in (CENTROID, MEDOID)),
]
PAPERS = _name(LINEAR, WARD, CENTROID)

EXPECTED = {
    "PCA above no projection": Expected(PAPERS, _name(NONE, WARD, CENTROID)),
    "the same, without the cut": Expected(_name(LINEAR, WARD_TRUE, CENTROID), _name(NONE, WARD_TRUE, CENTROID)),
    "PCA above t-SNE": Expected(PAPERS, _name(NONLINEAR, WARD, CENTROID)),
    "the same, each with the true number": Expected(
        _name(LINEAR, WARD_TRUE, CENTROID), _name(NONLINEAR, WARD_TRUE, CENTROID)
    ),
    "t-SNE above no projection": Expected(_name(NONLINEAR, WARD, CENTROID), _name(NONE, WARD, CENTROID)),
    "t-SNE above no projection, each with the true number": Expected(
        _name(NONLINEAR, WARD_TRUE, CENTROID), _name(NONE, WARD_TRUE, CENTROID)
    ),
    **{
        f"Ward above {clustering}": Expected(PAPERS, _name(LINEAR, clustering, CENTROID))
        for clustering in (DENSITY, DENSITY_ONE, DENSITY_EACH)
    },
    "Ward above HDBSCAN, on t-SNE": Expected(_name(NONLINEAR, WARD, CENTROID), _name(NONLINEAR, DENSITY, CENTROID)),
    "medoid as good as centroid": Expected(_name(LINEAR, WARD, MEDOID), PAPERS, equal=True),
    "the same, of the true areas": Expected(_name(NONE, TRUE, MEDOID), _name(NONE, TRUE, CENTROID), equal=True),
}
"""The paper's conclusions (section 5.2)."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the grid's size, the users with t-SNE and HDBSCAN's least size."""
    grid.add_options(command, DRAWS)
    command.add_argument(
        "--tsne-draws",
        type=grid.at_least(1),
        default=TSNE_DRAWS,
        metavar="N",
        help="users a cell that t-SNE is measured with, the first ones; by default %(default)s",
    )
    command.add_argument(
        "--smallest",
        type=grid.at_least(2),
        default=SMALLEST,
        metavar="N",
        help="least assets of an area that HDBSCAN finds; by default %(default)s",
    )


def measure(items: Items, options: argparse.Namespace) -> Outcome:
    """Measure every projection, clustering and seed on every task and cell of the grid that can be drawn.

    Raises:
        DataError: no labels, or too few items of each label for any cell.
    """
    labelled, codes = grid.labelled(items)
    cells, left_out = grid.cells(options.classes, options.assets, np.bincount(codes))
    rules = Rules.of(Settings(), items.by_modality(), listed=LISTED, length=LENGTH)
    found = compare(
        SYSTEMS,
        list(TASKS),
        cells,
        options.draws,
        codes,
        lambda user, number: _measured(
            labelled, user, rules, PROJECTIONS if number < options.tsne_draws else (NONE, LINEAR), options.smallest
        ),
    )
    conclusions, differences = found.conclusions(EXPECTED, NEAR)
    head = (
        f"{items.space}: {len(labelled):,} labelled pairs, {codes.max() + 1:,} classes; means of {len(cells)} cells of "
        f"{options.draws} users (t-SNE: {min(options.tsne_draws, options.draws)}), {len(TASKS)} tasks, ± half of the "
        f"95 % confidence interval; HDBSCAN's least size is {options.smallest}"
    )
    centroids = [name for name in SYSTEMS if name.endswith(CENTROID)]
    compared = [name for name in centroids if f", {DENSITY}, " in name or f", {WARD}, " in name]
    tables = [
        head,
        found.overall(),
        conclusions,
        found.differences_by_task(EXPECTED),
        found.by_task(centroids),
        found.by_cell(compared),
    ]
    if left_out:
        tables.append(grid.too_few(left_out))
    return Outcome({"systems": found.report(), "conclusions": differences}, "\n\n".join(tables), _figures(found))


def _measured(items: Items, user: User, rules: Rules, projections: Sequence[str], smallest: int) -> Values:
    """(s, t, 4) one user's values; nan where a projection was not asked for."""
    indexes = {target: search_space(user, target, items.vectors(target), rules) for target in (TEXT, IMAGE)}
    values = np.full((len(SYSTEMS), len(TASKS), 4), np.nan)
    true = user.classes[user.own]
    for source in (TEXT, IMAGE):
        profile = uploaded(user.own, source, items.vectors(source))
        found = _found(profile, true, rules.areas, projections, smallest)
        of_areas = {
            name: (adjusted_rand(group_numbers(areas, len(true)), true), len(areas)) for name, areas in found.items()
        }
        for task, (_, target) in ((place, pair) for place, pair in enumerate(TASKS.values()) if pair[0] == source):
            hits = search(indexes[target], target, found, rules.ranking.k)
            for name, areas in found.items():
                recalls = paper_measures(profile, areas, {target: hits[name]}, user, rules.ranking)
                values[SYSTEMS.index(name), task] = (
                    recalls["paper_recall"],
                    recalls[f"recall@{LENGTH}"],
                    *of_areas[name],
                )
    return values


def _found(
    profile: Profile, true: Classes, rule: AreaRule, projections: Sequence[str], smallest: int
) -> dict[str, list[Area]]:
    """By system a profile's areas."""
    rule = replace(rule, seed=CENTROID)
    number = len(np.unique(true))
    by_way = {
        (projection, clustering): areas
        for projection in projections
        for clustering, areas in clustered(profile, projection, rule, number, smallest)
    } | {(NONE, TRUE): areas_of(profile, true, rule)}
    return {
        _name(*way, seed): areas if seed == CENTROID else medoid_seeds(profile, areas)
        for way, areas in by_way.items()
        for seed in _seeds(way[1])
    }


def _figures(found: Comparison) -> Mapping[str, Figure]:
    """The paper's Figures 14 to 17, one a task, and 18, all tasks with PCA."""
    by_projection = {
        f"components-{task.replace(' ', '-')}": _figure(
            found, f"{task.capitalize()} (the paper's Figure {number})", [(p, task, p) for p in PROJECTIONS]
        )
        for number, task in enumerate(TASKS, 14)
    }
    title = "PCA in all tasks (the paper's Figure 18)"
    return by_projection | {"components-all-tasks-pca": _figure(found, title, [(t, t, LINEAR) for t in TASKS])}


def _figure(found: Comparison, title: str, rows: Sequence[tuple[str, str, str]]) -> Figure:
    """Panels of rows, each by name a task and a projection."""
    columns = found.columns()
    lines = [
        Line(
            f"{shown}, {seed}",
            colour,
            plots.SOLID if seed == CENTROID else plots.DASHED,
            {
                (row, columns[c]): points
                for row, task, projection in rows
                for c, points in found.points(_name(projection, clustering, seed), task).items()
            },
        )
        for shown, clustering, colour, seed in _drawn()
    ]
    names = [row for row, _, _ in rows]
    return small_multiples(title, names, list(columns.values()), lines, "assets of each class", "Recall@10")


def _drawn() -> Iterator[tuple[str, str, str, str]]:
    for shown, clustering, colour in (
        ("true areas", TRUE, plots.GREY),
        ("Agglomerative (Ward)", WARD, plots.VERMILION),
        ("HDBSCAN", DENSITY, plots.BLUE),
    ):
        for seed in (CENTROID, MEDOID):
            yield shown, clustering, colour, seed
