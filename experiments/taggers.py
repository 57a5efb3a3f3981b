"""ZCCR against recommending by tags (paper, sections 4.4 and 5.3, Figures 19 and 20).

    python -m experiments taggers --data DIR [--encoder NAME] [--json FILE] [--figures DIR]

Simulated users as in `areas`: m assets of each of c classes, all of one modality, up to 1,000 assets of others, among
them one of each class that is wanted; other assets of the classes are left out. All four tasks, text or image to text
or image. Over the same users
  ZCCR  searches with the items' encoder: production's PCA, Ward, cut and seed;
  BTBA  does the same with other vectors: the mean of the sentence embeddings of an asset's tags, an index a modality;
  BT    keeps the most frequent third (33 %, rounded up) of the tags of the profile's assets, and recommends the assets
        that have most of these. It has no areas: its list of 10 is all, and its 20 best are its feed. Ties, of tags
        and of assets, are in an order drawn with the user as its seed; an asset without any of the tags is no match.
The cut is production's in the space of the tags too; beside it both with Ward's tree cut into the true number of
areas, and with the true areas, so that they are compared without a cut. Tags are given ones or made
(`experiments/tags.py`): of captions nouns and verbs; of pictures the words of a classifier's likeliest classes, where
the paper has a captioning model, an object detector and an action recogniser. The sentence embeddings are MiniLM's, the
paper's BERT's. Where pictures have no tags, and there are no files to make some of, only text to text can be measured.
With `mini` a picture's vector is itself made of MiniLM's embeddings of its likeliest classes' names, and a caption's is
MiniLM's of all of it: that tells whole captions and weighted classes from bags of tags, not a vision-language model
from a language model. Labels that the captions name favour tags. Counted are
  paper recall  the paper's Recall@10: of the wanted, one a class, the share in the union of all seeds' top 10, each
                once. More areas are more places, so that BT, with one list, has the fewest;
  feed recall   the share in the first 20 places of one feed, the same number of places for all;
  ARI           the adjusted Rand index of areas and classes; and the number of areas.
Differences are of the same users. A conclusion of the paper "holds" if the 95 % interval is on its side; systems are
alike if it lies within ± .02. The paper uses ALBEF and CLIP, labels by ImageNet's classes, c = 1, 5, 10 and 100 users a
cell.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.sparse import csr_array
from sklearn.preprocessing import MultiLabelBinarizer

from experiments import grid, plots, tags
from experiments.clusterings import LINEAR, project, ward
from experiments.comparison import NEAR, TASKS, Comparison, Expected, Values, compare
from experiments.datasets import Items, Vectors
from experiments.outcome import Outcome
from experiments.plots import Line, Style, small_multiples
from experiments.simulation import (
    Rules,
    User,
    group_numbers,
    paper_measures,
    search,
    search_space,
    uploaded,
)
from zccr_stream import measures
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.interests import areas_of, find_areas
from zccr_stream.measures import Classes
from zccr_stream.settings import Settings

DRAWS = 30
LENGTH = 20  # of the feed
LISTED = 30  # hits a seed, so that a single area fills the feed though near-duplicates are passed over
PAPER_K = 10
KEPT = 0.33

ZCCR, BTBA, BT = "ZCCR", "BTBA", "BT"
TRUE_NUMBER, TRUE = "true number", "true areas"
WAYS = ("", f", {TRUE_NUMBER}", f", {TRUE}")
SYSTEMS = [*(f"{system}{way}" for system in (ZCCR, BTBA) for way in WAYS), BT]

EXPECTED = {
    "ZCCR above BTBA": Expected(ZCCR, BTBA),
    "the same, each with the true number": Expected(f"{ZCCR}, {TRUE_NUMBER}", f"{BTBA}, {TRUE_NUMBER}"),
    "the same, of the true areas": Expected(f"{ZCCR}, {TRUE}", f"{BTBA}, {TRUE}"),
    "BTBA above BT": Expected(BTBA, BT),
    "the same, with the true number": Expected(f"{BTBA}, {TRUE_NUMBER}", BT),
    "ZCCR above BT": Expected(ZCCR, BT),
}
"""The paper's conclusions (section 5.3)."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """By modality n items' tags: `has` (n, v) which of v tags each has, `vectors` (n, d) their embeddings."""

    has: Mapping[str, csr_array]
    vectors: Mapping[str, Vectors]


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the grid's size."""
    grid.add_options(command, DRAWS)


