from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import median_abs_deviation
from sklearn.metrics import adjusted_rand_score

from tests.made_up import LIMITS, RULE, TOGETHER, Floats, labels_of, mixture, named, profile_of, space, units, worlds
from zccr_stream.catalogue import Catalogue
from zccr_stream.events import IMAGE
from zccr_stream.grouping import Limits, regroup
from zccr_stream.interests import find_areas


@pytest.mark.parametrize("areas_max", [4, 5, 9])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_over_falls_into_as_many_areas_as_there_is_room_for(seed: int, areas_max: int) -> None:
    """Beside three kinds, which stay what they are."""
    vectors = space(60, 32, 0.6, 0.5, seed)
    catalogue = Catalogue.of(vectors)
    rows = np.concatenate([np.arange(5), np.arange(20, 25), np.arange(40, 45), np.arange(60, 1200, 20)])
    labels = np.repeat([0, 1, 2, 3], [5, 5, 5, len(rows) - 15])

    parted = regroup.part(catalogue.seen(vectors[rows]), labels, replace(RULE, areas_max=areas_max), catalogue)

    assert parted.max() + 1 == areas_max
    assert parted[:15].tolist() == labels[:15].tolist() and not set(parted[15:]) & {0, 1, 2}


def test_copies_of_the_asset_at_the_catalogues_mean_stay_together_beside_others_that_part() -> None:
    """They have no direction, and so no cosine by which they could be strangers."""
    axes = np.eye(8)
    catalogue = Catalogue.of(units(np.repeat(axes[:1], 100, axis=0)))
    odd = units(np.stack([0.1 * axes[0] + axes[1], 0.1 * axes[0] - axes[1]]))
    profile = profile_of(np.concatenate([np.repeat(units(axes[:1]), 3, axis=0), odd]))

    labels = labels_of(find_areas(profile, replace(RULE, cut=None, catalogues={IMAGE: catalogue})), 5)

    assert labels[0] == labels[1] == labels[2] and labels[3] != labels[4]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 16, 64]), st.integers(2, 60))
