from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist
from scipy.stats import median_abs_deviation
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from tests.made_up import RULE, Floats, labels_of, mixture, named, profile_of, space, units, worlds
from zccr_stream import catalogue, grouping
from zccr_stream.catalogue import Catalogue
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.events.identifiers import lot
from zccr_stream.grouping import CUT, Limits
from zccr_stream.interests import find_areas
from zccr_stream.settings import Settings

LIMITS = Limits(
    rise=1.5, nearest=0.4, doubt_max=3.0, sure=10.5, even=3.0, alike=0.3, clear=0.5, apart=0.3, loose=1.0, broad=np.inf
)  # closer
TOGETHER = replace(LIMITS, loose=-np.inf)  # nothing that is left over is parted


@settings(max_examples=30)
@given(
    st.lists(st.integers(3, 40), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1000, 120]),
    st.sampled_from([0.2, 0.6]),
)
def test_clear_areas_are_found_whatever_their_number_and_size(
    sizes: list[int], seed: int, sample_size: int, spread: float
) -> None:
    """Above `sample_size` too, where most assets are only given to the nearest area."""
    # What has nobody in the sample cannot be found, so there areas are large enough to have somebody.
    truth = np.repeat(np.arange(len(sizes)), np.maximum(sizes, 30) if sample_size < 1000 else sizes)
    profile = profile_of(mixture(truth.tolist(), 512, spread, seed))

    areas = find_areas(profile, replace(RULE, cut=1.0, sample_size=sample_size))

    assert adjusted_rand_score(truth, labels_of(areas, len(truth))) == 1


@settings(max_examples=40)
@given(st.integers(2, 60), st.sampled_from([8, 100]), st.sampled_from([0.9, 0.99]), st.integers(0, 2**32 - 1))
def test_areas_are_those_of_sklearns_pca_and_ward(n: int, dimension: int, variance: float, seed: int) -> None:
    """With more assets than dimensions and with fewer; without growth, which sklearn does not know."""
    vectors = mixture([row % 4 for row in range(n)], dimension, 0.9, seed)
    reduced = PCA(variance, svd_solver="full").fit_transform(vectors.astype(np.float64))
    heights = linkage(pdist(reduced), "ward")[:, 2]
    cut = float(np.median(heights)) + 1e-3
    if np.abs(heights - cut).min() < 5e-4:
        return  # float32 may fall on the other side

    areas = find_areas(profile_of(vectors), replace(RULE, variance=variance, cut=cut, growth=0.0))

    expected = AgglomerativeClustering(n_clusters=None, distance_threshold=cut).fit_predict(reduced)
    assert adjusted_rand_score(expected, labels_of(areas, n)) == 1


@settings(max_examples=40)
@given(st.integers(2, 60), st.sampled_from([0.0, 0.2, 0.5]), st.sampled_from([1, 2, 5, 100]), st.integers(0, 2**32 - 1))
def test_the_cut_grows_with_size_and_only_the_widest_merges_split_where_there_are_too_many(
    n: int, growth: float, areas_max: int, seed: int
) -> None:
    """Oracle: from the root down, split the widest of what holds a merge that is too high while there is room."""
    vectors = mixture([row % 4 for row in range(n)], 16, 0.9, seed)
    tree = linkage(pdist(vectors.astype(np.float64)), "ward")
    heights = tree[:, 2] / (tree[:, 3] / 2) ** growth

    def members(node: int) -> list[int]:
        return [node] if node < n else [row for child in tree[node - n, :2] for row in members(int(child))]

    def highest(node: int) -> float:
        children = [] if node < n else [highest(int(child)) for child in tree[node - n, :2]]
        return max([heights[node - n], *children]) if node >= n else 0.0

    cut = float(np.median(heights)) + 1e-3
    if np.abs(heights - cut).min() < 5e-4:
        return  # float32 may fall on the other side
    nodes = [2 * n - 2]
    while (wide := [node for node in nodes if highest(node) > cut]) and len(nodes) < areas_max:
        widest = max(wide)  # scipy's merges widen
        nodes = [node for node in nodes if node != widest] + tree[widest - n, :2].astype(int).tolist()

    areas = find_areas(profile_of(vectors), replace(RULE, variance=1.0, cut=cut, growth=growth, areas_max=areas_max))

    assert {tuple(sorted(area.members.tolist())) for area in areas} == {tuple(sorted(members(node))) for node in nodes}


