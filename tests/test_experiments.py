"""The commands on small data whose answers are known."""

import json
import math
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.preprocessing import normalize

from experiments import areas, by_labels, constants, mixtures
from experiments.__main__ import EXPERIMENTS, main
from experiments.datasets import Items
from experiments.datasets.precomputed import pairs
from experiments.fixed import Distance, groupings
from experiments.outcome import Outcome
from experiments.simulation import WAYS, draw, uploaded
from zccr_stream.catalogue import Catalogue
from zccr_stream.events import IMAGE
from zccr_stream.interests import Area, AreaRule, Profile, areas_of, find_areas
from zccr_stream.measures import NOTHING, adjusted_rand

D = 32
CLASSES, ITEMS = 6, 12


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """Well separated classes; captions lie apart from pictures by one direction, the modality gap."""
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(CLASSES, D), ITEMS, axis=0)
    gap = np.zeros(D)
    gap[-1] = 2
    made = centres + 0.1 * random.normal(size=centres.shape)
    data = tmp_path / "data"
    data.mkdir()
    np.save(data / "images.npy", unit(made - gap))
    np.save(data / "captions.npy", unit(made + 0.02 * random.normal(size=made.shape) + gap))
    lines = [{"text": f"Item {row}.", "label": f"kind {row // ITEMS}"} for row in range(len(made))]
    (data / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return data


def unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    units: npt.NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return units


def run(command: str, folder: Path, *more: str) -> Any:
    """Run a command and read what it wrote."""
    report = folder.parent / "made/report.json"
    assert main([command, "--data", str(folder), "--json", str(report), *more]) == 0
    return json.loads(report.read_text())


def test_areas_writes_all_four_ways_in_the_fixed_shape(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZCCR_AREA_CUT", "0.6")  # the gap takes up most of the unit length
    report = run("areas", folder, "--classes", "1", "3", "1", "--assets", "4", "6", "40", "4", "--draws", "2")

    assert tuple(report) == WAYS
    for of_way in report.values():
        assert {"feed_recall", "paper_recall", "ari", "areas", "cells"} <= set(of_way)
        cells = [(cell["classes"], cell["assets_per_class"]) for cell in of_way["cells"]]
        assert cells == [(1, 4), (1, 6), (3, 4), (3, 6)]
        for cell in of_way["cells"]:
            assert {"feed_recall", "paper_recall", "ari", "areas"} <= set(cell)
        for name in ("feed_recall", "paper_recall", "ari", "areas"):
            assert of_way[name] == pytest.approx(np.mean([cell[name] for cell in of_way["cells"]]))
            assert math.isfinite(of_way["half_widths"][name])


def test_well_separated_classes_are_the_areas_that_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZCCR_AREA_CUT", "0.6")
    report = run("areas", folder, "--classes", "1", "3", "--assets", "4", "--draws", "3")

    assert report["rule"] == report["true"]
    assert (report["true"]["ari"], report["true"]["areas"]) == (1, 2)
    assert (report["true"]["feed_recall"], report["true"]["paper_recall"]) == (1, 1)
    assert report["one"]["areas"] == 1
    assert [cell["areas"] for cell in report["each"]["cells"]] == [4, 12]


def test_paper_runs_everything_and_says_what_the_data_lack(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {name: EXPERIMENTS[name] for name in ("areas", "retrieval")}
    monkeypatch.setattr("experiments.__main__.EXPERIMENTS", chosen)
    out = tmp_path / "out"
    out.mkdir()
    for name in ("areas.json", "areas.png", "of-mine.png"):
        (out / name).touch()
    (out / "report.md").write_text("of other data\n\n![areas](areas.png)\n")
    (folder / "items.jsonl").write_text("\n".join([json.dumps({"text": "x"})] * (CLASSES * ITEMS)))  # no labels

    assert main(["paper", "--data", str(folder), "--limit", "40", "--out", str(out)]) == 0

    report = (out / "report.md").read_text()
    assert report.startswith("# The paper's experiments on data\n")
    assert "Not measured: these items have no labels" in report
    assert f"`python -m experiments retrieval --data {folder} --limit 40`" in report
    assert "unimodal" in report
    assert set(json.loads((out / "retrieval.json").read_text())) == {"unimodal", "multimodal", "closed"}
    assert {file.name for file in out.iterdir()} == {"report.md", "retrieval.json", "retrieval.png", "of-mine.png"}


def test_a_fault_in_one_experiment_costs_nobody_the_others_and_is_told_by_the_exit_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_items: Items, _options: Namespace) -> Outcome:
        raise ZeroDivisionError("by a fault")

    faulty = ModuleType("faulty")
    faulty.__dict__.update(add_options=areas.add_options, measure=fail)
    chosen: dict[str, Any] = {"areas": (faulty, "fails"), "retrieval": EXPERIMENTS["retrieval"]}
    monkeypatch.setattr("experiments.__main__.EXPERIMENTS", chosen)

    assert main(["paper", "--data", str(folder), "--out", str(tmp_path / "out")]) == 1

    assert "Failed: ZeroDivisionError: by a fault" in (tmp_path / "out/report.md").read_text()
    assert (tmp_path / "out/retrieval.json").exists()
    assert "1 of 2 experiments, 1 failed by a fault" in capsys.readouterr().out


def test_a_terminal_that_cannot_show_the_table_costs_no_results(folder: Path) -> None:
    report = folder.parent / "report.json"
    command = [sys.executable, "-m", "experiments", "areas", "--data", str(folder), "--json", str(report)]
    small = ["--classes", "1", "--assets", "4", "--draws", "2"]

    said = subprocess.run(
        [*command, *small], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )

    assert b"default cut" in said.stdout
    assert "rule" in json.loads(report.read_text())


def test_rules_for_the_cut_take_captions_that_are_all_the_same(folder: Path) -> None:
    np.save(folder / "captions.npy", np.tile(np.load(folder / "captions.npy")[:1], (CLASSES * ITEMS, 1)))
    assert run("cuts", folder, "--classes", "2", "--assets", "4", "--draws", "1")["scaled"]


def test_one_kind_alone_leaves_nothing_to_tell_areas_apart_by(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "items.jsonl").write_text("\n".join([json.dumps({"text": "x", "label": "toy"})] * (CLASSES * ITEMS)))

    assert main(["areas", "--data", str(folder)]) == 2
    assert f"all {CLASSES * ITEMS} labelled items are 'toy': add items of other kinds" in capsys.readouterr().err


def test_rules_for_the_cut_are_compared_on_the_same_users(folder: Path) -> None:
    report = run("cuts", folder, "--classes", "1", "3", "--assets", "4", "--draws", "2")

    assert {
        "true areas",
        "calibrated",
        "uncalibrated",
        "fixed",
        "best for all",
        "true number",
        "scaled",
        "silhouette",
        "best cut",
        "closest",
    } == set(report)
    assert report["best cut"]["common"]["ari"] == report["closest"]["common"]["ari"] == 1
    for parts in report.values():
        assert set(parts) == {"common", "small"}
    true = report["true areas"]["common"]
    assert (true["ari"], true["above_true"], true["areas_more"]) == (1, 0, 0)
    assert report["fixed"]["common"]["ari"] == 1  # the classes are well separated


def test_rules_for_the_cut_are_what_they_are_whatever_the_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZCCR_AREA_CUT", "0.001")
    report = run("cuts", folder, "--classes", "3", "--assets", "4", "--draws", "2")

    assert report["true number"]["common"]["areas_more"] == 0
    assert report["true number"]["common"]["ari"] == 1
    assert report["calibrated"] == report["uncalibrated"]  # of so few pairs no catalogue is known


def test_the_report_is_not_begun_with_wrong_settings(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZCCR_AREA_VARIANCE", "7")

    assert main(["paper", "--data", str(folder), "--out", str(tmp_path / "paper")]) == 2
    assert "wrong settings: ZCCR_AREA_VARIANCE is '7'" in capsys.readouterr().err
    assert not (tmp_path / "paper" / "report.md").exists()


def test_users_of_one_asset_have_nothing_to_cut(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cuts", "--data", str(folder), "--classes", "1", "--assets", "1"]) == 2
    assert "common users have one asset each" in capsys.readouterr().err


def test_one_area_a_user_wastes_the_feed_and_is_reported_so(folder: Path) -> None:
    report = run("areas", folder, "--classes", "5", "--assets", "4", "--draws", "4")

    # Of all users' classes 5 x 8 items are to be found: only seeds of single classes keep strangers out of the feed.
    precision = {way: report[way]["feeds"]["20"]["precision"] for way in WAYS}
    assert precision["true"] == precision["each"] == 1 > precision["one"]
    assert report["each"]["paper_recall"] >= report["true"]["paper_recall"] == 1


def test_the_same_data_give_the_same_numbers(folder: Path) -> None:
    more = ("--classes", "2", "--assets", "3", "--draws", "2")

    assert run("areas", folder, *more) == run("areas", folder, *more)


def test_a_single_draw_has_no_interval(folder: Path) -> None:
    report = run("areas", folder, "--classes", "2", "--assets", "3", "--draws", "1")

    assert report["rule"]["half_widths"] == {}


def test_an_absolute_cut_is_named_as_such(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZCCR_AREA_CUT", "1.2")
    run("areas", folder, "--classes", "2", "--assets", "4", "--draws", "1")

    printed = capsys.readouterr().out
    assert "| cut at 1.2 |" in printed and "default cut" not in printed


def test_a_misspelt_setting_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ZCCR_AREA_CUTS", "1.2")
    run("areas", folder, "--classes", "2", "--assets", "4", "--draws", "1")

    assert "ZCCR_AREA_CUTS is no setting" in caplog.text


def test_memory_that_is_not_there_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(areas, "measure", measure)

    assert main(["areas", "--data", str(folder)]) == 2
    assert "ask for less (out of memory)" in capsys.readouterr().err


def test_cells_that_cannot_be_drawn_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("areas", folder, "--classes", "2", "7", "--assets", "3", "12", "--draws", "1")

    assert "too few classes have enough items: 2 x 12, 7 x 3, 7 x 12." in capsys.readouterr().out


def test_items_without_a_label_belong_to_nobody(folder: Path) -> None:
    lines = (folder / "items.jsonl").read_text().splitlines()
    more = [json.dumps({"text": "unlabelled"})] * ITEMS
    for name in ("images", "captions"):
        vectors = np.load(folder / f"{name}.npy")
        np.save(folder / f"{name}.npy", np.concatenate([vectors[:ITEMS], vectors]))
    (folder / "items.jsonl").write_text("\n".join([*more, *lines]))

    report = run("areas", folder, "--classes", "2", "--assets", "3", "--draws", "2")

    assert report["true"]["feed_recall"] == 1


def test_areas_without_labels_say_what_to_add(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps({"text": "x"})] * (CLASSES * ITEMS)
    (folder / "items.jsonl").write_text("\n".join(lines))

    assert main(["areas", "--data", str(folder)]) == 2
    assert 'add "label": KIND to the lines of items.jsonl' in capsys.readouterr().err


def test_areas_of_too_few_items_say_how_many_there_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["areas", "--data", str(folder), "--assets", "12"]) == 2
    assert "the largest of 6 classes have 12, 12, 12, 12, 12" in capsys.readouterr().err


def test_a_users_draw_divides_the_items() -> None:
    codes = np.repeat(np.arange(5), 10)

    user = draw(codes, 3, 4, np.random.default_rng(0))

    parts = (user.own, user.wanted, user.peers, user.strangers)
    assert [len(part) for part in parts] == [12, 3, 15, 20]
    assert sorted(np.concatenate(parts).tolist()) == list(range(50))
    assert user.classes[user.wanted].tolist() == [0, 1, 2]
    assert np.bincount(user.classes[user.own]).tolist() == [4, 4, 4]
    assert set(user.classes[user.strangers].tolist()) == {NOTHING}
    assert len(set(codes[user.own].tolist()).intersection(codes[user.strangers].tolist())) == 0


def test_what_others_own_is_bounded_as_in_the_paper() -> None:
    user = draw(np.repeat(np.arange(30), 100), 2, 5, np.random.default_rng(0))

    assert len(user.wanted) + len(user.peers) + len(user.strangers) == 1000


def test_outliers_are_the_users_own_alone_and_each_a_group_by_itself() -> None:
    codes = np.repeat(np.arange(10), 20)
    plain, odd = (draw(codes, 3, 4, np.random.default_rng(0), outliers) for outliers in (0, 5))

    groups = odd.groups()
    assert len(odd.own) == 17 and np.bincount(groups).tolist() == [4, 4, 4, 1, 1, 1, 1, 1]
    assert set(plain.own.tolist()) < set(odd.own.tolist())
    outliers = set(odd.own[groups >= 3].tolist())
    assert outliers.isdisjoint(odd.wanted) and outliers.isdisjoint(odd.peers) and outliers.isdisjoint(odd.strangers)
    assert plain.groups().tolist() == plain.classes[plain.own].tolist()


def test_a_made_up_mixture_has_areas_that_serve_the_feed_with_outliers_beside_them(tmp_path: Path) -> None:
    assert mixtures.main([str(tmp_path), "--classes", "20", "--spread", ".6"]) == 0

    grid = ["--classes", "2", "5", "--assets", "5", "--draws", "3", "--outliers", "4"]
    assert main(["areas", "--data", str(tmp_path), *grid, "--json", str(tmp_path / "report.json")]) == 0

    report = json.loads((tmp_path / "report.json").read_text())
    assert [cell["areas"] for cell in report["true"]["cells"]] == [6, 9]
    assert report["rule"]["ari"] > 0.7  # outliers share areas
    assert report["rule"]["feed_recall"] > 0.95


def test_classes_of_a_made_up_world_are_more_alike_than_those_of_two(tmp_path: Path) -> None:
    for name, worlds in (("one", []), ("two", ["--worlds", "2"])):
        assert mixtures.main([str(tmp_path / name), "--classes", "20", "--spread", ".3", *worlds]) == 0
    kinds = [json.loads(line)["label"] for line in (tmp_path / "two/items.jsonl").read_text().splitlines()]
    classes = np.array([int(kind.removeprefix("class ")) for kind in kinds])

    def alike(name: str) -> tuple[float, float]:
        cosines = (vectors := np.load(tmp_path / name / "images.npy")) @ vectors.T
        same_world = (classes[:, None] - classes) % 2 == 0
        other_class = classes[:, None] != classes
        return float(cosines[same_world & other_class].mean()), float(cosines[~same_world].mean())

    assert alike("one")[0] == pytest.approx(alike("one")[1], abs=0.1)
    assert alike("two")[0] > alike("two")[1] + 0.3


def test_constants_of_the_cut_are_compared_with_the_best_fixed_distances(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixture"
    assert mixtures.main([str(folder), "--classes", "30", "--spread", ".8"]) == 0
    capsys.readouterr()

    assert constants.main([str(folder), "--draws", "1"]) == 0

    lines = capsys.readouterr().out.splitlines()
    (known,) = [line for line in lines if line.startswith("| production ")]
    (careless,) = [line for line in lines if line.startswith("| doubt_max 0 ")]
    known_small, careless_small = (float(line.split("|")[3].split("/")[0]) for line in (known, careless))
    assert careless_small < known_small - 0.1  # small profiles need it
    assert abs(float(known.split("|")[2].split("/")[0])) < 0.1


def test_users_of_one_group_are_the_same_in_every_run_and_hold_what_they_say() -> None:
    codes = np.repeat(np.arange(30), 40)

    users = list(constants.draws(codes, 1, 0))

    assert [group for group, _, _ in users] == [group for group, _, _ in constants.draws(codes, 1, 0)]
    assert {group for group, _, _ in users} == set(constants.GROUPS)
    for group, rows, true in users:
        assert len(set(rows.tolist())) == len(rows) == len(true) > 1
        assert all(len(set(codes[rows[true == number]].tolist())) == 1 for number in range(true.max() + 1))
        sizes = np.bincount(true)
        if group == "uneven":
            assert sizes.max() >= 10 and sizes.max() > np.sort(sizes)[-2] * 3
        else:
            assert sizes.min() == 1 if group in ("skewed", "sparse") else len(set(sizes.tolist())) == 1


def test_constants_say_what_they_cannot_be_measured_on(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    unlabelled = "".join(json.dumps({"text": line["text"]}) + "\n" for line in lines)

    for data, message in ((tmp_path / "nothing", "is no folder"), (folder, f"{folder} has 72 pairs; expected 100")):
        with pytest.raises(SystemExit) as stopped:
            constants.main([str(data)])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
    (folder / "items.jsonl").write_text(unlabelled)
    with pytest.raises(SystemExit):
        constants.main([str(folder)])
    assert f"{folder}: these items have no labels" in capsys.readouterr().err


def test_fixed_distances_are_those_of_scipys_tree(folder: Path) -> None:
    vectors = np.load(folder / "images.npy")[:30].astype(np.float32)
    profile, catalogue = uploaded(np.arange(30), IMAGE, vectors), Catalogue.of(vectors)
    plain, grown, seen = Distance(0.9, 0, False), Distance(0.6, 0.2, False), Distance(0.9, 0, True)

    groups = dict(zip((plain, grown, seen), groupings(profile, catalogue, (plain, grown, seen)), strict=True))

    tree = linkage(profile.vectors, "ward")
    assert adjusted_rand(groups[plain], fcluster(tree, 0.9, "distance")) == 1
    centred = linkage(normalize(profile.vectors - catalogue.mean), "ward")
    assert adjusted_rand(groups[seen], fcluster(centred, 0.9, "distance")) == 1
    assert str(grown) == "0.6 (m / 2)^0.2" and str(seen) == "0.9 from the mean"


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 8))
def test_the_best_cut_by_labels_is_the_best_of_all(seed: int, n: int, classes: int) -> None:
    """Held against every cut of scipy's tree."""
    random = np.random.default_rng(seed)
    vectors, true = random.normal(size=(n, 3)).astype(np.float32), random.integers(classes, size=n)
    children = linkage(vectors, "ward")[:, :2].astype(int).tolist() if n > 1 else []
    leaves: list[list[int]] = [[leaf] for leaf in range(n)]
    for left, right in children:
        leaves.append(leaves[left] + leaves[right])

    def cuts(node: int) -> Iterator[list[int]]:
        yield [node]
        if node >= n:
            left, right = children[node - n]
            yield from (one + other for one in cuts(left) for other in cuts(right))

    best = 0.0
    for nodes in cuts(2 * n - 2):
        groups = np.empty(n, np.intp)
        for number, node in enumerate(nodes):
            groups[leaves[node]] = number
        best = max(best, adjusted_rand(groups, true))

    assert adjusted_rand(by_labels.best_cut(vectors, 1.0, true), true) == pytest.approx(best)


def test_each_asset_goes_to_the_class_whose_others_are_closest() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.1, 0.99], [0.99, 0.1], [-1, 0]], np.float32)
    true = np.array([7, 7, 4, 4, 4, 2])

    assert by_labels.closest_class(vectors, true).tolist() == [7, 4, 4, 4, 7, 2]


def test_constants_are_of_the_calibrated_cut_whatever_cut_is_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mixture"
    assert mixtures.main([str(folder), "--classes", "12", "--spread", ".8"]) == 0
    capsys.readouterr()
    tables = []
    for cut in ("", "0.3"):
        if cut:
            monkeypatch.setenv("ZCCR_AREA_CUT", cut)
        assert constants.main([str(folder), "--draws", "1"]) == 0
        tables.append(capsys.readouterr().out)

    assert tables[0] == tables[1]


@pytest.mark.parametrize("wrong", [["--spread", "nan"], ["--spread", "1e300"], ["--gap", "inf"], ["--seed", "-1"]])
def test_mixtures_that_cannot_be_made_are_refused(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        mixtures.main([str(tmp_path / "mixture"), *wrong])

    assert stopped.value.code == 2
    assert "expected a" in capsys.readouterr().err
    assert not (tmp_path / "mixture").exists()


def test_areas_of_given_groups_are_what_production_makes_of_the_same_groups() -> None:
    rule = AreaRule(variance=0.99, cut=0.6, growth=0.2, areas_max=100, sample_size=1000, seed="centroid")
    groups = np.array([0, 1, 1, 2, 0, 1])
    vectors = unit(np.eye(3, D)[groups] + 0.05 * np.random.default_rng(0).normal(size=(6, D)))
    profile = Profile("user", 1, [f"asset-{row}" for row in range(6)], [IMAGE] * 6, np.arange(6), vectors)

    def plain(areas: list[Area]) -> list[tuple[object, ...]]:
        return [(area.area_id, area.weight, area.members.tolist(), area.medoid, area.seed.tolist()) for area in areas]

    assert plain(areas_of(profile, groups, rule)) == plain(find_areas(profile, rule))


def test_retrieval_writes_the_fixed_shape_and_closing_the_gap_brings_recall_back(folder: Path) -> None:
    report = run("retrieval", folder)

    assert list(report) == ["unimodal", "multimodal", "closed"]
    for space in report.values():
        assert list(space) == ["t2i", "i2t"]
        for shares in space.values():
            assert list(shares) == ["1", "5", "10"]
            assert 0 <= shares["1"] <= shares["5"] <= shares["10"] <= 1
    for direction in ("t2i", "i2t"):
        assert report["unimodal"][direction]["10"] > 0.9
        assert report["multimodal"][direction]["10"] == 0
        assert report["closed"][direction]["10"] > 0.9


@pytest.mark.parametrize(
    ("command", "rows", "columns"),
    [
        ("areas", ["feed recall@20", "paper recall@10", "ARI"], ["1 class", "3 classes"]),
        ("retrieval", ["text to image", "image to text"], ["all pairs", "the half that is tested"]),
    ],
)
def test_plots_have_a_panel_for_each_measure_and_kind_of_user_or_each_direction(
    folder: Path, tmp_path: Path, command: str, rows: list[str], columns: list[str]
) -> None:
    grid = ["--classes", "1", "3", "--assets", "4", "6", "--draws", "2"] if command == "areas" else []
    run(command, folder, *grid, "--figures", str(tmp_path / "made"))
    assert (tmp_path / f"made/{command}.png").stat().st_size > 10_000

    parser = ArgumentParser()
    experiment, _ = EXPERIMENTS[command]
    experiment.add_options(parser)
    figure = experiment.measure(pairs(folder), parser.parse_args(grid)).figures[command]
    assert [panel.get_ylabel() for panel in figure.axes if panel.get_ylabel()] == rows
    assert [panel.get_title() for panel in figure.axes if panel.get_title()] == columns
    assert all(panel.get_lines() for panel in figure.axes)


def test_an_experiment_without_plots_says_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("cuts", folder, "--classes", "2", "--assets", "4", "--draws", "1", "--figures", str(tmp_path / "made"))

    assert "cuts has no plots" in capsys.readouterr().err


def test_retrieval_needs_two_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("images", "captions"):
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[:1])
    (folder / "items.jsonl").write_text('{"text": "alone"}\n')

    assert main(["retrieval", "--data", str(folder)]) == 2
    assert "too few pairs, 1" in capsys.readouterr().err


def test_without_a_command_the_help_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0

    shown = capsys.readouterr().out
    assert "areas" in shown
    assert "retrieval" in shown


@pytest.mark.parametrize("command", ["areas", "retrieval"])
def test_a_commands_help_tells_the_protocol_and_the_layouts(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])

    shown = capsys.readouterr().out
    assert "items.jsonl" in shown
    assert "paper" in shown


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "9" * 20, "0" * 20 + "9" * 5000])
def test_a_wrong_number_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["areas", "--data", ".", "--draws", wrong])
    assert "--draws" in capsys.readouterr().err
