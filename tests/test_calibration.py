"""What a gap between modalities took apart is put together, from samples that do not belong together."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zccr_stream.calibration import Alignment, align, comparable, local_mean
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.measures import counterpart_recall

D = 16

Vectors = npt.NDArray[np.float32]


def unit(vectors: npt.NDArray[np.float64]) -> Vectors:
    units: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return units


def pairs(n: int, seed: int) -> tuple[Vectors, Vectors]:
    """Images and texts of the same contents, apart by a direction, and of different spread along two others."""
    random = np.random.default_rng(seed)
    contents = random.normal(size=(n, D)) * np.linspace(1.5, 0.5, D)
    gap = np.zeros(D)
    gap[-1] = 6
    wide, flat = np.ones(D), np.ones(D)
    wide[3], flat[5] = 4, 0.2
    return unit(contents * wide + gap), unit(contents * flat - gap)


def clouds() -> st.SearchStrategy[Vectors]:
    """Samples of one modality, of any size and as poor as can be: some have copies, or dimensions that never vary."""

    def made(seed: int, m: int, varying: int, copies: bool) -> Vectors:
        random = np.random.default_rng(seed)
        vectors = np.ones((m, 6))
        vectors[:, :varying] += random.normal(size=(1 if copies else m, varying))
        return unit(vectors)

    return st.builds(made, st.integers(0, 99), st.integers(1, 40), st.integers(0, 6), st.booleans())


def test_where_all_but_a_few_are_copies_the_few_say_what_is_usual_and_among_copies_alone_they_do() -> None:
    bank = np.eye(4, dtype=np.float32)[[0] * 9 + [1]]

    assert local_mean(bank[:1], bank, 5).tolist() == [0]
    assert local_mean(bank[:1], bank[:9], 5).tolist() == [1]


def test_alignment_closes_a_gap_that_taking_the_means_away_leaves_open() -> None:
    images, texts = pairs(400, 0)
    others, unrelated = pairs(1500, 1)[0], pairs(1500, 2)[1]
    found = align({IMAGE: others, TEXT: unrelated})

    aligned = [found[IMAGE].apply(images), found[TEXT].apply(texts)]
    centred = [unit(images - others.mean(axis=0)), unit(texts - unrelated.mean(axis=0))]

    assert counterpart_recall(texts, images, (10,), beside=texts)[10] == 0
    assert counterpart_recall(centred[1], centred[0], (1,), beside=centred[1])[1] < 0.9
    assert counterpart_recall(aligned[1], aligned[0], (1,), beside=aligned[1])[1] > 0.95
    assert counterpart_recall(aligned[0], aligned[1], (1,), beside=aligned[0])[1] > 0.95


def test_aligned_samples_have_the_mean_zero_and_the_same_spread() -> None:
    images, texts = pairs(2000, 0)
    found = align({IMAGE: images, TEXT: texts})

    moved = [(vectors - found[name].mean) @ found[name].matrix for name, vectors in ((IMAGE, images), (TEXT, texts))]
    shapes = [np.cov(vectors.T, bias=True) / np.trace(np.cov(vectors.T)) for vectors in moved]

    assert all(np.abs(vectors.mean(axis=0)).max() < 1e-5 for vectors in moved)
    assert np.abs(shapes[0] - shapes[1]).max() < 0.01
    before = [np.cov(vectors.T) / np.trace(np.cov(vectors.T)) for vectors in (images, texts)]
    assert np.abs(before[0] - before[1]).max() > 0.1


def test_what_is_spread_alike_already_is_only_centred() -> None:
    images = pairs(300, 0)[0]
    found = align({IMAGE: images, TEXT: -images})

    assert np.allclose(found[IMAGE].matrix / found[IMAGE].matrix[0, 0], np.eye(D), atol=1e-4)
    assert np.allclose(found[IMAGE].apply(images), unit(images - images.mean(axis=0)), atol=1e-4)


def test_three_modalities_meet_in_one_space() -> None:
    images, texts = pairs(1500, 0)
    sounds = unit(pairs(1500, 3)[0] * np.linspace(0.3, 2, D))
    found = align({IMAGE: images, TEXT: texts, "sound": sounds})

    shapes = []
    for name, vectors in ((IMAGE, images), (TEXT, texts), ("sound", sounds)):
        spread = np.cov(((vectors - found[name].mean) @ found[name].matrix).T)
        shapes.append(spread / np.trace(spread))
    assert np.abs(shapes[0] - shapes[1]).max() < 0.01
    assert np.abs(shapes[0] - shapes[2]).max() < 0.01


def test_few_samples_leave_little_more_than_the_means() -> None:
    many, few = pairs(800, 0)[0], pairs(2, 1)[1]
    found = align({IMAGE: many, TEXT: few})

    matrix = found[IMAGE].matrix / np.trace(found[IMAGE].matrix) * D
    assert np.abs(matrix - np.eye(D)).max() < 0.5
    alone = align({IMAGE: many, TEXT: few[:1]})[IMAGE].matrix
    assert np.allclose(alone / alone[0, 0], np.eye(D), atol=1e-5)


@given(clouds(), clouds())
def test_whatever_the_samples_are_unit_vectors_come_out(one: Vectors, other: Vectors) -> None:
    found = align({IMAGE: one, TEXT: other})

    for modality, vectors in ((IMAGE, one), (TEXT, other), (IMAGE, other)):
        aligned = found[modality].apply(vectors)
        assert aligned.dtype == np.float32
        assert np.allclose(np.linalg.norm(aligned, axis=1), 1, atol=1e-5)


@given(clouds(), clouds(), st.randoms(use_true_random=False))
def test_the_order_of_a_sample_does_not_count(one: Vectors, other: Vectors, random: object) -> None:
    shuffled = np.random.default_rng(abs(hash(str(random))) % 100).permutation(len(one))

    found, again = align({IMAGE: one, TEXT: other}), align({TEXT: other, IMAGE: one[shuffled]})

    for modality in (IMAGE, TEXT):
        assert np.allclose(found[modality].mean, again[modality].mean, atol=1e-5)
        assert np.allclose(found[modality].matrix, again[modality].matrix, atol=1e-3)


@pytest.mark.parametrize(
    "samples",
    [
        {IMAGE: np.ones((3, 4), np.float32), TEXT: np.ones((3, 5), np.float32)},
        {IMAGE: np.ones((0, 4), np.float32), TEXT: np.ones((3, 4), np.float32)},
        {IMAGE: np.ones(4, np.float32)},
    ],
    ids=["lengths", "empty", "one dimension"],
)
def test_samples_that_do_not_fit_are_refused(samples: dict[str, Vectors]) -> None:
    with pytest.raises(ValueError, match="expected"):
        align(samples)


def test_no_samples_are_no_maps_and_other_vectors_are_refused() -> None:
    assert align({}) == {}
    with pytest.raises(ValueError, match=r"expected \(n, 2\)"):
        Alignment(np.zeros(2, np.float32), np.eye(2, dtype=np.float32)).apply(np.ones((1, 3), np.float32))


def test_the_local_mean_is_that_of_the_nearest() -> None:
    bank = unit(np.array([[1.0, 0], [0, 1], [-1, 0], [3, 4]]))
    queries = unit(np.array([[1.0, 1], [0, -1]]))

    assert local_mean(queries, bank, 1).tolist() == pytest.approx([7 / 50**0.5, 0], abs=1e-6)
    assert local_mean(queries, bank, 3).tolist() == pytest.approx(
        [(7 / 50**0.5 + 2 * 0.5**0.5) / 3, (0 + 0 - 0.8) / 3], abs=1e-6
    )


def test_an_asset_is_not_its_own_neighbour() -> None:
    bank = pairs(50, 0)[0]

    assert np.allclose(local_mean(bank, bank, 1), np.sort(bank @ bank.T, axis=1)[:, -2], atol=1e-5)
    assert local_mean(bank, bank.astype(np.float16).astype(np.float32), 1) == pytest.approx(
        local_mean(bank, bank, 1), abs=1e-3
    )
    assert np.isfinite(local_mean(bank[:1], bank[:1], 1)).all()


def test_local_means_do_not_depend_on_how_many_there_are_at_once() -> None:
    bank = pairs(20, 0)[0]
    many = np.resize(pairs(100, 1)[0], (9000, D))

    found = local_mean(many, bank, 2)
    assert np.allclose(found[-100:], found[:100], atol=1e-6)
    assert np.allclose(found[4090:4100], found[90:100], atol=1e-6)


@pytest.mark.parametrize("neighbours", [0, 21])
def test_neighbours_beyond_the_bank_are_refused(neighbours: int) -> None:
    bank = pairs(20, 0)[0]
    with pytest.raises(ValueError, match=f"neighbours is {neighbours}"):
        local_mean(bank, bank, neighbours)


def test_comparable_scores_of_both_modalities_mix() -> None:
    """A hit that is nearer than usual comes first, though cosines across the gap are all lower."""
    across = comparable(np.array([[0.30, 0.20]], np.float32), np.array([0.21], np.float32), np.full((1, 2), 0.19, "f4"))
    within = comparable(np.array([[0.85, 0.80]], np.float32), np.array([0.82], np.float32), np.full((1, 2), 0.84, "f4"))

    assert across.tolist() == [pytest.approx([0.10, 0.0], abs=1e-6)]
    assert within.tolist() == [pytest.approx([0.02, -0.03], abs=1e-6)]


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="of seeds"):
        comparable(np.zeros((2, 3), np.float32), np.zeros(3, np.float32), np.zeros((2, 3), np.float32))