@pytest.mark.parametrize(("kinds", "assets", "areas_max"), [(40, 20, 20), (50, 20, 25), (120, 8, 100), (20, 20, 10)])
def test_where_there_are_more_kinds_than_areas_few_kinds_share_one(kinds: int, assets: int, areas_max: int) -> None:
    """As in Ward's tree cut into so many: by limits that grow with size, large areas would stay whole."""
    own = mixture(np.repeat(np.arange(kinds), assets).tolist(), 128, 0.8, seed=3)
    rule = replace(RULE, cut=None, areas_max=areas_max, catalogues={IMAGE: Catalogue.of(own[:: len(own) // 400])})

    areas = find_areas(profile_of(own), rule)

    assert len(areas) == areas_max
    assert max(len(area.members) for area in areas) <= 4 * assets


@pytest.mark.parametrize("kinds", [1, 2, 5, 10, 25])
@pytest.mark.parametrize("assets", [5, 20])
@pytest.mark.parametrize("shared", [0.0, 1.0, 3.0])
def test_the_catalogue_gives_the_cut_of_any_encoder(kinds: int, assets: int, shared: float) -> None:
    """The more all assets have in common, the nearer they lie: no one distance parts them."""
    vectors = space(50, 64, 0.6, shared, seed=kinds)
    rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)})
    rows = np.concatenate([np.arange(20 * kind, 20 * kind + assets) for kind in range(kinds)])

    areas = find_areas(profile_of(vectors[rows]), rule)

    assert adjusted_rand_score(rows // 20, labels_of(areas, len(rows))) > 0.95


@pytest.mark.parametrize(
    ("kinds", "assets", "outliers"), [(1, 10, 0), (1, 300, 0), (5, 40, 5), (10, 5, 0), (20, 50, 10), (50, 40, 0)]
)
@pytest.mark.parametrize(("spread", "shared"), [(0.6, 0.0), (1.0, 1.0)])
def test_the_catalogue_gives_the_cut_of_any_size_with_outliers(
    kinds: int, assets: int, outliers: int, spread: float, shared: float
) -> None:
    """One cut for profiles from ten assets to two thousand; no outlier joins a kind, and of ten at most two are one."""
    catalogue = space(100, 512, spread, shared, seed=1)
    own = mixture(np.repeat(np.arange(kinds), assets).tolist(), 512, spread, seed=7).astype(np.float64)
    odd = mixture(list(range(outliers)), 512, spread, seed=8).astype(np.float64).reshape(-1, 512)
    vectors = np.concatenate([own, odd])
    vectors[:, 0] += shared
    truth = np.concatenate([np.repeat(np.arange(kinds), assets), kinds + np.arange(outliers)])

    areas = find_areas(profile_of(units(vectors)), replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(catalogue)}))

    assert adjusted_rand_score(truth, labels_of(areas, len(truth))) > 0.99
    odd_areas = [truth[area.members] for area in areas if (truth[area.members] >= kinds).any()]
    assert outliers - 1 <= len(odd_areas) and all((of_area >= kinds).all() for of_area in odd_areas)


@pytest.mark.parametrize("kinds", [3, 5, 10])
def test_a_catalogue_of_few_kinds_does_not_part_users_of_one(kinds: int) -> None:
    """Its mean and its covariance are these kinds' own, so that assets of one look little more alike than strangers."""
    vectors = space(kinds, 128, 1.2, 0.5, seed=kinds)
    rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)})

    found = [len(find_areas(profile_of(vectors[20 * kind : 20 * kind + 20]), rule)) for kind in range(kinds)]
    assert found == [1] * kinds


