"""One simulated user: what they uploaded, what others own, and what ways to areas are worth to them (section 4.3).

Comes in: items and the numbers of their classes. Go out: per way the measures of one user. Areas, index and ranking are
production's. Knows nothing of grids, means and tables, which the experiments make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from experiments.datasets import Items
from zccr_stream import assemble, measures
from zccr_stream.events import IMAGE, TEXT, Embeddings
from zccr_stream.index import LiveIndex
from zccr_stream.interests import Area, AreaRule, Profile, areas_of, find_areas
from zccr_stream.measures import NOTHING, Classes
from zccr_stream.ranking import Hits, RankingRule, rank
from zccr_stream.settings import Settings

WAYS = ("rule", "true", "one", "each")
OTHERS_MAX = 1000  # of the paper's search space
LENGTHS = (10, 20, 50)
PAPER_K = 10
NEAR = 0.9

USER, OTHERS = "user", "others"

Values = dict[str, float]
Ways = Callable[[Profile, Classes, AreaRule], Mapping[str, list[Area]]]
"""From a profile, its true classes (n,) and production's rule to areas, by the name of the way to them."""


@dataclass(frozen=True, slots=True)
class User:
    """A draw: rows of the items, and their class by number, `NOTHING` where it is none of the user's.

    `own` (c m + outliers,) are the profile's, oldest first; `wanted` (c,) one more of each class, in their order;
    `peers` the others of the classes; `strangers` of other classes. `classes` (n,) is of all items.
    """

    own: Classes
    wanted: Classes
    peers: Classes
    strangers: Classes
    classes: Classes

    def groups(self) -> Classes:
        """(c m + outliers,) the true groups of what is their own: the classes, and each outlier one by itself."""
        groups = self.classes[self.own].copy()
        alone = np.flatnonzero(groups == NOTHING)
        groups[alone] = len(self.wanted) + np.arange(len(alone))
        return groups


@dataclass(frozen=True, slots=True)
class Rules:
    """Production's rules, with lists and a feed as long as is counted."""

    areas: AreaRule
    ranking: RankingRule
    dead_share_max: float

    @classmethod
    def of(
        cls,
        settings: Settings,
        vectors: Mapping[str, npt.NDArray[np.float32]],
        listed: int = max(LENGTHS),
        length: int = max(LENGTHS),
    ) -> Rules:
        """The rules that these settings give where the (n, d) `vectors`, by modality, are all that a platform has.

        Lists are `listed` hits long, the feed `length`.
        """
        dimension = next(iter(vectors.values())).shape[1]
        index = LiveIndex(dimension, OTHERS_MAX, settings.index_dead_share_max)
        for modality, of_modality in vectors.items():
            index.apply(_owned_by_others(np.arange(len(of_modality)), modality, of_modality))
        ranking = replace(assemble.ranking_rule(settings), k=listed, feed_size=length)
        return cls(assemble.area_rule(settings, index.catalogues()), ranking, settings.index_dead_share_max)


def draw(codes: Classes, classes: int, assets: int, random: np.random.Generator, outliers: int = 0) -> User:
    """Draw a user of `classes` different classes with `assets` of each, and what up to 1,000 others' assets are.

    Args:
        codes: (n,) each item's class.
        classes: c.
        assets: m; a class must have more.
        random: the draw.
        outliers: assets that are the user's own as well, each of another class, of which nobody wants more; fewer where
            there are not so many classes.
    """
    chosen = random.choice(np.flatnonzero(np.bincount(codes) > assets), classes, replace=False)
    by_class = [random.permutation(np.flatnonzero(codes == code)) for code in chosen]
    own = random.permutation(np.concatenate([rows[:assets] for rows in by_class]))
    wanted = np.array([rows[assets] for rows in by_class])
    numbers = np.full(len(codes), NOTHING)
    for number, rows in enumerate(by_class):
        numbers[rows] = number
    rest = random.permutation(np.setdiff1d(np.arange(len(codes)), np.concatenate([own, wanted])))
    if outliers:
        strangers = rest[numbers[rest] == NOTHING]
        _, first = np.unique(codes[strangers], return_index=True)
        odd = strangers[np.sort(first)][:outliers]
        own, rest = random.permutation(np.concatenate([own, odd])), np.setdiff1d(rest, odd)
        rest = random.permutation(rest)
    rest = rest[: max(OTHERS_MAX - classes, 0)]
    return User(own, wanted, rest[numbers[rest] != NOTHING], rest[numbers[rest] == NOTHING], numbers)


def ways(profile: Profile, classes: Classes, rule: AreaRule) -> dict[str, list[Area]]:
    """A profile's areas by each of the four ways; `classes` (n,) are the true ones."""
    n = len(profile.asset_ids)
    return {
        "rule": find_areas(profile, rule),
        "true": areas_of(profile, classes, rule),
        "one": areas_of(profile, np.zeros(n, np.intp), rule),
        "each": areas_of(profile, np.arange(n), rule),
    }


def simulate(items: Items, user: User, rules: Rules, ways_to: Ways = ways) -> dict[str, Values]:
    """The user's values by way, each the mean of both directions."""
    both = [_one_way(items, user, source, target, rules, ways_to) for source, target in ((IMAGE, TEXT), (TEXT, IMAGE))]
    return {
        way: {name: float(np.mean([values[way][name] for values in both])) for name in both[0][way]} for way in both[0]
    }