def measure(items: Items, options: argparse.Namespace) -> Outcome:
    """Measure the three systems on every task that there are tags for, and every cell that can be drawn.

    Raises:
        DataError: no labels, too few items of each label for any cell, or tags that do not fit the items.
    """
    labelled, codes = grid.labelled(items)
    cells, left_out = grid.cells(options.classes, options.assets, np.bincount(codes))
    by_modality = _tags(labelled, options)
    tagged = tagged_by(by_modality, {name: tags.embed_tags(of, options.cache) for name, of in by_modality.items()})
    tasks = [task for task, pair in TASKS.items() if set(pair) <= set(by_modality)]
    encoded = {modality: labelled.vectors(modality) for modality in tagged.vectors}
    spaces = [
        (vectors, Rules.of(Settings(), vectors, listed=LISTED, length=LENGTH)) for vectors in (encoded, tagged.vectors)
    ]
    found = compare(
        SYSTEMS, tasks, cells, options.draws, codes, lambda user, _: _measured(spaces, tagged.has, user, tasks)
    )
    conclusions, differences = found.conclusions(EXPECTED, NEAR)
    tables = [
        _head(items, options, codes, cells, by_modality, tasks),
        found.overall(),
        conclusions,
        found.differences_by_task(EXPECTED),
        found.by_task(SYSTEMS),
        found.by_cell(SYSTEMS),
    ]
    if left_out:
        tables.append(grid.too_few(left_out))
    report = {"systems": found.report(), "conclusions": differences}
    return Outcome(report, "\n\n".join(tables), {"taggers": _figure(found)})


def tagged_by(by_modality: Mapping[str, tags.Tags], vectors: Mapping[str, Vectors]) -> Tagged:
    """Number the tags of all modalities together, so that those of one match those of another."""
    numbers = MultiLabelBinarizer(sparse_output=True).fit([tag for of in by_modality.values() for tag in of])
    return Tagged({name: csr_array(numbers.transform(of), dtype=np.int64) for name, of in by_modality.items()}, vectors)


def most_matches(
    of_profile: csr_array, of_others: csr_array, length: int, random: np.random.Generator
) -> npt.NDArray[np.intp]:
    """BT's list: the rows of (m, v) `of_others` with most of the tags that (n, v) `of_profile` has most often.

    Args:
        of_profile: which tags each of the profile's assets has.
        of_others: the same of what is searched.
        length: most rows in the list.
        random: the order of what is tied.
    """
    counts = of_profile.sum(axis=0)
    known = np.flatnonzero(counts)
    in_order = known[np.lexsort((random.random(len(known)), -counts[known]))]
    kept = in_order[: math.ceil(KEPT * len(known))]
    matches = of_others[:, kept].sum(axis=1)
    best = np.lexsort((random.random(len(matches)), -matches))[:length]
    matched: npt.NDArray[np.intp] = best[matches[best] > 0]
    return matched


def _tags(items: Items, options: argparse.Namespace) -> dict[str, tags.Tags]:
    """By modality the tags; pictures that are not there and have none given are left out."""
    file = options.data / tags.FILE
    given = tags.from_file(file, items, IMAGE) if file.is_file() else None
    modalities = (TEXT,) if given is None and items.paths is None else (TEXT, IMAGE)
    return {
        modality: tags.tags_of(items, modality, options.data, options.classifier, options.device, options.cache)
        for modality in modalities
    }


