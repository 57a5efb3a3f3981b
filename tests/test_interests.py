from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from zccr_stream import grouping
from zccr_stream.catalogue import Catalogue, Joint
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.events.identifiers import lot
from zccr_stream.grouping import CUT, Limits
from zccr_stream.interests import CONTRAST, CONTRAST_MIN, MEDOID, Area, AreaRule, Profile, areas_of, find_areas

LIMITS = Limits(rise=1.5, nearest=0.4, doubt_max=3.0, sure=10.5, alike=0.3, clear=0.5, loose=1.0)  # whatever is better
TOGETHER = replace(LIMITS, loose=-np.inf)  # nothing that is left over is parted
RULE = AreaRule(variance=0.99, cut=1.1, growth=0.2, areas_max=100, sample_size=1000, seed="centroid")

Floats = npt.NDArray[np.float32]


def units(vectors: npt.NDArray[np.float64]) -> Floats:
    scaled: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def mixture(labels: Sequence[int], dimension: int, spread: float, seed: int) -> Floats:
    """Unit vectors around one direction per label; `spread` is the length of what is added to it."""
    random = np.random.default_rng(seed)
    centres = units(random.normal(size=(max(labels, default=0) + 1, dimension)))
    noise = random.normal(size=(len(labels), dimension)) / dimension**0.5
    return units(centres[np.asarray(labels, dtype=np.intp)] + spread * noise)


def profile_of(vectors: Floats, modalities: Sequence[str] | None = None, times: Sequence[int] | None = None) -> Profile:
    n = len(vectors)
    return Profile(
        user_id="user",
        profile_version=1,
        asset_ids=[f"asset-{row:06}" for row in range(n)],
        modalities=modalities or [IMAGE] * n,
        occurred_at_ns=np.array(times if times is not None else range(n), dtype=np.int64),
        vectors=vectors,
    )


def rows_of(profile: Profile, rows: npt.NDArray[np.intp]) -> Profile:
    """The profile with only these rows, in this order."""
    return replace(
        profile,
        asset_ids=[profile.asset_ids[row] for row in rows],
        modalities=[profile.modalities[row] for row in rows],
        occurred_at_ns=profile.occurred_at_ns[rows],
        vectors=profile.vectors[rows],
    )


def labels_of(areas: Sequence[Area], n: int) -> npt.NDArray[np.intp]:
    labels = np.full(n, -1)
    for label, area in enumerate(areas):
        labels[area.members] = label
    return labels


def named(profile: Profile, areas: Sequence[Area]) -> list[tuple[object, ...]]:
    """Areas without row numbers."""
    return [
        (
            area.area_id,
            area.modality,
            area.weight,
            [profile.asset_ids[row] for row in area.members],
            profile.asset_ids[area.medoid],
            area.seed.tobytes(),
        )
        for area in areas
    ]