@pytest.mark.parametrize("seed", range(3))
def test_kinds_that_the_catalogue_has_much_of_are_found_though_their_assets_are_little_alike(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a profile's own assets alone they could be strangers: what others have uploaded tells."""
    kind = np.repeat(np.arange(8), 60)
    vectors = mixture(kind.tolist(), 128, 2.0, seed)
    rows = np.flatnonzero((kind < 4) & (np.arange(len(kind)) % 60 < 5))

    def found() -> float:
        rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)})
        return float(adjusted_rand_score(kind[rows], labels_of(find_areas(profile_of(vectors[rows]), rule), len(rows))))

    among_kin = found()
    monkeypatch.setattr(catalogue, "_PULL", 0.0)
    assert among_kin > 0.7
    assert found() < among_kin


def test_kinds_that_a_small_catalogue_hardly_has_are_not_parted_by_what_is_alike_by_chance() -> None:
    """Of 200 loose kinds a hundred assets hold few twice: what is above two deviations are strangers."""
    kind = np.repeat(np.arange(200), 12)
    rows = np.flatnonzero((kind < 5) & (np.arange(len(kind)) % 12 < 10))
    found = []
    for seed in range(8):
        vectors = mixture(kind.tolist(), 128, 2.6, seed)
        sample = vectors[np.random.default_rng(seed).choice(len(vectors), 100, replace=False)]
        areas = find_areas(profile_of(vectors[rows]), replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(sample)}))
        found.append(adjusted_rand_score(kind[rows], labels_of(areas, len(rows))))

    assert np.mean(found) > 0.5


@pytest.mark.parametrize("dimension", [8, 64, 512])
def test_two_assets_that_all_are_copies_of_are_two_areas(dimension: int) -> None:
    """Seen from such a catalogue strangers' cosines are 1 or -1, and so is what is loose."""
    vectors = np.repeat(mixture([0, 1], dimension, 0.0, seed=0), 60, axis=0)

    areas = find_areas(profile_of(vectors), replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)}))

    assert sorted(area.members.tolist() for area in areas) == [list(range(60)), list(range(60, 120))]


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4, 16, 64]), st.integers(2, 60))
def test_the_more_sure_kin_is_the_farther_apart_may_it_lie(seed: int, dimension: int, n: int) -> None:
    """Held against loops over the merges that hold an asset."""
    random = np.random.default_rng(seed)
    catalogue = replace(Catalogue.of(units(random.normal(size=(300, dimension)))), within=random.uniform(1, 900))
    kinds = random.normal(size=(4, dimension))[random.integers(4, size=n)]
    seen = catalogue.seen(units(kinds + random.uniform(0.2, 2) * random.normal(size=(n, dimension))))
    tree = grouping._tree(seen, RULE)

    holds = [{row} for row in range(n)]
    for left, right in tree[:, :2].astype(int).tolist():
        holds.append(holds[left] | holds[right])
    p, surest = catalogue.dimensions, [0.0] * n
    for rows in map(sorted, holds[n:]):
        cosine = np.mean([seen[one] @ seen[other] for one, other in combinations(rows, 2)])
        for row in rows:
            surest[row] = max(surest[row], cosine * (p * (len(rows) - 1)) ** 0.5)
    doubt = LIMITS.doubt_max * max(1 - np.median(surest) / LIMITS.sure, 0) ** 2
    m = tree[:, 3]
    of_kind = min(max(p, catalogue.within / LIMITS.even), LIMITS.even * p)
    limits = 1 + (LIMITS.rise * (m / 2) ** 0.5 - doubt) / of_kind**0.5 - LIMITS.nearest * (2 * np.log(n / m) / p) ** 0.5
    farthest = 2**0.5 * np.maximum(limits, 0.25)

    heights = LIMITS.heights(tree, grouping._cosines(seen, tree), catalogue)
    assert heights == pytest.approx(tree[:, 2] / farthest, rel=1e-4)


