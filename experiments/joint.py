"""What one index of both modalities and areas that hold both are worth to a user who wants both.

Comes in: labelled items, and both modalities' vectors aligned. Go out: per way the measures of simulated users who own
half pictures and half captions of each class. Areas, index and ranking are production's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.simulation import OTHERS, OTHERS_MAX, USER, Rules, User, Values, draw
from zccr_stream import measures
from zccr_stream.events import IMAGE, TEXT, Embeddings
from zccr_stream.index import LiveIndex
from zccr_stream.interests import Area, Profile, areas_of, find_areas
from zccr_stream.measures import NOTHING, Classes, Vectors
from zccr_stream.ranking import rank

LENGTH = 20
CUTS = (0.7, 0.9, 1.1, 1.3, 1.5, 1.7)
JOINT = "joint"
SPLIT = "areas and an index a modality"
TOGETHER = "joint areas, one index"
BETWEEN = "joint areas, an index a modality"

MODALITIES = (IMAGE, TEXT)

Modalities = Mapping[str, Vectors]
"""By modality (n, d) unit vectors; row i of both belongs to item i."""


@dataclass(frozen=True, slots=True)
class Owned:
    """The assets of someone, (m,): rows of the items, and whether the caption is owned, or the picture."""

    rows: Classes
    texts: Classes

    def asset_ids(self) -> list[str]:
        """Names that tell both."""
        return [f"{MODALITIES[text]}-{row}" for row, text in zip(self.rows.tolist(), self.texts.tolist(), strict=True)]

    def vectors(self, of: Modalities) -> Vectors:
        """(m, d) as the truth keeps them."""
        both = np.stack([of[modality] for modality in MODALITIES])
        kept: Vectors = both[self.texts, self.rows].astype(np.float16).astype(np.float32)
        return kept


def simulate_both(
    plain: Modalities, aligned: Modalities, codes: Classes, cell: tuple[int, int], number: int, rules: Rules
) -> dict[tuple[str, str], Values]:
    """One user's values by way and areas: `true`, or found by production's rule with one of the `CUTS`.

    Args:
        plain: both modalities' vectors.
        aligned: the same in the joint space.
        codes: (n,) classes.
        cell: how many classes the user has, and how many assets of each, half of either modality.
        number: which of the cell's users it is.
        rules: production's.
    """
    user = draw(codes, *cell, np.random.default_rng([0, *cell, number]))
    own = _halved(user)
    spaces: dict[str, tuple[Modalities, bool, bool]] = {
        SPLIT: (plain, False, False),
        TOGETHER: (aligned, True, True),
        BETWEEN: (aligned, True, False),
    }
    values: dict[tuple[str, str], Values] = {}
    for way, (vectors, joint_areas, one_index) in spaces.items():
        profile = _profile(own, vectors, joint_areas)
        classes = user.classes[own.rows]
        found = {str(cut): find_areas(profile, replace(rules.areas, cut=cut)) for cut in CUTS}
        found["true"] = areas_of(profile, classes, rules.areas)
        for name, measured in _feeds(profile, found, vectors, user, one_index, rules).items():
            groups = np.concatenate([np.full(len(area.members), i) for i, area in enumerate(found[name])])
            members = np.concatenate([area.members for area in found[name]])
            measured["ari"] = measures.adjusted_rand(groups, classes[members])
            measured["areas"] = len(found[name])
            values[way, name] = measured
    return values


def _halved(user: User) -> Owned:
    """Of every class one half of the user's items as pictures, the other as captions."""
    texts = np.zeros(len(user.own), np.intp)
    for number in range(len(user.wanted)):
        texts[np.flatnonzero(user.classes[user.own] == number)[::2]] = 1
    return Owned(user.own, texts)


def _profile(own: Owned, vectors: Modalities, joint: bool) -> Profile:
    m = len(own.rows)
    modalities = [JOINT if joint else MODALITIES[text] for text in own.texts.tolist()]
    return Profile(USER, 1, own.asset_ids(), modalities, np.arange(m), own.vectors(vectors))