def oldest(profile: Profile, area: Area) -> int:
    rows: list[int] = area.members.tolist()
    return min(rows, key=lambda row: (profile.occurred_at_ns[row], profile.asset_ids[row]))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Profiles of both modalities with areas of any spread, identical assets and equal times among them."""
    labels = draw(st.lists(st.integers(0, 5), max_size=60))
    vectors = mixture(labels, 16, draw(st.sampled_from([0.0, 0.3, 0.8, 2.0])), draw(st.integers(0, 2**32 - 1)))
    modalities = draw(st.lists(st.sampled_from([IMAGE, TEXT]), min_size=len(labels), max_size=len(labels)))
    times = draw(st.lists(st.integers(0, 20), min_size=len(labels), max_size=len(labels)))
    return profile_of(vectors, modalities, times)


FEW = Catalogue.of(mixture(list(range(50)), 16, 0.5, seed=1))
MANY = Catalogue.of(mixture([*range(50)] * 6, 16, 0.5, seed=2))

rules = st.builds(
    AreaRule,
    variance=st.sampled_from([0.9, 0.99, 1.0]),
    cut=st.sampled_from([None, 0.3, 0.8, 1.1, 1.5]),
    growth=st.sampled_from([0.0, 0.2, 0.5]),
    areas_max=st.sampled_from([1, 3, 100]),
    sample_size=st.sampled_from([1, 7, 1000]),
    seed=st.sampled_from(["contrast", "centroid", "medoid"]),
    catalogues=st.sampled_from([{}, {IMAGE: FEW}, {IMAGE: FEW, TEXT: MANY}]),
    joint=st.sampled_from([None, Joint.of({IMAGE: FEW, TEXT: MANY})]),
)


@settings(max_examples=50)
@given(profiles(), rules)
def test_areas_part_the_profile_and_their_weights_sum_to_one(profile: Profile, rule: AreaRule) -> None:
    areas = find_areas(profile, rule)

    n = len(profile.asset_ids)
    assert sorted(row for area in areas for row in area.members.tolist()) == list(range(n))
    assert sum(area.weight for area in areas) == pytest.approx(1 if n else 0, abs=1e-12)
    assert [area.weight for area in areas] == sorted((len(area.members) / n for area in areas), reverse=True)
    assert len({area.area_id for area in areas}) == len(areas)
    for area in areas:
        assert area.medoid in area.members
        assert area.modality == profile.modalities[area.medoid]
        assert rule.joint or {profile.modalities[row] for row in area.members} == {area.modality}
        assert area.seed.dtype == np.float32
        assert float(np.linalg.norm(area.seed)) == pytest.approx(1, abs=1e-5)
    for modality in (IMAGE, TEXT):
        assert sum(area.modality == modality for area in areas) <= rule.areas_max
    assert not rule.joint or len(areas) <= rule.areas_max


@settings(max_examples=50)
@given(profiles(), rules, st.randoms(use_true_random=False))
def test_the_order_of_the_assets_does_not_matter(profile: Profile, rule: AreaRule, random: object) -> None:
    order = list(range(len(profile.asset_ids)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = rows_of(profile, np.array(order, dtype=np.intp))

    assert named(shuffled, find_areas(shuffled, rule)) == named(profile, find_areas(profile, rule))


@settings(max_examples=50)
@given(profiles(), rules)
def test_the_profile_is_left_as_it_was_and_the_same_areas_come_again(profile: Profile, rule: AreaRule) -> None:
    before = profile.vectors.copy()
    profile.vectors.flags.writeable = False

    first, second = find_areas(profile, rule), find_areas(profile, rule)

    assert named(profile, first) == named(profile, second)
    assert np.array_equal(profile.vectors, before)


@settings(max_examples=50)
@given(profiles(), rules)
def test_the_medoid_is_the_asset_with_the_least_summed_cosine_distance(profile: Profile, rule: AreaRule) -> None:
    compared = rule.joint.apply(profile.vectors, profile.modalities) if rule.joint else profile.vectors
    for area in find_areas(profile, rule):
        vectors = compared[area.members].astype(np.float64)
        distances = (1 - vectors @ vectors.T).sum(axis=1)
        best = distances <= distances.min() + 4e-6 * len(vectors)
        closest = [profile.asset_ids[row] for row in area.members[best]]
        assert profile.asset_ids[area.medoid] in closest
        if (distances <= distances.min() + 1e-9).sum() == best.sum():
            assert profile.asset_ids[area.medoid] == min(closest)


def test_two_assets_are_equally_central_so_the_smaller_id_is_the_medoid() -> None:
    for seed in range(50):
        profile = profile_of(mixture([0, 0], 512, 0.3, seed).astype(np.float16).astype(np.float32))
        (area,) = find_areas(profile, RULE)
        assert profile.asset_ids[area.medoid] == "asset-000000"


@settings(max_examples=50)
@given(profiles(), rules)
def test_the_seed_is_the_medoid_or_the_centroid_in_contrast_to_a_large_catalogue(
    profile: Profile, rule: AreaRule
) -> None:
    """Of both modalities that are in a joint area the sum."""

    def direction(vector: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        return vector / np.linalg.norm(vector)

    for area in find_areas(profile, rule):
        seeds = []
        for modality in (IMAGE, TEXT):
            rows = [row for row in area.members.tolist() if profile.modalities[row] == modality]
            if rows:
                seed = direction(profile.vectors[rows].sum(axis=0, dtype=np.float64))
                known = rule.catalogues.get(modality)
                if rule.seed == CONTRAST and known is not None and len(known.sample) >= CONTRAST_MIN:
                    seed = direction(discriminant(known.sample) @ (seed - known.sample.mean(axis=0, dtype=np.float64)))
                seeds.append(seed)
        expected = profile.vectors[area.medoid] if rule.seed == MEDOID else direction(np.sum(seeds, axis=0))
        assert area.seed == pytest.approx(expected, abs=1e-5)


def discriminant(sample: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(d, d) the inverse of a sample's covariance, shrunk towards thirty times its mean variance in all directions."""
    covariance = np.cov(sample.astype(np.float64), rowvar=False, bias=True)
    return np.linalg.inv(covariance + 30 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))