def _measured(
    spaces: Sequence[tuple[Mapping[str, Vectors], Rules]],
    has: Mapping[str, csr_array],
    user: User,
    tasks: Sequence[str],
) -> Values:
    """(s, t, 4) one user's values: ZCCR's and BTBA's, each in its space, then BT's."""
    values = np.empty((len(SYSTEMS), len(tasks), 4))
    for place, task in enumerate(tasks):
        source, target = TASKS[task]
        of_spaces = [_by_areas(vectors, source, target, user, rules) for vectors, rules in spaces]
        values[:, place] = np.concatenate([*of_spaces, _by_matches(has, source, target, user)[None, :]])
    return values


def _by_areas(vectors: Mapping[str, Vectors], source: str, target: str, user: User, rules: Rules) -> Values:
    """(3, 4) the values by each of the `WAYS` to areas, in the space of these vectors."""
    profile = uploaded(user.own, source, vectors[source])
    true = user.classes[user.own]
    points = project(profile.vectors, LINEAR, rules.areas.variance)
    numbered = ward(points, [len(user.wanted)])[:, 0]
    areas_by_way = (
        find_areas(profile, rules.areas),
        areas_of(profile, numbered, rules.areas),
        areas_of(profile, true, rules.areas),
    )
    found = dict(zip(WAYS, areas_by_way, strict=True))
    hits = search(search_space(user, target, vectors[target], rules), target, found, rules.ranking.k)
    rows = []
    for way, areas in found.items():
        recalls = paper_measures(profile, areas, {target: hits[way]}, user, rules.ranking)
        ari = measures.adjusted_rand(group_numbers(areas, len(true)), true)
        rows.append([recalls["paper_recall"], recalls[f"recall@{LENGTH}"], ari, len(areas)])
    return np.array(rows)


def _by_matches(has: Mapping[str, csr_array], source: str, target: str, user: User) -> Values:
    """(4,) BT's values: it has no areas."""
    searched = np.concatenate([user.wanted, user.strangers])
    random = np.random.default_rng(user.own)
    best = searched[most_matches(has[source][user.own], has[target][searched], LENGTH, random)]
    shown: Classes = user.classes[best]
    feed = measures.recall(shown[None, :], np.array([len(user.wanted)]), LENGTH)[0]
    return np.array([measures.paper_recall(shown[:PAPER_K], len(user.wanted)), feed, np.nan, np.nan])


def _head(
    items: Items,
    options: argparse.Namespace,
    codes: Classes,
    cells: grid.Cells,
    by_modality: Mapping[str, tags.Tags],
    tasks: Sequence[str],
) -> str:
    lines = [
        f"{items.space}: {len(codes):,} labelled pairs, {codes.max() + 1:,} classes; means of {len(cells)} cells of "
        f"{options.draws} users, tasks: {', '.join(tasks)}; ± half of the 95 % confidence interval"
    ]
    for modality, of in by_modality.items():
        without = sum(not row for row in of)
        lines.append(
            f"Tags of each {modality}: {np.mean([len(row) for row in of]):.1f}, {len(frozenset().union(*of)):,} "
            f"different ones; {without:,} without any."
        )
    if missing := [task for task in TASKS if task not in tasks]:
        lines.append(
            f"Not measured: {', '.join(missing)}; there are neither pictures to tag nor a {tags.FILE} with "
            f'"{tags.KEYS[IMAGE]}".'
        )
    return "\n".join(lines)


def _figure(found: Comparison) -> Figure:
    styles: list[tuple[str, str, Style]] = [
        (f"{ZCCR}, {TRUE_NUMBER}", plots.VERMILION, plots.DASHED),
        (f"{BTBA}, {TRUE_NUMBER}", plots.GREEN, plots.DASHED),
        (BT, plots.BLUE, plots.SOLID),
        (BTBA, plots.GREEN, plots.SOLID),
        (ZCCR, plots.VERMILION, plots.SOLID),
    ]
    columns = found.columns()
    lines = [
        Line(
            system,
            colour,
            style,
            {(task, columns[c]): points for task in found.tasks for c, points in found.points(system, task).items()},
        )
        for system, colour, style in styles
    ]
    title = "ZCCR against taggers (the paper's Figures 19 and 20)"
    return small_multiples(title, found.tasks, list(columns.values()), lines, "assets of each class", "Recall@10")