def _one_way(items: Items, user: User, source: str, target: str, rules: Rules, ways_to: Ways) -> dict[str, Values]:
    """The values by way of a profile of the modality `source` to whom `target` is recommended."""
    profile = uploaded(user.own, source, items.vectors(source))
    true = user.groups()
    found = ways_to(profile, true, rules.areas)
    vectors = items.vectors(target)
    index = search_space(user, target, vectors, rules)
    as_in_paper = search(index, target, found, rules.ranking.k)
    index.apply(_owned_by_others(user.peers, target, vectors))
    in_all = search(index, target, found, rules.ranking.k)
    relevant = len(user.wanted) + len(user.peers)
    return {
        way: {
            **paper_measures(profile, found[way], {target: as_in_paper[way]}, user, rules.ranking),
            **_feed_measures(profile, found[way], {target: in_all[way]}, user, relevant, vectors, rules.ranking),
            "ari": measures.adjusted_rand(group_numbers(found[way], len(true)), true),
            "areas": len(found[way]),
        }
        for way in found
    }


def uploaded(own: Classes, modality: str, vectors: npt.NDArray[np.float32]) -> Profile:
    """The profile of a user who owns these rows, (m,), of the items of one modality, unit vectors (n, d)."""
    return Profile(
        USER,
        1,
        _asset_ids(own, modality),
        [modality] * len(own),
        np.arange(len(own)),
        vectors[own].astype(np.float16).astype(np.float32),  # as the truth keeps them
    )


def search_space(user: User, modality: str, vectors: npt.NDArray[np.float32], rules: Rules) -> LiveIndex:
    """The paper's search space of one modality: one wanted asset a class, and nothing else of the user's classes."""
    index = LiveIndex(vectors.shape[1], OTHERS_MAX, rules.dead_share_max)
    index.apply(_owned_by_others(np.concatenate([user.wanted, user.strangers]), modality, vectors))
    return index


def search(index: LiveIndex, target: str, found: Mapping[str, Sequence[Area]], k: int) -> dict[str, Hits]:
    """Each way's hits, one line an area, of one search with the seeds of all."""
    seeds = np.stack([area.seed for of_way in found.values() for area in of_way])
    hits = index.search(target, seeds, [USER] * len(seeds), k)
    ends = np.cumsum([len(of_way) for of_way in found.values()]).tolist()
    return {
        way: hits.lines(slice(end - len(of_way), end)) for (way, of_way), end in zip(found.items(), ends, strict=True)
    }


def paper_measures(
    profile: Profile, areas: Sequence[Area], hits: Mapping[str, Hits], user: User, rule: RankingRule
) -> Values:
    """Where one asset a class is to be found: the share of these in the feed, and in the union of the top tens."""
    recommendations = rank(profile, areas, hits, rule, "", 0)
    (target,) = hits
    lists = [
        user.classes[_row(item.asset_id)]
        for area in recommendations.areas
        for item in area.recommended[target][:PAPER_K]
    ]
    feeds = user.classes[np.array([_row(item.asset_id) for item in recommendations.feed], np.intp)][None, :]
    wanted = np.array([len(user.wanted)])
    return {
        "paper_recall": measures.paper_recall(np.array(lists, np.intp), len(user.wanted)),
        **{f"recall@{length}": measures.recall(feeds, wanted, length)[0] for length in LENGTHS},
    }


def _feed_measures(
    profile: Profile,
    areas: Sequence[Area],
    hits: Mapping[str, Hits],
    user: User,
    relevant: int,
    vectors: npt.NDArray[np.float32],
    rule: RankingRule,
) -> Values:
    """Where everything of the user's classes is wanted: what the feed is made of."""
    rows = np.array([_row(item.asset_id) for item in rank(profile, areas, hits, rule, "", 0).feed])
    feeds = user.classes[rows][None, :]
    near = measures.near_duplicates(vectors[rows], NEAR)
    modality = np.zeros(len(rows), np.str_)  # all are of one
    values: Values = {}
    for length in LENGTHS:
        values[f"precision@{length}"] = measures.precision(feeds, length)[0]
        values[f"ndcg@{length}"] = measures.ndcg(feeds, np.array([relevant]), length)[0]
        values[f"coverage@{length}"] = measures.coverage(feeds, len(user.wanted), length)[0]
        values[f"near_duplicates@{length}"] = float(near[:length].mean())
        diversity = measures.diversity(vectors[rows[:length]], modality[:length])
        values[f"diversity@{length}"] = float(np.nan_to_num(diversity))  # what shows one item has none
    return values


def _owned_by_others(rows: Classes, modality: str, vectors: npt.NDArray[np.float32]) -> Embeddings:
    n = len(rows)
    return Embeddings(
        "",
        _asset_ids(rows, modality),
        [OTHERS] * n,
        [modality] * n,
        np.ones(n, np.int64),
        np.zeros(n, np.int64),
        vectors[rows].astype(np.float16),
        np.ones(n, np.bool_),
    )


def _asset_ids(rows: Classes, modality: str) -> list[str]:
    return [f"{modality}-{row}" for row in rows.tolist()]


def _row(asset_id: str) -> int:
    return int(asset_id.rpartition("-")[2])


def group_numbers(areas: Sequence[Area], n: int) -> Classes:
    """(n,) the number of each asset's area; what is in none is a group of its own."""
    numbers = len(areas) + np.arange(n)
    for number, area in enumerate(areas):
        numbers[area.members] = number
    return numbers