def test_a_seed_in_contrast_finds_what_an_area_has_and_all_others_have_not() -> None:
    """All texts share the second axis, and some of them have nothing else."""
    kinds = mixture([*range(40)] * 10, 64, 0.3, seed=0).astype(np.float64)
    vectors = units(kinds + 2 * np.eye(64)[1])
    rule = replace(RULE, seed=CONTRAST, catalogues={TEXT: Catalogue.of(vectors)})
    profile = profile_of(vectors[:1], [TEXT])
    everyones = units(np.eye(64)[[1]])[0]

    (contrast,), (plain,) = find_areas(profile, rule), find_areas(profile, replace(rule, seed="centroid"))

    others = vectors[40:]
    like_it, unlike_it = others[::40], np.delete(others, np.s_[::40], axis=0)
    assert (like_it @ contrast.seed).min() > (unlike_it @ contrast.seed).max() > everyones @ contrast.seed
    assert (unlike_it @ plain.seed < everyones @ plain.seed).mean() > 0.6


def test_a_user_who_is_the_whole_catalogue_still_has_a_seed() -> None:
    vectors = np.repeat(mixture([0], 64, 0.0, seed=0), CONTRAST_MIN, axis=0)
    rule = replace(RULE, seed=CONTRAST, catalogues={IMAGE: Catalogue.of(vectors)})

    (area,) = find_areas(profile_of(vectors), rule)

    assert area.seed == pytest.approx(vectors[0], abs=1e-6)


def test_given_groups_are_the_areas_of_each_modality_and_what_is_in_none_is_left_out() -> None:
    profile = profile_of(mixture([0, 0, 1, 1, 2], 16, 0.1, seed=0), [IMAGE, TEXT, TEXT, TEXT, TEXT])

    areas = areas_of(profile, np.array([3, 3, 0, 0, -1]), RULE)

    assert [(area.modality, area.members.tolist(), area.weight) for area in areas] == [
        (TEXT, [2, 3], 0.4),
        (TEXT, [1], 0.2),
        (IMAGE, [0], 0.2),
    ]
    assert areas_of(profile, np.full(5, -1), RULE) == []


@settings(max_examples=50)
@given(profiles(), rules)
def test_the_groups_of_areas_give_the_same_areas(profile: Profile, rule: AreaRule) -> None:
    areas = find_areas(profile, rule)

    given_again = areas_of(profile, labels_of(areas, len(profile.asset_ids)), rule)

    assert named(profile, given_again) == named(profile, areas)