def _feeds(
    profile: Profile,
    found: Mapping[str, Sequence[Area]],
    vectors: Modalities,
    user: User,
    one_index: bool,
    rules: Rules,
) -> dict[str, Values]:
    """By areas what the feed is worth: with one more item a class to be found, and then with all of the classes."""
    classes = len(user.wanted)
    index = LiveIndex(vectors[IMAGE].shape[1], 2 * OTHERS_MAX, rules.dead_share_max)
    index.apply(_owned_by_others(np.concatenate([user.wanted, user.strangers]), vectors, one_index))
    few = _searched(profile, found, index, user, one_index, rules)
    index.apply(_owned_by_others(user.peers, vectors, one_index))
    many = _searched(profile, found, index, user, one_index, rules)
    relevant = np.array([2 * (len(user.wanted) + len(user.peers))])
    return {
        name: {
            "recall": measures.recall(few[name], np.array([2 * classes]), LENGTH)[0],
            "precision": measures.precision(many[name], LENGTH)[0],
            "ndcg": measures.ndcg(many[name], relevant, LENGTH)[0],
            "coverage": measures.coverage(many[name], 2 * classes, LENGTH)[0],
            "images": float((many[name][0, :LENGTH] % 2 == 0).mean()),
        }
        for name in found
    }


def _searched(
    profile: Profile, found: Mapping[str, Sequence[Area]], index: LiveIndex, user: User, one_index: bool, rules: Rules
) -> dict[str, Classes]:
    """By areas (1, f) what the feed shows: twice the class, and one more for a caption."""
    feeds = {}
    for name, areas in found.items():
        seeds = np.stack([area.seed for area in areas])
        targets = [JOINT] if one_index else MODALITIES
        hits = {target: index.search(target, seeds, [USER] * len(seeds), rules.ranking.k) for target in targets}
        items = [item.asset_id.split("-") for item in rank(profile, areas, hits, rules.ranking, "", 0).feed]
        rows = np.array([int(row) for _, row in items], np.intp)
        texts = np.array([MODALITIES.index(modality) for modality, _ in items], np.intp)
        classes = user.classes[rows]
        feeds[name] = np.where(classes == NOTHING, NOTHING, 2 * classes + texts)[None, :]
    return feeds


def _owned_by_others(rows: Classes, vectors: Modalities, one_index: bool) -> Embeddings:
    """Pictures and captions of these items, as others' uploads."""
    n = len(rows)
    assets = Owned(np.concatenate([rows, rows]), np.repeat([0, 1], n))
    return Embeddings(
        "",
        assets.asset_ids(),
        [OTHERS] * (2 * n),
        [JOINT] * (2 * n) if one_index else [IMAGE] * n + [TEXT] * n,
        np.ones(2 * n, np.int64),
        np.zeros(2 * n, np.int64),
        assets.vectors(vectors).astype(np.float16),
        np.ones(2 * n, np.bool_),
    )


def over_users(
    simulate: Callable[[tuple[int, int], int], dict[tuple[str, str], Values]],
    cells: Sequence[tuple[int, int]],
    draws: int,
    done: Callable[[], object],
) -> dict[str, dict[str, Values]]:
    """Means over all users, by way and areas.

    Every value has its half of the 95 % confidence interval beside it, as `<name> ±`.
    """
    users = []
    for cell in cells:
        for number in range(draws):
            users.append(simulate(cell, number))
            done()
    means: dict[str, dict[str, Values]] = {}
    for way, name in users[0]:
        columns = {key: [values[way, name][key] for values in users] for key in users[0][way, name]}
        means.setdefault(way, {})[name] = {
            **{key: float(np.mean(column)) for key, column in columns.items()},
            **{f"{key} ±": measures.half_width(column) for key, column in columns.items()},
        }
    return means
