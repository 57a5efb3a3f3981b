"""Calibrated scores, against their definition and for users on a platform with a modality gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from zccr_stream.catalogue import Catalogue, Joint, JointSpace
from zccr_stream.events import IMAGE, MODALITIES, TEXT, Embeddings
from zccr_stream.index import LiveIndex
from zccr_stream.interests import Area, AreaRule, Profile, find_areas
from zccr_stream.pipeline import recommend
from zccr_stream.ranking import Hits, RankingRule
from zccr_stream.scores import NEIGHBOURS, calibrate

D, KINDS, EACH = 64, 20, 10
RANKING = RankingRule(k=5, feed_size=20, near_duplicate=1.1)
CALIBRATED = replace(RANKING, calibrated=True)

Floats = npt.NDArray[np.float32]


def unit(vectors: npt.NDArray[np.floating]) -> Floats:
    units: Floats = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return units


def assets() -> dict[str, Floats]:
    """Of each modality `EACH` assets of every kind, kind by kind, a gap between the modalities."""
    random = np.random.default_rng(0)
    kinds = np.repeat(random.normal(size=(KINDS, D)), EACH, axis=0)
    gap = 16 * unit(random.normal(size=D))
    return {
        modality: unit(kinds + 0.5 * random.normal(size=kinds.shape) + side * gap).astype(np.float16).astype(np.float32)
        for modality, side in ((IMAGE, 1), (TEXT, -1))
    }


ASSETS = assets()
CATALOGUES = {modality: Catalogue.of(vectors) for modality, vectors in ASSETS.items()}
LARGE = {modality: Catalogue.of(np.concatenate([vectors, vectors])) for modality, vectors in ASSETS.items()}
RULE = AreaRule(
    variance=0.99,
    cut=None,
    growth=0.2,
    areas_max=100,
    sample_size=1000,
    seed="contrast",
    catalogues=CATALOGUES,
)


def kind_of(asset_id: str) -> int:
    return int(asset_id.rpartition("-")[2]) // EACH


def profile_of(kinds: Sequence[int], modalities: Sequence[str]) -> Profile:
    """Two assets of each kind, of these modalities."""
    rows = [(modality, kind * EACH + number) for kind in kinds for modality in modalities for number in range(2)]
    return Profile(
        "me",
        1,
        [f"{modality}-{row}" for modality, row in rows],
        [modality for modality, _ in rows],
        np.arange(len(rows)),
        np.stack([ASSETS[modality][row] for modality, row in rows]),
    )


@pytest.fixture(name="index", scope="module")
def _index() -> LiveIndex:
    index = LiveIndex(D, 512, 0.5)
    for modality, vectors in ASSETS.items():
        n = len(vectors)
        columns = [f"{modality}-{row}" for row in range(n)], ["others"] * n, [modality] * n
        index.apply(
            Embeddings(
                "",
                *columns,
                np.ones(n, np.int64),
                np.zeros(n, np.int64),
                vectors.astype(np.float16),
                np.ones(n, np.bool_),
            )
        )
    return index


def feed_of(index: LiveIndex, profile: Profile, areas: AreaRule, ranking: RankingRule) -> list[str]:
    (found,) = recommend(index, [profile], [find_areas(profile, areas)], areas, ranking, "m", lambda: 0)
    return [item.asset_id for item in found.feed]


def area_of(modalities: tuple[str, ...], seed: Floats) -> Area:
    return Area("area", modalities[0], 1.0, np.arange(1), 0, seed, modalities)


@pytest.mark.parametrize("rule", [RULE, replace(RULE, catalogues=LARGE)], ids=["centroids", "contrast"])
def test_from_a_cosine_goes_half_of_what_is_usual_for_the_seed_and_for_the_hit(
    index: LiveIndex, rule: AreaRule
) -> None:
    """Seen as seeds are: in contrast to the catalogue where enough is known of it."""
    seeds = np.stack([ASSETS[IMAGE][3], ASSETS[TEXT][70], unit(ASSETS[IMAGE][5] + ASSETS[TEXT][5])])
    areas = [area_of(kinds, seed) for kinds, seed in zip([(IMAGE,), (TEXT,), (IMAGE, TEXT)], seeds, strict=True)]
    found = {modality: index.search(modality, seeds, ["me"] * 3, 8) for modality in MODALITIES}

    scored = calibrate(found, areas, rule)

    def usual(vector: Floats, bank: Floats) -> float:
        cosines = bank.astype(np.float64) @ vector
        return float(np.sort(cosines[cosines <= 0.9995])[-NEIGHBOURS:].mean())

    for target in MODALITIES:
        for line, area in enumerate(areas):
            for row, cosine, score in zip(
                found[target].rows[line], found[target].scores[line], scored[target].scores[line], strict=True
            ):
                hit = found[target].vectors[row]
                banks = [rule.catalogues[source].sample for source in area.modalities]
                if rule.catalogues is LARGE:
                    banks = [
                        rule.catalogues[source].contrasts(rule.catalogues[source].sample) for source in area.modalities
                    ]
                of_hit = np.mean([usual(hit, bank) for bank in banks])
                expected = cosine - (usual(seeds[line], rule.catalogues[target].sample) + of_hit) / 2
                assert score == pytest.approx(expected, abs=1e-4)


def test_where_nothing_was_found_there_is_nothing_to_score() -> None:
    nothing = Hits(np.full((1, 3), -np.inf, np.float32), np.full((1, 3), -1), [], [], np.zeros((0, D), np.float32))

    assert calibrate({TEXT: nothing}, [area_of((IMAGE,), ASSETS[IMAGE][0])], RULE) == {TEXT: nothing}


@pytest.mark.parametrize("modality", MODALITIES)
def test_who_owns_one_modality_is_shown_the_same_by_joint_areas_as_by_areas_a_modality(
    index: LiveIndex, modality: str
) -> None:
    """An area that holds one modality is scored as what it is, though it might have held both."""
    profile = profile_of([0, 1, 2], [modality])
    merged = replace(CALIBRATED, merged=True)

    apart = feed_of(index, profile, RULE, merged)
    together = feed_of(index, profile, replace(RULE, joint=Joint.of(CATALOGUES)), merged)

    share = [sum(asset_id.startswith(TEXT) for asset_id in feed) / len(feed) for feed in (apart, together)]
    assert share[1] == pytest.approx(share[0], abs=0.1)
    assert 0.2 < share[0] < 0.8


def test_cosines_never_put_texts_beside_images_and_calibrated_scores_do(index: LiveIndex) -> None:
    profile = profile_of([0], [IMAGE])
    plain = feed_of(index, profile, RULE, replace(RANKING, merged=True))
    fair = feed_of(index, profile, RULE, replace(CALIBRATED, merged=True))

    assert plain == sorted(plain, key=lambda asset_id: asset_id.startswith(TEXT))
    assert sum(asset_id.startswith(TEXT) for asset_id in fair[:10]) >= 3
    assert sum(kind_of(asset_id) == 0 for asset_id in fair) >= 0.9 * len(fair)


def test_lists_hold_the_best_by_calibrated_score_though_others_have_greater_cosines(index: LiveIndex) -> None:
    """All of the pool are scored, and as many are shown as without."""
    profile = profile_of([4], [TEXT])
    areas = find_areas(profile, RULE)
    (found,) = recommend(index, [profile], [areas], RULE, CALIBRATED, "m", lambda: 0)

    for of_area, area in zip(found.areas, areas, strict=True):
        for target in MODALITIES:
            hits = calibrate({target: index.search(target, area.seed[None], ["me"], 25)}, [area], RULE)[target]
            names = [hits.asset_ids[row] for row in hits.rows[0]]
            best = sorted(zip(-np.round(hits.scores[0].astype(float), 6), names, strict=True))
            expected = [name for _, name in best if name not in profile.asset_ids][: RANKING.k]
            assert [item.asset_id for item in of_area.recommended[target]] == expected


@pytest.mark.parametrize("known", [{}, {IMAGE: CATALOGUES[IMAGE]}])
def test_until_every_modality_is_known_cosines_rank_and_modalities_take_turns(
    index: LiveIndex, known: dict[str, Catalogue]
) -> None:
    profile = profile_of([0, 1], [IMAGE])
    rule = replace(RULE, catalogues=known)

    assert feed_of(index, profile, rule, replace(CALIBRATED, merged=True)) == feed_of(index, profile, rule, RANKING)


def test_a_joint_area_finds_its_kind_in_both_modalities(index: LiveIndex) -> None:
    profile = profile_of([0, 1, 2], [IMAGE, TEXT])
    rule = replace(RULE, joint=Joint.of(CATALOGUES))

    areas = find_areas(profile, rule)
    feed = feed_of(index, profile, rule, CALIBRATED)

    assert [len(area.members) for area in areas] == [4, 4, 4]
    assert {kind_of(asset_id) for asset_id in feed} == {0, 1, 2}
    assert len([asset_id for asset_id in feed if asset_id.startswith(TEXT)]) == len(feed) / 2


def test_a_joint_space_is_kept_until_an_eighth_of_what_it_was_found_by_is_new() -> None:
    def known(first: int, revision: int = 1) -> dict[str, Catalogue]:
        return {
            modality: Catalogue.of(vectors[:160], [(str(number), revision) for number in range(first, first + 160)])
            for modality, vectors in ASSETS.items()
        }

    space = JointSpace()
    found = space.of(known(0))

    assert space.of(known(0)) is found
    assert space.of(known(20)) is found
    assert space.of(known(21)) is not found
    assert space.of(known(21)) is space.of(known(40))
    assert space.of(known(21, revision=2)) is not space.of(known(21))