@pytest.mark.parametrize("assets", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("seed", range(3))
def test_kinds_of_one_world_are_told_apart_on_a_platform_of_two(assets: int, seed: int) -> None:
    """Where two assets of any kinds of one world are far more alike than most."""
    vectors, kind = worlds(2, 20, 1.5, 0.6, seed)
    rows = np.flatnonzero((kind < 10) & (np.arange(len(kind)) % 25 < assets))

    areas = find_areas(profile_of(vectors[rows]), replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)}))

    assert sorted(kind[rows][area.members].tolist() for area in areas) == [[kind] * assets for kind in range(10)]


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_kinds_of_a_platform_that_has_two_are_found_where_every_asset_was_uploaded_often(
    copies: int, seed: int
) -> None:
    """Where p is 3 a cosine says little: uploaded once, each of these assets is still an area of its own."""
    kinds = np.repeat([0, 1], 250)
    vectors = mixture(kinds.tolist(), 128, 0.3, seed)
    own = np.repeat(vectors[np.r_[:10, 250:260]], copies, axis=0)
    truth = np.repeat([0, 1], 10 * copies)

    areas = find_areas(profile_of(own), replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)}))

    assert adjusted_rand_score(truth, labels_of(areas, len(own))) > 0.5


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(2, 12), st.integers(2, 4))
def test_copies_of_an_asset_are_one_area_in_the_smallest_spaces(seed: int, dimension: int, n: int, copies: int) -> None:
    """Where p is 4 and less, strangers' deviations alone would set limits below 0."""
    random = np.random.default_rng(seed)
    catalogue = Catalogue.of(units(random.normal(size=(300, dimension))))
    own = units(random.normal(size=(n, dimension)))
    vectors = units(np.repeat(own, copies, axis=0) + 1e-3 * random.normal(size=(n * copies, dimension)))

    labels = labels_of(
        find_areas(profile_of(vectors), replace(RULE, cut=None, catalogues={IMAGE: catalogue})), n * copies
    )

    assert all(len(set(labels[copies * asset : copies * (asset + 1)].tolist())) == 1 for asset in range(n))


@pytest.mark.parametrize("areas_max", [4, 5, 9])
@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_over_falls_into_as_many_areas_as_there_is_room_for(seed: int, areas_max: int) -> None:
    """Beside three kinds, which stay what they are."""
    vectors = space(60, 32, 0.6, 0.5, seed)
    catalogue = Catalogue.of(vectors)
    rows = np.concatenate([np.arange(5), np.arange(20, 25), np.arange(40, 45), np.arange(60, 1200, 20)])
    labels = np.repeat([0, 1, 2, 3], [5, 5, 5, len(rows) - 15])

    parted = grouping._part(catalogue.seen(vectors[rows]), labels, replace(RULE, areas_max=areas_max), catalogue)

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


