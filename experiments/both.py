"""Simulated users who own half pictures and half captions of each class, and want both: what a feed is worth to them.

Comes in: both modalities' vectors, classes, and a way from a profile to its areas with the settings it goes by. Go out:
the measures of the feed. Areas, index, scores and ranking are production's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experiments import grid
from experiments.simulation import NEAR, OTHERS, OTHERS_MAX, USER, Rules, User, Values, draw
from zccr_stream import measures
from zccr_stream.catalogue import Joint
from zccr_stream.events import IMAGE, TEXT, Embeddings
from zccr_stream.index import LiveIndex
from zccr_stream.interests import JOINT, Area, AreaRule, Profile
from zccr_stream.measures import NOTHING, Classes, Vectors
from zccr_stream.pipeline import recommend
from zccr_stream.ranking import rank

LENGTH = 20
MODALITIES = (IMAGE, TEXT)

ToAreas = Callable[[Profile, Classes, AreaRule], list[Area]]
"""From a profile, its true classes (n,) and a rule to areas."""


@dataclass(frozen=True, slots=True)
class Owned:
    """The assets of someone, (m,): rows of the items, and whether the caption is owned, or the picture."""

    rows: Classes
    texts: Classes

    def asset_ids(self) -> list[str]:
        """Names that tell both."""
        return [f"{MODALITIES[text]}-{row}" for row, text in zip(self.rows.tolist(), self.texts.tolist(), strict=True)]

    def modalities(self) -> list[str]:
        """Of each."""
        return [MODALITIES[text] for text in self.texts.tolist()]

    def vectors(self, of: Mapping[str, Vectors]) -> Vectors:
        """(m, d) as the truth keeps them."""
        both = np.stack([of[modality] for modality in MODALITIES])
        kept: Vectors = both[self.texts, self.rows].astype(np.float16).astype(np.float32)
        return kept


class Reader:
    """A user who wants both modalities, and the platform they are on.

    Args:
        vectors: by modality (n, d) unit vectors; row i of both belongs to item i.
        codes: (n,) each item's class.
        cell: how many classes the user has, and how many assets of each, half of either modality.
        number: which of the cell's users it is.
        by_class: the user's classes were uploaded one after the other, not mixed.
    """

    def __init__(
        self, vectors: Mapping[str, Vectors], codes: Classes, cell: tuple[int, int], number: int, by_class: bool = False
    ) -> None:
        self.user = draw(codes, *cell, np.random.default_rng([grid.SEED, *cell, number]))
        self.own = _halved(self.user, by_class)
        self.classes: Classes = self.user.classes[self.own.rows]
        self._vectors = vectors
        self._indexes: dict[bool, tuple[LiveIndex, LiveIndex]] = {}
        own = self.own
        self.profile = Profile(
            USER, 1, own.asset_ids(), own.modalities(), np.arange(len(own.rows)), own.vectors(vectors)
        )

    def values(self, to_areas: ToAreas, rules: Rules) -> Values:
        """The feed's measures: with one more item a class to be found in each modality, and with all of the classes."""
        areas = to_areas(self.profile, self.classes, rules.areas)
        few, many = (
            self._seen(recommend(index, [self.profile], [areas], rules.areas, rules.ranking, "", lambda: 0)[0].feed)
            for index in self._platform(None)
        )
        return self._measured(few, many, areas)

    def values_in_one_index(self, to_areas: ToAreas, rules: Rules, joint: Joint) -> Values:
        """The same where one index holds what lies in the joint space, and areas are found and searched there."""
        own = self.own.vectors(self._vectors)
        m = len(own)
        mapped = joint.apply(own, self.own.modalities())
        profile = Profile(USER, 1, self.own.asset_ids(), [JOINT] * m, np.arange(m), mapped)
        areas = to_areas(profile, self.classes, rules.areas)
        seeds = np.stack([area.seed for area in areas])
        few, many = (
            self._seen(
                rank(
                    profile,
                    areas,
                    {JOINT: index.search(JOINT, seeds, [USER] * len(seeds), 2 * rules.ranking.k)},
                    rules.ranking,
                    "",
                    0,
                ).feed
            )
            for index in self._platform(joint)
        )
        return self._measured(few, many, areas)

    def _platform(self, joint: Joint | None) -> tuple[LiveIndex, LiveIndex]:
        """What is searched: of the user's classes only one item each, and all of them."""
        if (joint is None) not in self._indexes:
            user = self.user
            wanted = np.concatenate([user.wanted, user.strangers])
            few, many = self._index(wanted, joint), self._index(np.concatenate([wanted, user.peers]), joint)
            self._indexes[joint is None] = few, many
        return self._indexes[joint is None]

    def _index(self, rows: Classes, joint: Joint | None) -> LiveIndex:
        n = len(rows)
        assets = Owned(np.concatenate([rows, rows]), np.repeat([0, 1], n))
        vectors = assets.vectors(self._vectors)
        if joint is not None:
            vectors = joint.apply(vectors, assets.modalities())
        index = LiveIndex(vectors.shape[1], 2 * OTHERS_MAX, 0.5)
        index.apply(
            Embeddings(
                "",
                assets.asset_ids(),
                [OTHERS] * (2 * n),
                assets.modalities() if joint is None else [JOINT] * (2 * n),
                np.ones(2 * n, np.int64),
                np.zeros(2 * n, np.int64),
                vectors.astype(np.float16),
                np.ones(2 * n, np.bool_),
            )
        )
        return index

    def _seen(self, feed: Sequence[object]) -> Owned:
        names = [str(item.asset_id).split("-") for item in feed[:LENGTH]]  # type: ignore[attr-defined]
        return Owned(
            np.array([int(row) for _, row in names], np.intp),
            np.array([MODALITIES.index(modality) for modality, _ in names], np.intp),
        )

    def _measured(self, few: Owned, many: Owned, areas: Sequence[Area]) -> Values:
        kinds = 2 * len(self.user.wanted)
        relevant = np.array([2 * (len(self.user.wanted) + len(self.user.peers))])
        shown, vectors = self._kinds(many), many.vectors(self._vectors)
        groups = np.empty(len(self.classes), np.intp)
        for number, area in enumerate(areas):
            groups[area.members] = number
        return {
            "recall": measures.recall(self._kinds(few), np.array([kinds]), LENGTH)[0],
            "newest": self._recall_of_newest(few),
            "precision": measures.precision(shown, LENGTH)[0],
            "ndcg": measures.ndcg(shown, relevant, LENGTH)[0],
            "coverage": measures.coverage(shown, kinds, LENGTH)[0],
            "diversity": measures.diversity(vectors, np.array(many.modalities(), np.str_)),
            "near_duplicates": float(np.mean([self._near(many, vectors, text) for text in (0, 1)])),
            "pictures": float((many.texts == 0).mean()),
            "ari": measures.adjusted_rand(groups, self.classes),
            "areas": len(areas),
        }

    def _kinds(self, feed: Owned) -> Classes:
        """(1, f) twice the class of each place, and one more for a caption."""
        classes = self.user.classes[feed.rows]
        return np.where(classes == NOTHING, NOTHING, 2 * classes + feed.texts)[None, :]

    def _recall_of_newest(self, few: Owned) -> float:
        """Of the half of the classes that were uploaded last, which is what a user wants whose interests change."""
        last = [int(np.flatnonzero(self.classes == number).max()) for number in range(len(self.user.wanted))]
        newest = np.argsort(last)[len(last) // 2 :]
        found = set(self._kinds(few)[0].tolist())
        return float(np.mean([2 * number + text in found for number in newest.tolist() for text in (0, 1)]))

    def _near(self, feed: Owned, vectors: Vectors, text: int) -> float:
        of_modality = vectors[feed.texts == text]
        return float(measures.near_duplicates(of_modality, NEAR).mean()) if len(of_modality) else 0.0


def _halved(user: User, by_class: bool) -> Owned:
    """Of every class one half of the user's items as pictures, the other as captions."""
    rows = user.own[np.argsort(user.classes[user.own], kind="stable")] if by_class else user.own
    texts = np.zeros(len(rows), np.intp)
    for number in range(len(user.wanted)):
        texts[np.flatnonzero(user.classes[rows] == number)[::2]] = 1
    return Owned(rows, texts)