def test_joint_areas_hold_pictures_and_texts_of_one_kind_though_a_gap_parts_the_modalities() -> None:
    random = np.random.default_rng(0)
    gap = units(random.normal(size=(1, 64)))[0].astype(np.float64)
    kinds = np.tile(np.arange(40), 10)
    both = mixture(kinds.tolist(), 64, 0.4, seed=1).astype(np.float64)
    pictures, texts = units(both[:200] + gap), units(both[200:] - gap)
    catalogues = {IMAGE: Catalogue.of(pictures), TEXT: Catalogue.of(texts)}
    rows = np.concatenate([np.arange(40 * i, 40 * i + 4) for i in range(5)])
    profile = profile_of(np.concatenate([pictures[rows], texts[rows]]), [IMAGE] * 20 + [TEXT] * 20)
    rule = replace(RULE, cut=None, catalogues=catalogues)

    joint = find_areas(profile, replace(rule, joint=Joint.of(catalogues)))

    truth = np.concatenate([kinds[rows], kinds[200 + rows]])
    assert adjusted_rand_score(truth, labels_of(joint, 40)) == 1
    assert adjusted_rand_score(truth, labels_of(find_areas(profile, rule), 40)) < 0.6
    nearest = {int(kinds[np.argmax(vectors @ area.seed) % 40]) for area in joint for vectors in (pictures, texts)}
    assert nearest == {0, 1, 2, 3}


def test_a_modality_that_the_joint_space_does_not_know_has_areas_of_its_own() -> None:
    profile = profile_of(mixture([0, 0], 16, 0.1, seed=0), [IMAGE, TEXT])
    joint = Joint.of({IMAGE: FEW})

    areas = find_areas(profile, replace(RULE, joint=joint))

    assert sorted(area.modality for area in areas) == [IMAGE, TEXT]


def test_opposite_assets_have_no_centroid_so_the_medoid_is_the_seed() -> None:
    vectors = np.array([[1, 0], [-1, 0]], dtype=np.float32)

    (area,) = find_areas(profile_of(vectors), replace(RULE, cut=3))

    assert area.seed.tolist() == vectors[area.medoid].tolist()


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
def test_the_cut_grows_with_size_and_only_the_highest_merges_split_where_there_are_too_many(
    n: int, growth: float, areas_max: int, seed: int
) -> None:
    """Oracle: from the root down, split what holds the highest merge while it is too high and there is room."""
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
    while highest(nodes[0]) > cut and len(nodes) < areas_max:
        nodes = sorted([*nodes[1:], *tree[nodes[0] - n, :2].astype(int)], key=lambda node: (-highest(node), -node))

    areas = find_areas(profile_of(vectors), replace(RULE, variance=1.0, cut=cut, growth=growth, areas_max=areas_max))

    assert {tuple(sorted(area.members.tolist())) for area in areas} == {tuple(sorted(members(node))) for node in nodes}


def space(kinds: int, dimension: int, spread: float, shared: float, seed: int) -> Floats:
    """A catalogue of 20 assets of every kind; `shared` is the length of the direction that all have in common."""
    vectors = mixture(np.repeat(np.arange(kinds), 20).tolist(), dimension, spread, seed).astype(np.float64)
    vectors[:, 0] += shared
    return units(vectors)


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
    """One cut for profiles from ten assets to two thousand; every outlier is an area of its own."""
    catalogue = space(100, 512, spread, shared, seed=1)
    own = mixture(np.repeat(np.arange(kinds), assets).tolist(), 512, spread, seed=7).astype(np.float64)
    odd = mixture(list(range(outliers)), 512, spread, seed=8).astype(np.float64).reshape(-1, 512)
    vectors = np.concatenate([own, odd])
    vectors[:, 0] += shared
    truth = np.concatenate([np.repeat(np.arange(kinds), assets), kinds + np.arange(outliers)])

    areas = find_areas(profile_of(units(vectors)), replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(catalogue)}))

    assert adjusted_rand_score(truth, labels_of(areas, len(truth))) > 0.99
    alone = [truth[area.members].tolist() for area in areas if (truth[area.members] >= kinds).any()]
    assert sorted(alone) == [[kinds + outlier] for outlier in range(outliers)]


