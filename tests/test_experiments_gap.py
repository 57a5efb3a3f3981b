"""The gap's experiments on data whose gap is known."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from experiments import beyond, gap, searches, similarities
from experiments.__main__ import main
from experiments.closing import KS, WAYS, calibrated, cosine, try_way
from experiments.datasets import Captions, Items
from zccr_stream.measures import counterpart_recall

D = 24
CLASSES, EACH = 5, 12

Vectors = npt.NDArray[np.float32]


def unit(vectors: npt.NDArray[np.float64]) -> Vectors:
    units: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return units


def items(labelled: bool = True, each: int = EACH) -> Items:
    """Classes apart, pictures and captions nearly the same but for one direction, the gap, and another's spread."""
    random = np.random.default_rng(0)
    contents = np.repeat(2 * np.eye(CLASSES, D), each, axis=0) + 0.4 * random.normal(size=(CLASSES * each, D))
    contents[:, -1] = 0
    away = np.eye(D)[-1] * 4
    labels = [f"kind {row // each}" for row in range(len(contents))] if labelled else None
    noise = 0.02 * random.normal(size=contents.shape)
    return Items(
        "made", unit(contents - away), unit(contents + noise + away), [f"{row}" for row in range(len(contents))], labels
    )


def put(made: Items, folder: Path) -> None:
    np.save(folder / "images.npy", made.images)
    np.save(folder / "captions.npy", made.captions)
    labels = made.labels or []
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip(made.texts, labels, strict=True)]
    (folder / "items.jsonl").write_text("\n".join(lines))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    put(items(), tmp_path)
    return tmp_path


def run(command: str, folder: Path, *more: str) -> Any:
    report = folder / "made/report.json"
    assert main([command, "--data", str(folder), "--json", str(report), *more]) == 0
    return json.loads(report.read_text())


@pytest.mark.parametrize("name", WAYS)
def test_every_way_but_none_closes_a_gap_of_one_direction(name: str) -> None:
    made = items()
    fit, test = np.arange(0, 60, 2), np.arange(1, 60, 2)
    found = try_way(WAYS[name], (made.images[fit], made.captions[fit]), made.images[test], made.captions[test])

    for direction in ("t2i", "i2t"):
        if name == "calibrated":
            assert found.mixed[direction]["1"] > 0.9
        if name == "as it is":
            assert (found.mixed[direction]["10"], found.own[direction]) == (0, 1)
        else:
            assert found.mixed[direction]["10"] > 0.5
            assert found.own[direction] < 0.8
        assert all(found.mixed[direction][str(k)] <= found.unimodal[direction][str(k)] for k in KS)


@pytest.mark.parametrize("name", ["centred", "aligned"])
def test_the_counterpart_comes_first_once_the_gap_is_closed(name: str) -> None:
    made = items()
    fit, test = np.arange(0, 60, 2), np.arange(1, 60, 2)

    found = try_way(WAYS[name], (made.images[fit], made.captions[fit]), made.images[test], made.captions[test])

    assert found.mixed == found.unimodal
    assert found.mixed["t2i"]["1"] == found.mixed["i2t"]["1"] == 1


def test_shares_are_those_of_production() -> None:
    made = items()
    found = try_way(WAYS["as it is"], (made.images, made.captions), made.images, made.captions)

    mixed = counterpart_recall(made.captions, made.images, KS, beside=made.captions)
    alone = counterpart_recall(made.captions, made.images, KS)
    assert found.mixed["t2i"] == {str(k): share for k, share in mixed.items()}
    assert found.unimodal["t2i"] == {str(k): share for k, share in alone.items()}


@pytest.mark.parametrize("name", ["as it is", "z-score of query", "dual softmax", "calibrated"])
def test_queries_are_tried_in_blocks_as_all_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = items()
    samples = made.images[:30], made.captions[:20]
    whole = try_way(WAYS[name], samples, made.images[30:], made.captions[30:])
    monkeypatch.setattr("experiments.closing._ROWS", 7)
    assert try_way(WAYS[name], samples, made.images[30:], made.captions[30:]) == whole


def test_calibrated_scores_use_no_more_neighbours_than_there_are() -> None:
    made = items()
    few = made.captions[:2], made.images[:2]

    assert np.array_equal(
        calibrated(9)(made.captions, made.images, *few), calibrated(2)(made.captions, made.images, *few)
    )
    assert cosine(made.captions, made.images, *few).shape == (60, 60)