@pytest.mark.parametrize(
    "wrong",
    [{"rise": -1}, {"nearest": np.nan}, {"doubt_max": np.inf}, {"sure": 0}, {"sure": np.nan}, {"even": 0.9},
     {"even": np.nan}, {"alike": -0.1},
     {"clear": np.nan}, {"apart": np.nan}, {"loose": np.nan}, {"broad": np.nan},
     {"strangers": 0.5}, {"strangers": np.nan}],
)  # fmt: skip
def test_limits_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Limits(**wrong)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 16, 64]), st.integers(2, 60))
def test_areas_that_are_as_close_as_one_are_joined_the_clearest_first(seed: int, dimension: int, n: int) -> None:
    """Held against loops over cosines."""
    random = np.random.default_rng(seed)
    catalogue = Catalogue.of(units(random.normal(size=(300, dimension))))
    kinds = random.normal(size=(4, dimension))[random.integers(4, size=n)]
    seen = catalogue.seen(units(kinds + random.uniform(0.2, 1) * random.normal(size=(n, dimension))))
    labels = np.unique(random.integers(max(1, n // 3), size=n), return_inverse=True)[1]

    joined = grouping._join(seen, labels, np.arange(n), LIMITS, catalogue)

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


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 64]), st.integers(2, 8))
def test_what_is_uploaded_often_counts_once_where_areas_are_joined(seed: int, dimension: int, areas: int) -> None:
    random = np.random.default_rng(seed)
    catalogue = Catalogue.of(units(random.normal(size=(300, dimension))))
    labels = np.repeat(np.arange(areas), 3)
    kinds = random.normal(size=(3, dimension))[labels % 3]
    seen = catalogue.seen(units(kinds + random.uniform(0.2, 1) * random.normal(size=kinds.shape)))
    often = np.repeat(np.arange(len(seen)), random.integers(1, 4, size=len(seen)))

    once = grouping._join(seen, labels, np.arange(len(seen)), LIMITS, catalogue)
    with_copies = grouping._join(seen[often], labels[often], often, LIMITS, catalogue)

    assert adjusted_rand_score(once[often], with_copies) == 1


def test_of_copies_alone_nothing_says_how_alike_their_area_is_inside() -> None:
    """They are as alike as can be, and two areas of them are one if what they hold is."""
    catalogue = Catalogue.of(units(np.random.default_rng(0).normal(size=(300, 64))))  # .06 of cosine is clear
    one, close, far = (units(np.array([[*xy, 0]]))[0] for xy in ((1, 0), (0.5, 0.866), (0.3, 0.954)))
    apart, side = (units(np.array([xyz]))[0] for xyz in ((0.4, 0.917, 0), (0.2, -0.2, 0.96)))

    def joined(assets: list[Floats], copies: list[int], labels: list[int]) -> bool:
        found = grouping._join(np.stack(assets), np.array(labels), np.array(copies), LIMITS, catalogue)
        return bool(found.max() == 0)

    assert joined([one, one, close, close], [0, 0, 1, 1], [0, 0, 1, 1])
    assert not joined([one, one, far, far], [0, 0, 1, 1], [0, 0, 1, 1])
    assert joined([one, one, apart, side], [0, 0, 1, 2], [0, 0, 1, 1])