@pytest.mark.parametrize("kinds", [3, 5, 10])
def test_a_catalogue_of_few_kinds_does_not_part_users_of_one(kinds: int) -> None:
    """Its mean and its covariance are these kinds' own, so that assets of one look little more alike than strangers."""
    vectors = space(kinds, 128, 1.2, 0.5, seed=kinds)
    rule = replace(RULE, cut=None, catalogues={IMAGE: Catalogue.of(vectors)})

    found = [len(find_areas(profile_of(vectors[20 * kind : 20 * kind + 20]), rule)) for kind in range(kinds)]
    assert found == [1] * kinds


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 16, 64]), st.integers(2, 60))
def test_the_more_sure_kin_is_the_farther_apart_may_it_lie(seed: int, dimension: int, n: int) -> None:
    """Held against loops over the merges that hold an asset."""
    random = np.random.default_rng(seed)
    catalogue = Catalogue.of(units(random.normal(size=(300, dimension))))
    kinds = random.normal(size=(4, dimension))[random.integers(4, size=n)]
    seen = catalogue.seen(units(kinds + random.uniform(0.2, 2) * random.normal(size=(n, dimension))))
    tree, merges = grouping._tree(seen, RULE)

    holds = [{row} for row in range(n)]
    for left, right in merges.tolist():
        holds.append(holds[left] | holds[right])
    p, surest = catalogue.dimensions, [0.0] * n
    for rows in map(sorted, holds[n:]):
        cosine = np.mean([seen[one] @ seen[other] for one, other in combinations(rows, 2)])
        for row in rows:
            surest[row] = max(surest[row], cosine * (p * (len(rows) - 1)) ** 0.5)
    doubt = LIMITS.doubt_max * max(1 - np.median(surest) / LIMITS.sure, 0) ** 2
    m = tree[:, 3]
    deviations = LIMITS.rise * (m / 2) ** 0.5 - LIMITS.nearest * (2 * np.log(n / m)) ** 0.5 - doubt
    farthest = 2**0.5 * np.maximum(1 + deviations / p**0.5, 0.25)

    heights = LIMITS.heights(tree, grouping._cosines(seen, merges), catalogue)
    assert heights == pytest.approx(tree[:, 2] / farthest, rel=1e-4)


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

    assert adjusted_rand_score(truth, labels_of(areas, len(own))) > 0.7


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
    [{"rise": -1}, {"nearest": np.nan}, {"doubt_max": np.inf}, {"sure": 0}, {"sure": np.nan}, {"alike": -0.1},
     {"clear": np.nan}, {"loose": np.nan}],
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

    joined = grouping._join(seen, labels, LIMITS, catalogue)

    cosines = seen.astype(np.float64) @ seen.T
    groups = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    while pairs := [(one, other) for one, other in combinations(groups, 2) if min(len(one), len(other)) > 1]:

        def surplus(pair: tuple[npt.NDArray[np.intp], ...]) -> float:
            inside = np.concatenate([cosines[np.ix_(rows, rows)][~np.eye(len(rows), dtype=bool)] for rows in pair])
            clear = LIMITS.clear / catalogue.dimensions**0.5
            return float(cosines[np.ix_(*pair)].mean() - LIMITS.alike * inside.mean() - clear)

        best = max(pairs, key=surplus)
        if surplus(best) < 0:
            break
        groups = [rows for rows in groups if rows is not best[0] and rows is not best[1]] + [np.concatenate(best)]
    expected = np.empty(n, np.intp)
    for label, rows in enumerate(groups):
        expected[rows] = label
    assert adjusted_rand_score(expected, joined) == 1


@pytest.mark.parametrize("seed", [2, 3, 5])
def test_what_a_user_has_most_of_is_one_area_though_ward_parts_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ward's areas tend to be of one size; these kinds have sub-kinds to part them by."""
    kinds = mixture(np.repeat(np.arange(30), 200).tolist(), 32, 0.9, seed)
    sub_kinds = mixture(list(range(300)), 32, 0.0, seed + 100)
    vectors = units(kinds + 0.7 * sub_kinds[np.repeat(np.arange(30), 200) * 10 + np.tile(np.arange(10), 600)])
    sizes = [160, 40, 20, 10, 5]
    rows = np.concatenate([np.arange(200 * kind, 200 * kind + size) for kind, size in enumerate(sizes)])
    truth = np.repeat(np.arange(5), sizes)
    rule = replace(RULE, cut=None, limits=LIMITS, catalogues={IMAGE: Catalogue.of(vectors[::10])})

    areas = find_areas(profile_of(vectors[rows]), rule)
    monkeypatch.setattr(grouping, "_join", lambda _seen, labels, *_rule: labels)
    by_ward = find_areas(profile_of(vectors[rows]), rule)

    assert adjusted_rand_score(truth, labels_of(areas, len(rows))) > 0.95
    assert adjusted_rand_score(truth, labels_of(by_ward, len(rows))) < 0.6