def test_gap_reports_every_way(folder: Path) -> None:
    report = run("gap", folder, "--halves", "2", "--figures", str(folder / "made"))

    assert set(report["unpaired"]) == {name for name, way in WAYS.items() if not way.paired}
    assert set(report["known"]) == set(gap.ON_ALL)
    assert report["unpaired"]["as it is"]["mixed"]["t2i"]["10"] == 0
    assert report["unpaired"]["aligned"]["mixed"]["t2i"]["10"] > 0.9
    assert report["unpaired"]["aligned"]["kind"] == "one index"
    assert report["unpaired"]["calibrated"]["kind"] == "merged lists"
    assert (folder / "made/gap.png").stat().st_size > 10_000
    assert report == run("gap", folder, "--halves", "2")


def test_gap_needs_pairs_for_samples_and_tests(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("images", "captions"):
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[:7])
    (folder / "items.jsonl").write_text("\n".join(['{"text": "x"}'] * 7))

    assert main(["gap", "--data", str(folder)]) == 2
    assert "too few pairs, 7" in capsys.readouterr().err


def test_beyond_sets_every_way_against_production(folder: Path) -> None:
    put(items(each=24), folder)
    grid = ("--classes", "1", "2", "--assets", "4", "--draws", "2")
    report = run("beyond", folder, *grid, "--figures", str(folder / "made"))

    ways, time = report["ways"], report["time"]
    assert set(ways) == {*beyond.WAYS, beyond.ONE_INDEX}
    assert set(ways["production"]["above"].values()) == {0}
    assert ways["true areas"]["areas"] == 3
    assert ways["joint true areas"]["areas"] == 1.5
    assert ways["joint true areas"]["ari"] == 1
    assert ways["medoids"] != ways["production"]
    assert set(time) == {"production", *(f"half-life {half_life}" for half_life in beyond.HALF_LIVES)}
    assert (folder / "made/beyond.png").stat().st_size > 10_000
    assert report == run("beyond", folder, *grid)


def test_beyond_does_without_a_catalogue(folder: Path) -> None:
    """Of 60 pairs nothing is known."""
    report = run("beyond", folder, "--classes", "2", "--assets", "4", "--draws", "1")

    assert set(report["ways"]) == set(beyond.WAYS)
    assert report["ways"]["joint areas"] == report["ways"]["production"]


@pytest.mark.parametrize("command", ["gap", "beyond", "components", "retrieval", "areas", "cuts"])
def test_where_all_items_of_a_class_are_the_same_there_are_still_numbers(folder: Path, command: str) -> None:
    """Captions that are the product's type, and one picture of each."""
    made = items(each=24)
    first = np.repeat(np.arange(0, len(made.texts), 24), 24)
    put(replace(made, images=made.images[first], captions=made.captions[first]), folder)
    few = {
        "gap": ["--halves", "1"],
        "components": ["--classes", "1", "2", "--assets", "5", "--draws", "1", "--tsne-draws", "1"],
        "beyond": ["--classes", "1", "--assets", "1", "2", "--draws", "1"],
        "areas": ["--classes", "1", "2", "--assets", "5", "--draws", "1"],
        "cuts": ["--classes", "2", "--assets", "5", "--draws", "1"],
    }

    run(command, folder, *few.get(command, []))

    json.loads((folder / "made/report.json").read_text(), parse_constant=pytest.fail)


def test_what_cannot_be_written_is_refused_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrieval", "--data", str(folder), "--json", str(folder)]) == 2
    assert "is a folder; --json expects a file" in capsys.readouterr().err
    assert main(["paper", "--data", str(folder), "--out", str(folder / "items.jsonl")]) == 2
    assert "items.jsonl is a file; expected a folder" in capsys.readouterr().err
    assert main(["retrieval", "--data", str(folder), "--json", "/proc/report.json"]) == 2
    assert "/proc cannot be written" in capsys.readouterr().err
    assert main(["retrieval", "--data", str(folder), "--json", "/dev/full"]) == 2
    assert "not written: " in capsys.readouterr().err


def test_similarities_are_those_of_the_right_pairs(folder: Path) -> None:
    made = items()
    report = run("similarities", folder, "--figures", str(folder / "made"))

    within = made.images @ made.images.T
    kinds = np.repeat(np.arange(CLASSES), EACH)
    alike = (kinds[:, None] == kinds) & ~np.eye(60, dtype=np.bool_)
    cosines = report["cosines"]
    assert cosines["image-text"]["positive"]["mean"] == pytest.approx(
        float((made.images * made.captions).sum(axis=1).mean()), abs=1e-6
    )
    assert cosines["image-image"]["positive"]["mean"] == pytest.approx(float(within[alike].mean()), abs=1e-6)
    assert [cosines["text-text"][sign]["pairs"] for sign in ("positive", "negative")] == [330, 1440]
    assert cosines["text-text"]["negative"]["mean"] > cosines["image-text"]["positive"]["mean"]
    expected = np.linalg.norm(made.images.mean(axis=0) - made.captions.mean(axis=0))
    assert report["gap_norm"] == pytest.approx(float(expected), abs=1e-5)
    assert {file.name for file in (folder / "made").glob("*.png")} == {"similarities.png", "tsne.png"}