def test_copies_are_what_differs_by_no_more_than_how_it_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    random, taken = np.random.default_rng(0), []
    vectors = units(random.normal(size=(300, 64)))
    nearly, alike = (units(vectors[:4] + length * units(random.normal(size=(4, 64)))) for length in (0.05, 0.4))
    rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)})

    def take(_seen: Floats, labels: npt.NDArray[np.intp], copies: npt.NDArray[np.intp], *_: object) -> object:
        taken.append(copies)
        return labels

    monkeypatch.setattr(grouping, "_join", take)

    find_areas(profile_of(np.concatenate([vectors[:4], nearly, alike])), rule)

    (copies,) = taken
    assert len(set(copies[:8])) == 4 and (copies[:4] == copies[4:8]).all()
    assert set(copies[:8]).isdisjoint(copies[8:])


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
    """Held against loops over cosines; copies count once."""
    random = np.random.default_rng(seed)
    catalogue = Catalogue.of(units(random.normal(size=(300, dimension))))
    kind = shared * random.normal(size=dimension)
    once = units(kind + random.normal(size=(n, dimension)))
    labels = np.unique(random.integers(max(1, n // 3), size=n), return_inverse=True)[1]
    often = np.repeat(np.arange(n), random.integers(1, 4, size=n))

    joined = grouping._one_if_broad(once[often], labels[often], often, Limits(), catalogue)

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
    assert joined.tolist() == expected[often].tolist()


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
    """Held against loops over cosines; copies count once."""
    random = np.random.default_rng(seed)
    catalogue = Catalogue.of(units(random.normal(size=(300, dimension))))
    kinds = shared * random.normal(size=(n, dimension))
    labels = np.unique(random.integers(max(1, n // 8), size=n), return_inverse=True)[1]
    once = units(kinds[labels] * (random.random(n) < 0.8)[:, None] + random.normal(size=(n, dimension)))
    often = np.repeat(np.arange(n), random.integers(1, 4, size=n))

    found = grouping._put_out(once[often], labels[often], often, replace(RULE, areas_max=10**6), catalogue)

    def closeness(one: int, others: list[int]) -> float:
        total = once[[other for other in others if other != one]].sum(axis=0, dtype=np.float64)
        return float(once[one] @ total / np.linalg.norm(total)) if set(others) - {one} else 1.0

    kept = np.ones(n, np.bool_)
    for label in range(labels.max() + 1):
        rows = np.flatnonzero(labels == label).tolist()
        own = np.array([closeness(row, rows) for row in rows])
        usual = np.median(own)
        tight = usual - 8 * median_abs_deviation(own, scale="normal")
        plainly = max(0, min(0.25 * usual, tight))
        assume(min(abs(own - plainly)) > 1e-4)
        if np.count_nonzero(own < plainly) < 2:
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
    assert found[kept[often]].tolist() == labels[often][kept[often]].tolist()
    assert set(found[~kept[often]].tolist()).isdisjoint(labels.tolist())
    assert len(set(zip(often.tolist(), found.tolist(), strict=True))) == n  # copies stay together
    assert set(found.tolist()) == set(range(found.max() + 1))


@pytest.mark.parametrize("dimension", [32, 64])
@pytest.mark.parametrize(("most", "others"), [(20, 5), (30, 5), (40, 8)])
def test_strangers_do_not_vanish_in_what_a_user_has_most_of(dimension: int, most: int, others: int) -> None:
    """However large one kind is, what else a user uploaded now and then are areas of their own."""
    found, swallowed = [], []
    for seed in range(6):
        vectors = mixture(np.repeat(np.arange(60), 80).tolist(), dimension, 0.9, seed)
        rows = np.array([*range(most), *range(80, 80 * (others + 1), 80)])
        true = np.array([0] * most + list(range(1, others + 1)))
        profile = profile_of(vectors[rows])
        rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors[::7])})
        without = replace(rule, limits=Limits(strangers=np.inf))
        found.append(adjusted_rand_score(true, labels_of(find_areas(profile, rule), len(rows))))
        swallowed.append(adjusted_rand_score(true, labels_of(find_areas(profile, without), len(rows))))

    assert np.mean(found) > 0.75, found
    assert np.mean(found) > np.mean(swallowed) + 0.15, (found, swallowed)


@pytest.mark.parametrize("areas_max", [1, 2, 4])
def test_strangers_are_put_out_as_far_as_there_is_room(areas_max: int) -> None:
    vectors = mixture(np.repeat(np.arange(40), 50).tolist(), 128, 1.0, 0)
    rows = np.array([*range(20), *range(50, 300, 50)])
    rule = replace(RULE, cut=None, areas_max=areas_max, catalogues={IMAGE: Catalogue.of(vectors)})

    areas = find_areas(profile_of(vectors[rows]), rule)

    assert len(areas) <= areas_max
    assert sum(len(area.members) for area in areas) == len(rows)


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
    monkeypatch.setattr(grouping, "_join", lambda _seen, labels, *_rule: labels)
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
    monkeypatch.setattr(grouping, "_settle", lambda _, labels: labels)
    by_ward = labels_of(find_areas(profile, rule), len(rows))

    assert restless(seen, labels) == []
    assert restless(seen, by_ward) != []
    assert adjusted_rand_score(truth, labels) > adjusted_rand_score(truth, by_ward)


def test_what_is_far_from_everything_does_not_join_what_is_alone() -> None:
    """Though it is closer to that than to the others of its own area."""
    far = [0.2, 0.1, 0.97]
    seen = units(np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], far]))
    near = units(np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0.4, 0.1, 0.9]]))

    assert grouping._settle(seen, np.array([0, 1, 1, 1])).tolist() == [0, 1, 1, 1]
    assert grouping._settle(near, np.array([0, 1, 1, 1])).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_assets_that_would_change_places_for_ever_come_to_rest(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = space(30, 32, 1.6, 0.5, seed)
    catalogue = Catalogue.of(vectors)
    rows = 20 * np.repeat(np.arange(12), 12) + np.tile(np.arange(12), 12)
    profile, rule = profile_of(vectors[rows]), replace(RULE, cut=None, limits=TOGETHER, catalogues={IMAGE: catalogue})
    seen = catalogue.among_kin(catalogue.seen(vectors[rows]))

    assert restless(seen, labels_of(find_areas(profile, rule), len(rows))) == []
    monkeypatch.setattr(grouping, "_INERTIA", 0)
    monkeypatch.setattr(grouping, "count", lambda: range(100))
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
    monkeypatch.setattr(grouping, "_settle", lambda _, labels: labels)

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
    monkeypatch.setattr(grouping, "_STRANGE", -1.0)
    assert not set(labels_of(find_areas(profile, rule), 205)[200:]).isdisjoint(labels[:200])


@pytest.mark.parametrize("shared", [0.0, 1.0, 3.0])
def test_two_assets_are_one_area_where_they_are_alike_and_two_where_they_are_not(shared: float) -> None:
    vectors = space(50, 512, 0.6, shared, seed=0)
    rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)})

    alike = [len(find_areas(profile_of(vectors[[20 * kind, 20 * kind + 1]]), rule)) for kind in range(50)]
    others = [len(find_areas(profile_of(vectors[[20 * kind, 20 * kind - 1]]), rule)) for kind in range(50)]

    assert alike == [1] * 50
    assert others.count(2) >= 45


