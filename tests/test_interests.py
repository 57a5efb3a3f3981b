from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from tests.made_up import RULE, labels_of, mixture, named, oldest, profile_of, rows_of, units
from zccr_stream.catalogue import Catalogue, Joint
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.grouping import CUT
from zccr_stream.interests import CONTRAST, CONTRAST_MIN, MEDOID, AreaRule, Profile, areas_of, find_areas


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


def test_an_empty_profile_has_no_areas() -> None:
    assert find_areas(profile_of(np.zeros((0, 512), dtype=np.float32)), RULE) == []


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