def test_areas_that_are_as_close_as_one_are_joined_the_clearest_first(seed: int, dimension: int, n: int) -> None:
    """Held against loops over cosines."""
    random = np.random.default_rng(seed)
    catalogue = Catalogue.of(units(random.normal(size=(300, dimension))))
    kinds = random.normal(size=(4, dimension))[random.integers(4, size=n)]
    seen = catalogue.seen(units(kinds + random.uniform(0.2, 1) * random.normal(size=(n, dimension))))
    labels = np.unique(random.integers(max(1, n // 3), size=n), return_inverse=True)[1]

    joined = regroup.join(seen, labels, LIMITS, catalogue)

    cosines = seen.astype(np.float64) @ seen.T
    groups = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    while pairs := [(one, other) for one, other in combinations(groups, 2) if min(len(one), len(other)) > 1]:

        def surplus(pair: tuple[npt.NDArray[np.intp], ...]) -> float:
            inside = np.concatenate([cosines[np.ix_(rows, rows)][~np.eye(len(rows), dtype=bool)] for rows in pair])
            clear = LIMITS.clear / catalogue.dimensions**0.5
            between = float(cosines[np.ix_(*pair)].mean())
            if inside.mean() - between > LIMITS.apart:
                return -np.inf
            return float(between - LIMITS.alike * inside.mean() - clear)

        best = max(pairs, key=surplus)
        if surplus(best) < 0:
            break
        groups = [rows for rows in groups if rows is not best[0] and rows is not best[1]] + [np.concatenate(best)]
    expected = np.empty(n, np.intp)
    for label, rows in enumerate(groups):
        expected[rows] = label
    assert adjusted_rand_score(expected, joined) == 1


@pytest.mark.parametrize("seed", range(3))
def test_uploading_all_again_parts_nothing(seed: int) -> None:
    """Copies, of which one is stored a little differently, are still what their kind is."""
    vectors = space(30, 64, 1.0, 0.5, seed)
    rows = 20 * np.repeat(np.arange(5), 8) + np.tile(np.arange(8), 5)
    again = units(vectors[rows] + 0.02 / 64**0.5 * np.random.default_rng(seed).normal(size=(40, 64)))
    own = np.concatenate([vectors[rows], vectors[rows], again])

    areas = find_areas(profile_of(own), replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)}))

    assert adjusted_rand_score(np.tile(rows // 20, 3), labels_of(areas, len(own))) > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_kinds_that_share_a_world_are_not_joined(seed: int) -> None:
    """Though they are far more alike than strangers are."""
    vectors, kind = worlds(5, 10, 1.2, 0.8, seed)
    own = np.random.default_rng(seed).permutation(50)[:20]
    rows = np.flatnonzero(np.isin(kind, own) & (np.arange(len(kind)) % 25 < 5))
    rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)})

    areas = find_areas(profile_of(vectors[rows]), rule)
    always = find_areas(profile_of(vectors[rows]), replace(rule, limits=Limits(apart=np.inf)))

    assert adjusted_rand_score(kind[rows], labels_of(areas, len(rows))) > 0.95
    assert adjusted_rand_score(kind[rows], labels_of(always, len(rows))) < 0.5


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 16, 64]), st.integers(2, 30), st.floats(0, 1))
def test_all_areas_are_one_where_they_are_closer_than_strangers(
    seed: int, dimension: int, n: int, shared: float
) -> None:
    """Held against loops over cosines."""
    random = np.random.default_rng(seed)
    catalogue = Catalogue.of(units(random.normal(size=(300, dimension))))
    kind = shared * random.normal(size=dimension)
    once = units(kind + random.normal(size=(n, dimension)))
    labels = np.unique(random.integers(max(1, n // 3), size=n), return_inverse=True)[1]

    joined = regroup.one_if_broad(once, labels, Limits(), catalogue)

    cosines, variances = [], []
    lengths = [np.linalg.norm(once[labels == label].sum(axis=0, dtype=np.float64)) for label in range(labels.max() + 1)]
    for one, other in combinations(range(n), 2):
        if labels[one] != labels[other]:
            cosines.append(float(once[one].astype(np.float64) @ once[other]))
    for longer, shorter in combinations(lengths, 2):
        variances.append((longer * shorter) ** 2 / catalogue.dimensions)
    times = max(1, min(catalogue.within / 3 / catalogue.dimensions, 3))
    least = times * max(0.4 * len(cosines) / catalogue.dimensions**0.5, 2 * sum(variances) ** 0.5)
    assume(abs(sum(cosines) - least) > 1e-4)
    expected = np.zeros(n, np.intp) if sum(cosines) > least else labels
    assert joined.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_a_broad_kind_is_one_area_and_two_of_them_are_not(seed: int) -> None:
    """Its sub-kinds are as far apart as its assets; no pair of areas tells that they are of one kind."""
    kinds = mixture(np.repeat(np.arange(30), 40).tolist(), 64, 1.6, seed)
    sub_kinds = mixture(list(range(300)), 64, 0.0, seed + 100)
    sub_kind = np.repeat(np.arange(30), 40) * 10 + np.tile(np.arange(10), 120)
    vectors = units((kinds + sub_kinds[sub_kind]).astype(np.float64))
    rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors[::2])})
    by_pairs = replace(rule, limits=Limits(broad=np.inf))
    one, two = profile_of(vectors[40:60]), profile_of(vectors[[*range(15), *range(80, 95)]])

    assert len(find_areas(one, rule)) == 1
    assert len(find_areas(one, by_pairs)) > 3
    assert named(two, find_areas(two, rule)) == named(two, find_areas(two, by_pairs))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 16, 64]), st.integers(2, 30), st.floats(0, 3))
def test_what_is_strange_to_its_area_is_put_out(seed: int, dimension: int, n: int, shared: float) -> None:
    """Held against loops over cosines; what lies at the catalogue's mean is strange to nothing."""
    random = np.random.default_rng(seed)
    catalogue = Catalogue.of(units(random.normal(size=(300, dimension))))
    kinds = shared * random.normal(size=(n, dimension))
    labels = np.unique(random.integers(max(1, n // 8), size=n), return_inverse=True)[1]
    once = units(kinds[labels] * (random.random(n) < 0.8)[:, None] + random.normal(size=(n, dimension)))
    once[0] = 0

    found = regroup.put_out(once, labels, replace(RULE, areas_max=10**6), catalogue)

    def closeness(one: int, others: list[int]) -> float:
        total = once[[other for other in others if other != one]].sum(axis=0, dtype=np.float64)
        return float(once[one] @ total / np.linalg.norm(total)) if one and total.any() else 1.0

    kept = np.ones(n, np.bool_)
    for label in range(labels.max() + 1):
        rows = np.flatnonzero(labels == label).tolist()
        own = np.array([closeness(row, rows) for row in rows])
        usual = np.median(own)
        tight = usual - 8 * median_abs_deviation(own, scale="normal")
        plainly, doubly = max(0, min(0.25 * usual, tight)), min(0, tight)
        assume(min(abs(own - plainly)) > 1e-4 and min(abs(own - doubly)) > 1e-4)
        if np.count_nonzero(own < plainly) < 2:
            kept[[row for row, value in zip(rows, own, strict=True) if value < doubly and len(rows) > 3]] = False
            continue
        near = rows
        while True:
            own = np.array([closeness(row, near) for row in near])
            least = 0.25 * np.median(own)
            assume(min(abs(own - least)) > 1e-4)
            nearer = [row for row, value in zip(near, own, strict=True) if value >= least]
            near, before = nearer, near
            if near in (before, []):
                break
        if 2 * len(near) >= len(rows):
            kept[np.setdiff1d(rows, near)] = False
    assert found[kept].tolist() == labels[kept].tolist()
    assert set(found[~kept].tolist()).isdisjoint(labels.tolist())
    assert set(found.tolist()) == set(range(found.max() + 1))


@pytest.mark.parametrize(("dimension", "spread"), [(24, 1.0), (32, 1.0)])
def test_strangers_do_not_vanish_in_what_a_user_has_most_of(dimension: int, spread: float) -> None:
    """However large one kind is, what else a user uploaded now and then are areas of their own."""
    most, others = 80, 4
    found, swallowed = [], []
    for seed in range(8):
        vectors = mixture(np.repeat(np.arange(60), 80).tolist(), dimension, spread, seed)
        rows = np.array([*range(most), *range(80, 80 * (others + 1), 80)])
        true = np.array([0] * most + list(range(1, others + 1)))
        profile = profile_of(vectors[rows])
        rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors[::7])})
        without = replace(rule, limits=Limits(strangers=np.inf))
        found.append(adjusted_rand_score(true, labels_of(find_areas(profile, rule), len(rows))))
        swallowed.append(adjusted_rand_score(true, labels_of(find_areas(profile, without), len(rows))))

    assert np.mean(found) > 0.75, found
    assert np.mean(found) > np.mean(swallowed) + 0.15, (found, swallowed)