def test_similarities_of_unlabelled_items_are_all_of_dissimilar_ones() -> None:
    made = items(labelled=False)
    outcome = similarities.measure(made, Namespace(pairs=20))

    assert set(outcome.report["cosines"]["text-text"]) == {"negative"}
    boxes, planes = outcome.figures["similarities"], outcome.figures["tsne"]
    assert [label.get_text() for label in boxes.axes[0].get_xticklabels()] == ["image-text", "text-text", "image-image"]
    assert [axes.get_title() for axes in planes.axes] == ["as encoded", "aligned"]
    assert all(sum(np.shape(part.get_offsets())[0] for part in axes.collections) == 40 for axes in planes.axes)


def test_captions_of_one_picture_are_the_papers_positive_text_text_pairs() -> None:
    made = items()
    owner = np.repeat(np.arange(60), 3)
    said = Captions(unit(made.captions[owner] + 0.01 * np.random.default_rng(1).normal(size=(180, D))), owner)

    texts = similarities.measure(replace(made, all_captions=lambda: said), Namespace(pairs=10)).report["cosines"]

    assert [texts["text-text"][sign]["pairs"] for sign in ("positive", "negative")] == [30, 405]
    assert texts["text-text"]["positive"]["mean"] > 0.99
    assert texts["image-image"]["positive"]["pairs"] < 10


def test_the_plane_shows_the_gap_and_is_the_same_in_every_run() -> None:
    made = items()
    both = np.concatenate([made.images, made.captions])

    points = similarities.plane(both)

    assert np.array_equal(points, similarities.plane(both))
    images, captions = points[:60], points[60:]
    distances = np.linalg.norm(points[:, None] - points[None, :], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(axis=1) // 60 == np.repeat([0, 1], 60)).mean() > 0.95
    assert images.shape == captions.shape == (60, 2)


@pytest.mark.parametrize("vectors", [np.full((40, 8), 8**-0.5), np.where(np.arange(40) % 3, 1, -1)[:, None]])
def test_the_plane_shows_what_hardly_varies(vectors: npt.NDArray[np.float64]) -> None:
    points = similarities.plane(vectors.astype(np.float32))

    assert points.shape == (40, 2)
    assert np.isfinite(points).all()


@pytest.mark.parametrize(
    ("experiment", "option", "least"),
    [("gap", "--pairs", 8), ("similarities", "--pairs", 4), ("searches", "--size", 2), ("searches", "--queries", 2)],
)
def test_too_few_to_measure_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], experiment: str, option: str, least: int
) -> None:
    try:
        code = main([experiment, "--data", str(folder), option, str(least - 1)])
    except SystemExit as exited:  # where the parser itself refuses it
        code = int(exited.code or 0)

    assert code == 2
    assert f"at least {least}" in capsys.readouterr().err


def test_exact_searches_find_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "ASSETS", 50)
    report = run("searches", folder, "--size", "400", "--queries", "3", "--repeats", "2")

    assert report["table_5"] == {}
    for of_way in report["table_1"].values():
        assert 0 <= of_way["p_value"] <= 1
        assert set(of_way) == {"one index", "two of half the size", "p_value"}
    assert set(report["table_6"]) == {"512", "256"}
    made = items()
    expected = {str(k): share for k, share in counterpart_recall(made.captions, made.images, KS).items()}
    for of_way in report["table_7"].values():
        assert of_way["t2i"] == expected
        assert of_way["delta_percent"] == {"t2i": 0, "i2t": 0}


def test_all_searches_rank_all_assets_alike() -> None:
    vectors = searches.synthetic(80, 16)

    ranked = {name: search(vectors[:1]).tolist() for name, search in searches._searches(vectors, 80).items()}

    assert len({tuple(rows[0]) for rows in ranked.values()}) == 1
    assert ranked["production"][0][0] == 0


@pytest.mark.filterwarnings("error")
def test_a_gap_between_items_that_are_all_the_same_is_measured_without_a_warning(tmp_path: Path) -> None:
    same = np.full((20, 8), 8**-0.5, np.float32)
    put(Items("made", same, same, ["the same"] * 20, ["kind"] * 20), tmp_path)

    report = run("gap", tmp_path)

    assert report["unpaired"]["aligned"]["mixed"]["t2i"]["1"] == 0
