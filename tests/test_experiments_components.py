"""Projections, clusterings and seeds on profiles whose areas are known; the figures' form."""

import argparse
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from experiments import components
from experiments.clusterings import (
    CLUSTERINGS,
    DENSITY,
    DENSITY_EACH,
    DENSITY_ONE,
    LINEAR,
    NONE,
    NONLINEAR,
    WARD,
    WARD_TRUE,
    clustered,
    density,
    medoid_seeds,
    project,
    ward_by_silhouette,
)
from experiments.comparison import MEASURES, TASKS, Comparison, Estimate, Expected
from experiments.datasets import Items
from experiments.outcome import Outcome
from experiments.plots import BLUE, DASHED, SOLID, VERMILION, Line, Points, small_multiples
from experiments.simulation import group_numbers
from zccr_stream.events import IMAGE
from zccr_stream.interests import AreaRule, Profile, areas_of, find_areas
from zccr_stream.measures import NOTHING, adjusted_rand

D = 32
CLASSES, ITEMS = 4, 12
RULE = AreaRule(variance=0.99, cut=0.6, growth=0.2, areas_max=100, sample_size=1000, seed="centroid")


def separated(groups: npt.NDArray[np.intp], noise: float = 0.03) -> npt.NDArray[np.float32]:
    """(n, d) unit vectors, every group about an axis of its own."""
    near = np.eye(groups.max() + 1, D)[groups] + noise * np.random.default_rng(0).normal(size=(len(groups), D))
    units: npt.NDArray[np.float32] = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    return units


def profile_of(vectors: npt.NDArray[np.float32]) -> Profile:
    n = len(vectors)
    return Profile("user", 1, [f"asset-{row:03}" for row in range(n)], [IMAGE] * n, np.arange(n), vectors)


def items() -> Items:
    groups = np.repeat(np.arange(CLASSES), ITEMS)
    vectors = separated(groups)
    return Items("made", vectors, vectors[:, ::-1].copy() * -1, ["x"] * len(groups), [f"kind {g}" for g in groups])