def test_a_catalogues_cut_is_its_modalitys_own() -> None:
    """Nothing is known of texts, so the setting holds for them."""
    vectors = space(50, 64, 0.6, 3.0, seed=0)
    rows = np.concatenate([np.arange(60), np.arange(60)])
    profile = profile_of(vectors[rows], [IMAGE] * 60 + [TEXT] * 60)

    areas = find_areas(profile, replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)}))

    assert sorted(area.modality for area in areas) == [IMAGE] * 3 + [TEXT]


def test_a_catalogue_of_equal_assets_has_no_scale_and_still_gives_areas() -> None:
    vectors = np.repeat(mixture([0], 64, 0.0, seed=0), 10, axis=0)
    rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)})

    (area,) = find_areas(profile_of(vectors), rule)

    assert len(area.members) == 10
    with pytest.raises(ValueError, match="a catalogue of 1 vectors; expected at least 2"):
        Catalogue.of(vectors[:1])


def test_more_than_areas_max_kinds_of_assets_are_all_covered() -> None:
    profile = profile_of(mixture(list(range(40)), 64, 0.0, seed=1))

    areas = find_areas(profile, replace(RULE, cut=0.1, areas_max=7))

    assert len(areas) == 7
    assert sum(len(area.members) for area in areas) == 40


@pytest.mark.parametrize("n", [1, 2, 3, 500, 5000])
def test_identical_assets_are_one_area(n: int) -> None:
    profile = profile_of(np.repeat(mixture([0], 512, 1.0, seed=n), n, axis=0))

    (area,) = find_areas(profile, RULE)

    assert (len(area.members), area.weight, area.medoid) == (n, 1.0, 0)