@pytest.mark.parametrize("assets", [3, 4, 10, 30])
@pytest.mark.parametrize("dimension", [32, 512])
def test_one_stranger_beside_a_tight_kind_is_an_area_of_its_own(assets: int, dimension: int) -> None:
    """Of two that are alike and one that is not the latter is not told: one cosine says nothing of what is usual."""
    found = []
    for seed in range(10):
        vectors = mixture(np.repeat(np.arange(60), 80).tolist(), dimension, 0.2, seed)
        catalogue = Catalogue.of(vectors[::7])
        seen = catalogue.seen(vectors)
        other = 80 + int(np.argmin(seen[80:] @ seen[0]))
        profile = profile_of(vectors[[*range(assets), other]])
        areas = find_areas(profile, replace(RULE, cut=None, catalogues={IMAGE: catalogue}))
        found.append(sorted(len(area.members) for area in areas))

    assert found == [[1, assets]] * 10


def test_of_three_assets_none_is_put_out() -> None:
    """Two cosines do not say what is usual."""
    catalogue = Catalogue.of(units(np.random.default_rng(0).normal(size=(300, 64))))
    three = units(np.array([[1.0, 0, 0], [0.98, 0.2, 0], [-0.3, 0, 0.95]]))
    four = np.concatenate([three, units(np.array([[0.98, -0.2, 0]]))])

    assert regroup.put_out(three, np.zeros(3, np.intp), RULE, catalogue).tolist() == [0, 0, 0]
    assert regroup.put_out(four, np.zeros(4, np.intp), RULE, catalogue).tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("areas_max", [1, 2, 3, 5, 6, 20])
