"""What all assets look like: how one is seen among them, by examples and against the plain formulas."""

import numpy as np
import numpy.typing as npt
import pytest

from zccr_stream.catalogue import Catalogue

Floats = npt.NDArray[np.float32]


def units(vectors: npt.NDArray[np.floating]) -> Floats:
    unit: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def stretched(m: int, d: int) -> Floats:
    """Assets that all point one way and differ most along a few axes."""
    axes = np.linspace(1, 0.05, d) ** 2
    return units(np.random.default_rng(m).standard_normal((m, d)) * axes + np.eye(d)[0])


@pytest.mark.parametrize(("m", "d"), [(2, 16), (40, 64), (500, 64), (512, 512)])
def test_contrasts_are_linear_discriminants_and_their_products_those_of_assets_as_seen(m: int, d: int) -> None:
    sample = stretched(m, d)
    catalogue = Catalogue.of(sample)
    centred = sample.astype(np.float64) - sample.mean(axis=0, dtype=np.float64)
    covariance = centred.T @ centred / m
    inverse = np.linalg.inv(covariance + 30 * np.trace(covariance) / d * np.eye(d))
    others = stretched(m + 1, d)

    seen, contrasts = catalogue.seen(others), catalogue.contrasts(others)

    assert contrasts == pytest.approx(units((others - sample.mean(axis=0)) @ inverse), abs=1e-4)
    assert np.linalg.norm(seen, axis=1) == pytest.approx(1, abs=1e-5)
    products = contrasts @ (others - catalogue.mean).T
    cosines = seen @ seen.T
    of_first = products[0] / products[0, 0] * cosines[0, 0]
    lengths = np.linalg.norm((others - catalogue.mean) @ catalogue.whitener, axis=1)
    assert of_first == pytest.approx(cosines[0] * lengths / lengths[0], abs=1e-3)


def test_unrelated_assets_are_at_right_angles_by_as_much_as_the_dimensions_say() -> None:
    sample = stretched(500, 64)
    catalogue = Catalogue.of(sample)

    seen = catalogue.among_kin(catalogue.seen(sample)).astype(np.float64)
    cosines = (seen @ seen.T)[np.triu_indices(len(seen), 1)]

    assert cosines.mean() == pytest.approx(0, abs=0.02)
    assert 1 / (cosines**2).mean() == pytest.approx(catalogue.dimensions, rel=1e-5)


def test_assets_of_one_kind_differ_in_the_dimensions_that_part_them_from_their_neighbours() -> None:
    """Their kinds lie in 4 of 64; held against loops over neighbours."""
    random = np.random.default_rng(0)
    kinds = np.zeros((20, 64))
    kinds[:, :4] = random.normal(size=(20, 4))
    sample = units(np.repeat(kinds, 15, axis=0) + 0.1 * random.normal(size=(300, 64)))
    catalogue = Catalogue.of(sample)
    seen = catalogue.among_kin(catalogue.seen(sample)).astype(np.float64)

    differences = []
    for row, asset in enumerate(seen):
        others = np.delete(seen, row, axis=0)
        differences.append(asset - others[np.argsort(others @ asset)[-3:]].mean(axis=0))
    directions = np.stack([difference / np.linalg.norm(difference) for difference in differences])
    cosines = (directions @ directions.T)[np.triu_indices(300, 1)]

    assert catalogue.within == pytest.approx(1 / (cosines**2).mean(), rel=1e-3)
    assert catalogue.dimensions < 10 < 40 < catalogue.within


@pytest.mark.parametrize("assets", [2, 3, 4, 40])
def test_copies_say_nothing_of_what_one_kind_differs_in(assets: int) -> None:
    catalogue = Catalogue.of(np.repeat(stretched(2, 16), assets // 2, axis=0))

    assert catalogue.within > 0
    assert np.isfinite(catalogue.within)


@pytest.mark.parametrize(("share", "often"), [(0.25, 4), (0.5, 4), (0.5, 6)])
def test_what_was_uploaded_often_hardly_changes_what_one_kind_differs_in(share: float, often: int) -> None:
    sample = stretched(400, 64)
    copied = sample[: int(share * len(sample))]

    catalogue = Catalogue.of(np.concatenate([sample, *[copied] * (often - 1)]))

    assert catalogue.within == pytest.approx(Catalogue.of(sample).within, rel=0.2)


def test_where_every_asset_has_copies_enough_one_kind_differs_in_what_strangers_do() -> None:
    catalogue = Catalogue.of(np.repeat(stretched(100, 64), 4, axis=0))

    assert catalogue.within == catalogue.dimensions


@pytest.mark.parametrize("d", [3, 16, 64])
def test_assets_are_drawn_towards_the_mean_of_their_kin(d: int) -> None:
    """Held against loops; what is asked for is the catalogue's own, a copy, somebody else's, or nowhere."""
    sample = stretched(200, d)
    catalogue = Catalogue.of(sample)
    seen = np.concatenate(
        [catalogue.seen(np.concatenate([sample[:5], stretched(20, d)])), np.zeros((1, d), np.float32)]
    )

    expected = []
    for asset in seen.astype(np.float64):
        cosines = [float(other @ asset) for other in catalogue.directions.astype(np.float64)]
        others = [0.0 if cosine > 0.995 else cosine for cosine in cosines]
        deviation = float(np.mean(np.square(others))) ** 0.5
        weights = [max(cosine - 2 * deviation, 0.0) for cosine in others]
        pull = sum(weight * other for weight, other in zip(weights, catalogue.directions, strict=True))
        drawn = asset + 0.5 * pull / (sum(weights) + 2 * deviation) if deviation else asset
        expected.append(drawn / (np.linalg.norm(drawn) or 1))

    assert catalogue.among_kin(seen) == pytest.approx(np.stack(expected), abs=1e-5)


def test_a_catalogue_of_one_asset_and_its_copies_sees_no_direction_there() -> None:
    asset = stretched(2, 16)[:1]
    catalogue = Catalogue.of(np.repeat(asset, 5, axis=0))

    nearly = np.nextafter(asset, np.float32(2))
    assert catalogue.seen(asset) == pytest.approx(0, abs=1e-6)
    assert catalogue.seen(nearly) == pytest.approx(0, abs=1e-5)
    assert catalogue.contrasts(asset) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(catalogue.seen(stretched(3, 16))).all()


def test_one_asset_is_no_catalogue() -> None:
    with pytest.raises(ValueError, match="a catalogue of 1 vectors; expected at least 2"):
        Catalogue.of(stretched(1, 16))