@pytest.mark.parametrize("seed", range(3))
def test_assets_settle_in_the_area_that_is_closest_to_them(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against cosines asset by asset; Ward's tree alone leaves some where others are closer."""
    vectors = space(30, 32, 1.2, 0.5, seed)
    catalogue = Catalogue.of(vectors)
    truth = np.repeat(np.arange(6), 12)
    rows = 20 * truth + np.tile(np.arange(12), 6)
    profile, rule = profile_of(vectors[rows]), replace(RULE, cut=None, limits=TOGETHER, catalogues={IMAGE: catalogue})
    seen = catalogue.seen(vectors[rows])

    labels = labels_of(find_areas(profile, rule), len(rows))
    monkeypatch.setattr(grouping, "_settle", lambda _, labels: labels)
    by_ward = labels_of(find_areas(profile, rule), len(rows))

    assert restless(seen, labels) == []
    assert restless(seen, by_ward) != []
    assert adjusted_rand_score(truth, labels) > adjusted_rand_score(truth, by_ward)


@pytest.mark.parametrize("seed", [2, 4, 32])
def test_assets_that_would_change_places_for_ever_come_to_rest(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = space(30, 32, 1.6, 0.5, seed)
    catalogue = Catalogue.of(vectors)
    rows = 20 * np.repeat(np.arange(12), 12) + np.tile(np.arange(12), 12)
    profile, rule = profile_of(vectors[rows]), replace(RULE, cut=None, limits=TOGETHER, catalogues={IMAGE: catalogue})
    seen = catalogue.seen(vectors[rows])

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


@pytest.mark.parametrize("dimensions", [4, 40])
@pytest.mark.parametrize("n", [1000, 100])
def test_a_catalogue_has_the_dimensions_in_which_it_varies(dimensions: int, n: int) -> None:
    """Whatever the encoder's are, and whatever all assets have in common."""
    vectors = np.zeros((n, 128))
    vectors[:, :dimensions] = np.random.default_rng(0).normal(size=(n, dimensions))
    vectors[:, -1] = 5

    catalogue = Catalogue.of(units(vectors))

    assert catalogue.dimensions == pytest.approx(dimensions, rel=0.15)
    assert catalogue.mean == pytest.approx(units(vectors).mean(axis=0), abs=1e-6)


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


def test_an_empty_profile_has_no_areas() -> None:
    assert find_areas(profile_of(np.zeros((0, 512), dtype=np.float32)), RULE) == []


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
    rule = replace(RULE, cut=None, limits=LIMITS, catalogues={IMAGE: catalogue}, sample_size=60)

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


@settings(max_examples=50)
@given(profiles(), rules)
def test_an_area_id_stands_for_the_oldest_asset_of_the_area(profile: Profile, rule: AreaRule) -> None:
    """So a part that keeps the oldest asset keeps the id, whatever joins it, leaves it or happens elsewhere."""
    ids = {oldest(profile, area): area.area_id for area in find_areas(profile, rule)}
    cut = rule.cut or CUT
    for other in (replace(rule, cut=cut / 2), replace(rule, cut=cut * 2)):
        for area in find_areas(profile, other):
            anchor = oldest(profile, area)
            assert area.area_id == ids.get(anchor, area.area_id)
            assert area.area_id not in {area_id for asset, area_id in ids.items() if asset != anchor}


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_area_ids_persist_while_areas_grow_shrink_and_come_and_go(seed: int, leaving: int) -> None:
    """All but `leaving` of four areas get newer assets and lose one that is not their oldest, and a new one comes."""
    truth = np.array([row % 4 for row in range(40)] + [row % 5 for row in range(40)])
    whole = profile_of(mixture(truth.tolist(), 128, 0.4, seed))
    before = rows_of(whole, np.arange(40))
    kept = np.array([row for row in range(80) if truth[row] != leaving and row not in (4, 5, 6, 7)])
    after = rows_of(whole, kept)

    def by_kind(profile: Profile) -> dict[int, str]:
        return {
            int(truth[int(profile.asset_ids[area.medoid].removeprefix("asset-"))]): area.area_id
            for area in find_areas(profile, replace(RULE, cut=1.0))
        }

    old, new = by_kind(before), by_kind(after)

    assert sorted(old) == [0, 1, 2, 3]
    assert new == {kind: old.get(kind, new[4]) for kind in (*(kind for kind in old if kind != leaving), 4)}
    assert new[4] not in old.values()


def test_when_areas_merge_the_older_id_stays_and_when_one_splits_the_older_part_keeps_it() -> None:
    """Assets between two areas bridge them, and leave again."""
    left, right = units(np.eye(64)[:2])
    steps = np.linspace(0, np.pi / 2, 9)[1:-1, None]
    bridge = units(np.repeat(np.cos(steps) * left + np.sin(steps) * right, 6, axis=0))
    vectors = np.concatenate([np.repeat([right], 3, axis=0), np.repeat([left], 3, axis=0), bridge])
    whole = profile_of(vectors, times=[5, 5, 5, 1, 1, 1, *range(10, 10 + len(bridge))])
    apart = rows_of(whole, np.arange(6))
    rule = replace(RULE, cut=1.0, growth=0.5)

    older, younger = sorted(find_areas(apart, rule), key=lambda area: oldest(apart, area), reverse=True)
    (merged,) = find_areas(whole, rule)

    assert oldest(apart, older) == 3
    assert merged.area_id == older.area_id != younger.area_id


def test_an_area_id_is_the_users_and_the_modalitys_own() -> None:
    vectors = mixture([0, 0, 0], 32, 0.1, seed=0)
    (image,) = find_areas(profile_of(vectors), RULE)
    (text,) = find_areas(profile_of(vectors, [TEXT] * 3), RULE)
    (other,) = find_areas(replace(profile_of(vectors), user_id="other"), RULE)

    assert len({image.area_id, text.area_id, other.area_id}) == 3


def test_of_areas_of_equal_size_the_one_with_the_newest_asset_comes_first() -> None:
    profile = profile_of(mixture([0, 1, 2, 0, 1, 2], 64, 0.1, seed=0), times=[0, 9, 1, 1, 0, 2])

    areas = find_areas(profile, replace(RULE, cut=1.0))

    assert [sorted(area.members.tolist()) for area in areas] == [[1, 4], [2, 5], [0, 3]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variance": 0.0}, "variance is 0.0; expected a share"),
        ({"variance": 1.1}, "variance"),
        ({"cut": 0.0}, "cut is 0.0; expected a Ward distance"),
        ({"cut": float("nan")}, "cut"),
        ({"growth": -0.1}, "growth is -0.1; expected an exponent"),
        ({"growth": 0.6}, "growth"),
        ({"areas_max": 0}, "areas_max is 0; expected at least 1"),
        ({"sample_size": 0}, "sample_size is 0; expected at least 1"),
        ({"seed": "mean"}, "seed is 'mean'; expected one of contrast, centroid, medoid"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RULE, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, 2.0])
def test_a_vector_that_is_not_of_unit_length_is_refused(value: float) -> None:
    vectors = mixture([0, 0, 0], 8, 0.1, seed=0)
    vectors[1] = value

    with pytest.raises(ValueError, match="expected unit length"):
        find_areas(profile_of(vectors), RULE)


def test_columns_that_do_not_fit_together_are_refused() -> None:
    profile = replace(profile_of(mixture([0, 0], 8, 0.1, seed=0)), modalities=[IMAGE])

    with pytest.raises(ValueError, match=r"profile of 'user': 2 asset ids, but \(1, 2, 2\)"):
        find_areas(profile, RULE)
