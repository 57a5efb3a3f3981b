"""Pictures get the label that a classifier is sure of, or are left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from skimage import data

from experiments import classifier, labels
from experiments.__main__ import main
from experiments.classifier import Likeliest, class_names, classify
from experiments.datasets import DataError

TINY = "test_vit"


@pytest.fixture(name="paths", scope="module")
def _paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A cat, a rocket, and grey, which is nothing."""
    folder = tmp_path_factory.mktemp("pictures")
    samples: Any = data
    images = {"cat": samples.cat(), "rocket": samples.rocket(), "grey": np.full((32, 32, 3), 128, np.uint8)}
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in images]


def test_the_bundled_classifier_knows_a_cat_and_a_rocket(paths: list[Path], tmp_path: Path) -> None:
    likeliest = classify(paths, "lite0", "cpu", tmp_path)

    names = [{class_names()[number] for number in row[:3]} for row in likeliest.classes.tolist()]
    assert "tabby cat" in names[0]
    assert "missile" in names[1]
    assert likeliest.probabilities.shape == (3, classifier.KEPT)
    assert (np.diff(likeliest.probabilities) <= 0).all()
    assert likeliest.probabilities[2, 0] < 0.5


def test_pictures_are_classified_once(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = classify(paths, "lite0", "cpu", tmp_path)
    monkeypatch.setattr(classifier, "_model", None)

    again = classify(paths, "lite0", "cpu", tmp_path)

    assert np.array_equal(first.classes, again.classes)
    assert np.array_equal(first.probabilities, again.probabilities)


def test_a_model_of_timm_is_read_from_a_file(paths: list[Path], tmp_path: Path) -> None:
    model: Any = timm.create_model(TINY, pretrained=False)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
        model.head.bias[7] = 5.0
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    name = f"timm:{TINY}:{tmp_path / 'weights.pth'}"

    likeliest = classify(paths, name, "cpu", tmp_path)

    assert likeliest.classes[:, 0].tolist() == [7, 7, 7]
    assert likeliest.probabilities[:, 0] == pytest.approx(np.exp(5) / (np.exp(5) + 999))
    torch.save({**model.state_dict(), "head.bias": torch.arange(1000.0)}, tmp_path / "weights.pth")
    assert classify(paths, name, "cpu", tmp_path).classes[:, 0].tolist() == [999, 999, 999]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet50", "expected lite0, timm:NAME or timm:NAME:FILE"),
        ("timm:", "expected lite0, timm:NAME"),
        ("timm:no_such_model", "cannot be loaded: Unknown model"),
        ("timm:resnet50:/no/such/file.pth", "no file '/no/such/file.pth'"),
        ("timm:test_vit:{paths[0]}", "cannot be loaded: .*give a file with its weights, timm:test_vit:FILE"),
    ],
)
def test_a_classifier_that_cannot_be_had_is_named(paths: list[Path], tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        classify(paths, name.format(paths=paths), "cpu", tmp_path)


def test_a_model_of_other_classes_is_refused(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: create(TINY, num_classes=3))

    with pytest.raises(DataError, match="has 3 classes; expected ImageNet's 1000"):
        classify(paths, f"timm:{TINY}", "cpu", tmp_path)


@pytest.fixture(name="found")
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pictures: .95 of class 1, .9 of class 1, .6 of class 2."""
    likeliest = Likeliest(np.array([[1, 0], [1, 0], [2, 0]], np.int16), np.array([[0.95, 0], [0.9, 0], [0.6, 0]]))
    monkeypatch.setattr(labels, "classify", lambda *_: likeliest)


@pytest.mark.usefixtures("found")
def test_only_what_is_likelier_than_the_threshold_is_a_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path] * 3

    assert labels.classified("lite0", 0.9, "cpu", tmp_path)(paths) == ["goldfish", None, None]
    assert capsys.readouterr().err == "lite0 is surer than 0.9 of 1 of 3 pictures: 1 classes\n"
    assert labels.classified("lite0", 0.5, "cpu", tmp_path)(paths) == ["goldfish", "goldfish", "great white shark"]
    with pytest.raises(DataError, match=r"0 of 3 pictures: .* ask for less by --confidence"):
        labels.classified("lite0", 0.99, "cpu", tmp_path)(paths)


def test_the_command_labels_by_the_classifier(
    paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [{"image": str(path), "captions": ["Something."]} for path in paths]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments: list[Any] = ["retrieval", "--data", folder, "--cache", tmp_path / "cache", "--labels", "classifier"]

    assert main([*map(str, arguments), "--confidence", "0.3"]) == 0

    out, err = capsys.readouterr()
    assert "lite0 is surer than 0.3 of 2 of 3 pictures: 2 classes" in err
    assert "mini: 2 pairs" in out
    assert main([*map(str, arguments), "--confidence", "0.3", "--limit", "1"]) == 2
    with pytest.raises(SystemExit):
        main([*map(str, arguments), "--confidence", "1"])