@pytest.fixture(name="outcome", scope="module")
def _outcome() -> Outcome:
    options = argparse.Namespace(classes=[1, 2], assets=[5, 7], draws=2, tsne_draws=1, smallest=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZCCR_AREA_CUT", "0.6")
        return components.measure(items(), options)


@pytest.mark.parametrize("projection", [NONE, LINEAR, NONLINEAR])
def test_separated_classes_are_found_by_every_projection_and_clustering(projection: str) -> None:
    true = np.random.default_rng(1).permutation(np.repeat(np.arange(3), 20))
    profile = profile_of(separated(true))

    found = dict(clustered(profile, projection, RULE, number=3, smallest=5))

    assert tuple(found) == CLUSTERINGS
    assert adjusted_rand(group_numbers(found[WARD_TRUE], len(true)), true) == 1
    assert adjusted_rand(group_numbers(found[WARD], len(true)), true) == 1
    assert adjusted_rand(group_numbers(found[DENSITY], len(true)), true) > 0.8


def test_unprojected_distances_are_those_of_a_rotation() -> None:
    """The cut over all of the variance is the cut over the vectors themselves."""
    vectors = separated(np.repeat(np.arange(3), 8), noise=0.1)
    apart = np.linalg.norm(vectors[:, None] - vectors, axis=2)
    turned = project(vectors, LINEAR, 0.999999)

    assert np.linalg.norm(turned[:, None] - turned, axis=2) == pytest.approx(apart, abs=1e-2)
    assert project(vectors, NONE, 0.99) is vectors


def test_noise_is_left_out_or_one_area_or_many() -> None:
    groups = np.concatenate([np.repeat(np.arange(2), 8), np.arange(2, 6)])  # two areas, and four of a kind each
    profile = profile_of(separated(groups))
    noise = density(profile.vectors, 5) == NOTHING
    assert noise[-4:].all() and noise.sum() < 12

    found = dict(clustered(profile, NONE, RULE, number=6, smallest=5))

    members = {name: sum(len(area.members) for area in found[name]) for name in CLUSTERINGS}
    assert members[DENSITY] == 20 - noise.sum()
    assert members[DENSITY_ONE] == members[DENSITY_EACH] == members[WARD] == 20
    assert len(found[DENSITY_ONE]) == len(found[DENSITY]) + 1
    assert len(found[DENSITY_EACH]) == len(found[DENSITY]) + noise.sum()
    assert len(set(group_numbers(found[DENSITY], 20)[noise].tolist())) == noise.sum()


def test_structureless_and_tiny_profiles_are_one_area_on_a_map() -> None:
    points = np.random.default_rng(0).normal(size=(60, 2))

    assert set(ward_by_silhouette(points).tolist()) == {0}
    assert ward_by_silhouette(points[:1]).tolist() == [0]
    assert ward_by_silhouette(np.concatenate([points, points + 100])).tolist() == [0] * 60 + [1] * 60


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("projection", [NONE, LINEAR, NONLINEAR])
def test_the_smallest_profiles_have_areas(projection: str, n: int) -> None:
    found = dict(clustered(profile_of(separated(np.arange(n))), projection, RULE, number=1, smallest=5))

    assert found[DENSITY] == []
    assert len(found[DENSITY_EACH]) == n
    assert len(found[WARD_TRUE]) == len(found[DENSITY_ONE]) == 1


def test_medoid_seeds_are_productions() -> None:
    true = np.repeat(np.arange(3), 6)
    profile = profile_of(separated(true))
    medoid = replace(RULE, seed="medoid")

    changed = medoid_seeds(profile, areas_of(profile, true, RULE))

    expected = find_areas(profile, medoid)
    assert [area.area_id for area in changed] == [area.area_id for area in expected]
    for one, other in zip(changed, expected, strict=True):
        assert one.seed == pytest.approx(other.seed, abs=1e-6)
    assert medoid_seeds(profile, []) == []


def test_the_report_has_every_system_on_every_task_and_cell(outcome: Outcome) -> None:
    systems = outcome.report["systems"]
    assert list(systems) == components.SYSTEMS
    ward = systems["PCA, Ward, centroid"]
    assert list(ward["tasks"]) == list(TASKS)
    assert [(cell["classes"], cell["assets_per_class"]) for cell in ward["cells"]] == [(1, 5), (1, 7), (2, 5), (2, 7)]
    assert ward["ari"] == systems["none, Ward, centroid"]["ari"] == systems["true areas, centroid"]["ari"] == 1
    assert ward["tasks"]["text to text"]["paper_recall"] == ward["tasks"]["image to image"]["feed_recall"] == 1
    assert systems["PCA, HDBSCAN, centroid"]["cells"][0]["areas"] != 1  # never a single area
    (pca, *_) = outcome.report["conclusions"]
    assert pca["feed_recall"] == {"mean": 0, "half_width": 0}


def test_figures_have_a_panel_for_each_projection_or_task_and_class_count(outcome: Outcome) -> None:
    assert list(outcome.figures) == [
        "components-text-to-image",
        "components-text-to-text",
        "components-image-to-text",
        "components-image-to-image",
        "components-all-tasks-pca",
    ]
    rows = [[panel.get_ylabel() for panel in figure.axes][::2] for figure in outcome.figures.values()]
    assert rows == [[NONE, LINEAR, NONLINEAR]] * 4 + [list(TASKS)]
    for figure in outcome.figures.values():
        for panel in figure.axes:
            assert [line.get_linestyle() for line in panel.get_lines()] == [SOLID, DASHED] * 3
            assert {tuple(np.asarray(line.get_xdata()).tolist()) for line in panel.get_lines()} == {(5, 7)}


def test_small_multiples_share_axes_and_name_each_line_once() -> None:
    line = Line("one", VERMILION, SOLID, {("a", "1"): Points([5, 10], [0.2, 0.4], [0.1, np.inf])})
    other = Line("other", BLUE, DASHED, {("b", "2"): Points([10], [1.0], [0.5])})
    nothing = Line("nothing", BLUE, DASHED, {})

    figure = small_multiples("title", ["a", "b"], ["1", "2"], [line, other, nothing], "x", "y")

    assert len(figure.axes) == 4
    assert {panel.get_ylim() for panel in figure.axes} == {(-0.03, 1.03)}
    assert {tuple(panel.get_xticks()) for panel in figure.axes} == {(5, 10)}
    assert [[len(panel.get_lines()), len(panel.texts)] for panel in figure.axes] == [[1, 0], [0, 1], [0, 1], [1, 0]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "other"]


def test_differences_are_of_the_users_that_both_were_measured_on() -> None:
    values = np.zeros((4, 1, 4, 1, len(MEASURES)))
    values[0, 0, :, 0] = np.array([0.9, 0.1, 0.9, 0.1])[:, None]
    values[1, 0, :, 0] = values[0, 0, :, 0] - 0.05
    values[2] = values[0] - 0.1
    values[2, 0, 2:] = np.nan
    values[3] = 0.5
    found = Comparison(["a", "b", "c", "half"], [(1, 5)], ["text to text"], values)

    assert found.difference("a", "b", "ari").mean == pytest.approx(0.05)
    assert found.difference("a", "b", "ari").half_width == pytest.approx(0)
    assert [str(Estimate(0.5, half)) for half in (0.02, np.inf)] == [".500 ± .020", ".500"]
    assert str(Estimate(20.123, 0.5)) == "20.123 ± .500" and str(Estimate(-0.5, 10.04)) == "-.500 ± 10.040"
    assert found.difference("a", "c", "ari").mean == pytest.approx(0.1)
    assert found.estimate("c", "ari").mean == pytest.approx(0.4)
    expected = {
        "more": Expected("a", "b"),
        "less": Expected("b", "a"),
        "alike": Expected("a", "b", equal=True),
        "the same": Expected("a", "a", equal=True),
        "even": Expected("a", "a"),
        "unclear": Expected("a", "half"),
    }
    table, reports = found.conclusions(expected, near=0.02)
    holds = [report["holds"]["feed_recall"] for report in reports]
    assert holds == ["yes", "no, the reverse", "no", "yes", "no, alike", "not shown"]
    assert "| more | a - b | .050 ± .000 |" in table