def test_a_hundred_thousand_assets_keep_their_areas() -> None:
    truth = np.random.default_rng(0).integers(8, size=100_000)
    profile = profile_of(mixture(truth.tolist(), 64, 0.6, seed=0), [IMAGE, TEXT] * 50_000)

    areas = find_areas(profile, RULE)

    assert len(areas) == 16
    images = np.arange(0, 100_000, 2)
    labels = labels_of(areas, 100_000)
    assert adjusted_rand_score(truth[images], labels[images]) > 0.999
    assert adjusted_rand_score(truth[images + 1], labels[images + 1]) > 0.999


def test_what_was_not_sampled_goes_to_the_nearest_centroid_not_to_the_tightest_area() -> None:
    """A loose area's centroid is short, so the greatest product with it is not the least distance."""
    random = np.random.default_rng(0)
    axes = units(np.linalg.qr(random.normal(size=(512, 2)))[0].T)
    tight = np.repeat([0.75 * axes[0] + 0.66 * axes[1]], 300, axis=0) + 0.1 * random.normal(size=(300, 512)) / 512**0.5
    loose = 0.7 * axes[0] + 0.71 * random.normal(size=(300, 512)) / 512**0.5
    truth = np.repeat([0, 1], 300)

    areas = find_areas(profile_of(units(np.concatenate([tight, loose]))), replace(RULE, cut=1.4, sample_size=150))

    assert adjusted_rand_score(truth, labels_of(areas, 600)) == 1


@pytest.mark.parametrize("seed", range(4))
def test_what_was_not_sampled_goes_where_it_is_closest_as_seen_in_the_catalogue(seed: int) -> None:
    """Of assets that differ most along a few axes."""
    random = np.random.default_rng(seed)
    kinds = np.repeat(random.normal(size=(30, 32)), 20, axis=0)
    axes = np.concatenate([[6, 5, 4], np.ones(29)])
    vectors = units((kinds + 0.9 * random.normal(size=kinds.shape)) * axes + 3 * np.eye(32)[5])
    catalogue = Catalogue.of(vectors)
    rows = 20 * np.repeat(np.arange(6), 20) + np.tile(np.arange(20), 6)
    profile = profile_of(vectors[rows])
    rule = replace(RULE, cut=None, catalogues={IMAGE: catalogue}, sample_size=60)

    labels = labels_of(find_areas(profile, rule), len(rows))

    seen, lots = catalogue.seen(vectors[rows]), np.array([lot(asset_id) for asset_id in profile.asset_ids])
    in_sample = lots < np.sort(lots)[60]
    centroids = units(np.stack([seen[in_sample & (labels == label)].sum(axis=0) for label in range(labels.max() + 1)]))
    assert (np.argmax(seen[~in_sample] @ centroids.T, axis=1) == labels[~in_sample]).all()


def test_one_upload_more_hardly_moves_the_areas_of_a_large_profile() -> None:
    """Which assets are sampled depends on each one's id alone."""
    vectors = mixture(np.random.default_rng(3).integers(6, size=2001).tolist(), 64, 1.4, seed=3)
    rule = replace(RULE, sample_size=200)
    before = find_areas(profile_of(vectors[:2000]), rule)
    after = find_areas(profile_of(vectors), rule)

    assert adjusted_rand_score(labels_of(before, 2000), labels_of(after, 2001)[:2000]) > 0.95
    assert len({area.area_id for area in before} & {area.area_id for area in after}) >= len(before) - 1


def test_the_constants_are_those_that_were_measured() -> None:
    """Whoever changes one prints the tables of docs/results.md anew: `experiments.constants`, `cuts`, `areas`."""
    assert Limits() == Limits(
        rise=1.75,
        nearest=0.6,
        doubt_max=3.0,
        sure=12.0,
        even=3.0,
        alike=0.3,
        clear=0.5,
        apart=0.3,
        loose=1.0,
        broad=0.4,
        strangers=2.0,
    )
    assert (CUT, Settings().area_growth) == (1.1, 0.2)
