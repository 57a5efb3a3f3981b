from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from tests.made_up import LIMITS, RULE, labels_of, mixture, profile_of, space, units, worlds
from zccr_stream import catalogue
from zccr_stream.catalogue import Catalogue
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.events.identifiers import lot
from zccr_stream.grouping import CUT, Limits, trees
from zccr_stream.interests import find_areas
from zccr_stream.settings import Settings


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
    tree = trees.ward(seen, RULE.variance)

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

    heights = LIMITS.heights(tree, trees.cosines(seen, tree), catalogue)
    assert heights == pytest.approx(tree[:, 2] / farthest, rel=1e-4)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 16, 64]), st.integers(2, 30))
def test_the_sides_of_a_merge_are_compared_asset_by_asset(seed: int, dimension: int, n: int) -> None:
    """Held against loops over cosines; what lies at the catalogue's mean has a cosine of 0 with all."""
    seen = units(np.random.default_rng(seed).normal(size=(n, dimension)))
    seen[0] = 0
    tree = trees.ward(seen, 1.0)

    inside, between, smaller = trees.sides(seen, tree)

    def cosines(pairs: Iterable[tuple[int, int]]) -> list[float]:
        return [float(seen[one].astype(np.float64) @ seen[other]) for one, other in pairs]

    holds = [{asset} for asset in range(n)]
    for merge, (left, right) in enumerate(trees.merges(tree)):
        holds.append(holds[left] | holds[right])
        insides = cosines(pair for side in (left, right) for pair in combinations(holds[side], 2))
        assert smaller[merge] == min(len(holds[left]), len(holds[right]))
        assert between[merge] == pytest.approx(np.mean(cosines(product(holds[left], holds[right]))), abs=1e-5)
        assert inside[merge] == pytest.approx(np.mean(insides or [0]), abs=1e-5)
        assert trees.cosines(seen, tree)[merge] == pytest.approx(np.mean(cosines(combinations(holds[-1], 2))), abs=1e-5)


def test_a_merge_is_of_two_areas_where_its_sides_are_unlike() -> None:
    """Of three assets each or more, which says something."""
    inside, between = np.array([0.5, 0.5, 0.5, 0.1, 0.4, -0.1]), np.array([0.07, 0.08, -0.2, 0.014, 0.0, 0.1])
    smaller = np.array([3, 9, 2, 3, 3, 5])

    assert Limits(unlike=0.15).are_two(inside, between, smaller).tolist() == [True, False, False, True, True, False]
    assert not Limits(unlike=-np.inf).are_two(inside, between, smaller).any()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([16, 64, 512]), st.integers(1, 8), st.integers(1, 8), st.floats(0, 2))
def test_how_often_what_was_uploaded_says_nothing(
    seed: int, dimension: int, kinds: int, assets: int, spread: float
) -> None:
    random = np.random.default_rng(seed)
    vectors = mixture(np.repeat(np.arange(30), 10).tolist(), dimension, spread, seed)
    rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)})
    rows = (10 * np.arange(kinds)[:, None] + np.arange(assets)).ravel()
    often = np.repeat(np.arange(len(rows)), random.integers(1, 6, size=len(rows)))

    once = labels_of(find_areas(profile_of(vectors[rows]), rule), len(rows))
    found = labels_of(find_areas(profile_of(vectors[rows][often]), rule), len(often))

    assert adjusted_rand_score(once[often], found) == 1


@pytest.mark.parametrize("often", [2, 7, 300])
def test_strangers_stay_strangers_however_often_they_were_uploaded(often: int) -> None:
    vectors = units(np.random.default_rng(0).normal(size=(300, 512)))
    rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)})
    rows = np.array([0] * often + [1] * often + [2, 3])

    areas = find_areas(profile_of(vectors[rows]), rule)

    assert sorted(len(area.members) for area in areas) == sorted([often, often, 1, 1])


def test_copies_are_what_differs_by_no_more_than_how_it_is_stored() -> None:
    random = np.random.default_rng(0)
    vectors = units(random.normal(size=(4, 64)))
    nearly, alike = (units(vectors + length * units(random.normal(size=(4, 64)))) for length in (0.05, 0.4))

    copies = trees.copies_of(np.concatenate([vectors, nearly, alike, np.zeros((2, 64), np.float32)]))

    assert len(set(copies[:8])) == 4 and (copies[:4] == copies[4:8]).all()
    assert len(set(copies[8:12])) == 4 and set(copies[:8]).isdisjoint(copies[8:])
    assert copies[12] == copies[13] and copies[12] not in copies[:12]
    assert trees.copies_of(alike).tolist() == [0, 1, 2, 3]


def test_a_chain_of_copies_is_not_one_asset() -> None:
    """Frames of a film: each is nearly the next, the first and the last have nothing in common."""
    angles = np.radians(np.arange(0, 90, 2.0))
    film = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    copies = trees.copies_of(film)

    assert 45 * 2 / 5.74 <= copies.max() + 1 < 45
    cosines = film @ film.T
    assert min(cosines[np.ix_(copies == one, copies == one)].min() for one in range(copies.max() + 1)) > 0.9949


@pytest.mark.parametrize(("dimension", "most", "fewest"), [(32, 30, 3), (32, 40, 5)])
def test_a_small_area_does_not_vanish_in_a_large_one(dimension: int, most: int, fewest: int) -> None:
    """Though limits rise with size, so that the large one may be as wide as kinds lie apart."""
    found, swallowed = [], []
    for seed in range(8):
        vectors = mixture(np.repeat(np.arange(60), 80).tolist(), dimension, 1.2, seed)
        rows, true = np.array([*range(most), *range(80, 80 + fewest)]), np.repeat([0, 1], [most, fewest])
        profile = profile_of(vectors[rows])
        rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors[::7])})
        without = replace(rule, limits=Limits(unlike=-np.inf))
        found.append(adjusted_rand_score(true, labels_of(find_areas(profile, rule), len(rows))))
        swallowed.append(adjusted_rand_score(true, labels_of(find_areas(profile, without), len(rows))))

    assert np.mean(found) > 0.7, found
    assert np.mean(found) > np.mean(swallowed) + 0.12, (found, swallowed)


@pytest.mark.parametrize("assets", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("seed", range(3))
def test_kinds_of_one_world_are_told_apart_on_a_platform_of_two(assets: int, seed: int) -> None:
    """Where two assets of any kinds of one world are far more alike than most."""
    vectors, kind = worlds(2, 20, 1.5, 0.6, seed)
    rows = np.flatnonzero((kind < 10) & (np.arange(len(kind)) % 25 < assets))

    areas = find_areas(profile_of(vectors[rows]), replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)}))

    assert sorted(kind[rows][area.members].tolist() for area in areas) == [[kind] * assets for kind in range(10)]


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


@pytest.mark.parametrize(
    "wrong",
    [{"rise": -1}, {"nearest": np.nan}, {"doubt_max": np.inf}, {"sure": 0}, {"sure": np.nan}, {"even": 0.9},
     {"even": np.nan}, {"alike": -0.1},
     {"unlike": np.nan}, {"clear": np.nan}, {"apart": np.nan}, {"loose": np.nan}, {"broad": np.nan},
     {"strangers": 0.5}, {"strangers": np.nan}],
)  # fmt: skip
def test_limits_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Limits(**wrong)


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
        unlike=0.1,
        alike=0.3,
        clear=0.5,
        apart=0.3,
        loose=1.0,
        broad=0.4,
        strangers=2.0,
    )
    assert (CUT, Settings().area_growth) == (1.1, 0.2)