def test_strangers_are_put_out_as_far_as_there_is_room(areas_max: int) -> None:
    vectors = mixture(np.repeat(np.arange(40), 50).tolist(), 128, 1.0, 0)
    rows = np.array([*range(20), *range(50, 300, 50)])
    catalogue = Catalogue.of(vectors)
    seen = catalogue.among_kin(catalogue.seen(vectors[rows]))

    labels = regroup.put_out(seen, np.zeros(25, np.intp), replace(RULE, areas_max=areas_max), catalogue)

    assert set(labels[:20]) == {0}
    assert set(labels.tolist()) == set(range(min(areas_max, 6)))


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_what_a_user_has_most_of_is_one_area_though_ward_parts_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ward's areas tend to be of one size; these kinds have sub-kinds to part them by."""
    kinds = mixture(np.repeat(np.arange(30), 200).tolist(), 64, 0.9, seed)
    sub_kinds = mixture(list(range(300)), 64, 0.0, seed + 100)
    vectors = units(kinds + 0.9 * sub_kinds[np.repeat(np.arange(30), 200) * 10 + np.tile(np.arange(10), 600)])
    sizes = [160, 40, 20, 10, 5]
    rows = np.concatenate([np.arange(200 * kind, 200 * kind + size) for kind, size in enumerate(sizes)])
    truth = np.repeat(np.arange(5), sizes)
    profile, rule = profile_of(vectors[rows]), replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors[::10])})
    closer = replace(rule, limits=LIMITS)

    by_default, areas = find_areas(profile, rule), find_areas(profile, closer)
    monkeypatch.setattr(regroup, "join", lambda _seen, labels, *_rule: labels)
    by_ward = find_areas(profile, closer)

    assert adjusted_rand_score(truth, labels_of(by_default, len(rows))) > 0.85
    assert adjusted_rand_score(truth, labels_of(areas, len(rows))) > 0.95
    assert adjusted_rand_score(truth, labels_of(by_ward, len(rows))) < 0.6


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_assets_settle_in_the_area_that_is_closest_to_them(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against cosines asset by asset; Ward's tree alone leaves some where others are closer."""
    vectors = space(30, 32, 1.2, 0.5, seed)
    catalogue = Catalogue.of(vectors)
    truth = np.repeat(np.arange(6), 12)
    rows = 20 * truth + np.tile(np.arange(12), 6)
    profile, rule = profile_of(vectors[rows]), replace(RULE, cut=None, limits=TOGETHER, catalogues={IMAGE: catalogue})
    seen = catalogue.among_kin(catalogue.seen(vectors[rows]))

    labels = labels_of(find_areas(profile, rule), len(rows))
    monkeypatch.setattr(regroup, "settle", lambda _, labels: labels)
    by_ward = labels_of(find_areas(profile, rule), len(rows))

    assert restless(seen, labels) == []
    assert restless(seen, by_ward) != []
    assert adjusted_rand_score(truth, labels) > adjusted_rand_score(truth, by_ward)


def test_what_is_far_from_everything_does_not_join_what_is_alone() -> None:
    """Though it is closer to that than to the others of its own area."""
    far = [0.2, 0.1, 0.97]
    seen = units(np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], far]))
    near = units(np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0.4, 0.1, 0.9]]))

    assert regroup.settle(seen, np.array([0, 1, 1, 1])).tolist() == [0, 1, 1, 1]
    assert regroup.settle(near, np.array([0, 1, 1, 1])).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_assets_that_would_change_places_for_ever_come_to_rest(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = space(30, 32, 1.6, 0.5, seed)
    catalogue = Catalogue.of(vectors)
    rows = 20 * np.repeat(np.arange(12), 12) + np.tile(np.arange(12), 12)
    profile, rule = profile_of(vectors[rows]), replace(RULE, cut=None, limits=TOGETHER, catalogues={IMAGE: catalogue})
    seen = catalogue.among_kin(catalogue.seen(vectors[rows]))

    assert restless(seen, labels_of(find_areas(profile, rule), len(rows))) == []
    monkeypatch.setattr(regroup, "_INERTIA", 0)
    monkeypatch.setattr(regroup, "count", lambda: range(100))
    assert restless(seen, labels_of(find_areas(profile, rule), len(rows))) != []


def restless(seen: Floats, labels: npt.NDArray[np.intp]) -> list[int]:
    """Rows that are closer to another area than to the others of their own, unless that one's assets are far closer."""

    def closeness(row: int, label: int) -> float:
        others = np.flatnonzero((labels == label) & (np.arange(len(labels)) != row))
        total = seen[others].sum(axis=0)
        return float(seen[row] @ total / np.linalg.norm(total)) if len(others) else 1.0

    own = np.array([closeness(row, label) for row, label in enumerate(labels.tolist())])
    typical = [own[labels == label].mean() for label in range(labels.max() + 1)]
    return [
        row
        for row, mine in enumerate(labels.tolist())
        if np.count_nonzero(labels == mine) > 1
        and any(
            own[row] + 1e-5 < closeness(row, label) > 0.25 * mean for label, mean in enumerate(typical) if label != mine
        )
    ]


def test_an_absolute_cut_leaves_assets_where_ward_has_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = space(6, 32, 1.2, 0.5, seed=0)
    rule = replace(RULE, catalogues={IMAGE: Catalogue.of(vectors)})

    found = named(profile_of(vectors), find_areas(profile_of(vectors), rule))
    monkeypatch.setattr(regroup, "settle", lambda _, labels: labels)

    assert found == named(profile_of(vectors), find_areas(profile_of(vectors), rule))


def test_what_is_like_no_area_stays_out_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five strangers that Ward has left together are closer to this or that area than to each other, but not close."""
    catalogue = Catalogue.of(space(100, 512, 1.0, 1.0, seed=1))
    kinds = mixture(np.repeat(np.arange(5), 40).tolist(), 512, 1.0, seed=7).astype(np.float64)
    odd = mixture(list(range(5)), 512, 1.0, seed=8).astype(np.float64)
    vectors = np.concatenate([kinds, odd])
    vectors[:, 0] += 1
    profile, rule = profile_of(units(vectors)), replace(RULE, cut=None, catalogues={IMAGE: catalogue})

    labels = labels_of(find_areas(profile, rule), 205)
    assert set(labels[200:]).isdisjoint(labels[:200])
    monkeypatch.setattr(regroup, "_STRANGE", -1.0)
    assert not set(labels_of(find_areas(profile, rule), 205)[200:]).isdisjoint(labels[:200])
