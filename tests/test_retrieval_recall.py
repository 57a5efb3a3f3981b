"""The recall that is reported of encoders is the recall they have."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from experiments.retrieval_recall import captioned, recall


def test_recall_counts_the_queries_whose_counterpart_is_among_the_nearest() -> None:
    rng = np.random.default_rng(0)
    queries, answers = rng.normal(size=(2, 60, 4)).astype(np.float32)
    ranks = [np.argsort(-(answers @ query)).tolist() for query in queries]

    expected = {k: sum(row in rank[:k] for row, rank in enumerate(ranks)) / 60 for k in (1, 5, 10)}
    assert recall(queries, answers) == expected


def test_an_encoder_that_gives_everything_the_same_vector_finds_nothing() -> None:
    same = np.ones((20, 3), np.float32)

    assert recall(same, same) == {1: 0, 5: 0, 10: 0}


def test_pictures_are_found_by_listing_and_by_the_name_of_their_text(tmp_path: Path) -> None:
    listed, beside = tmp_path / "listed", tmp_path / "beside"
    (listed / "images").mkdir(parents=True)
    (listed / "captions.jsonl").write_text('{"image": "a.jpg", "captions": ["A dog.", "A puppy."]}\n')
    (beside / "deeper").mkdir(parents=True)
    for name in ("b.png", "deeper/c.JPG", "silent.png", "empty.png"):
        (beside / name).touch()
    (beside / "b.txt").write_text("A cat.\nsecond line\n")
    (beside / "deeper/c.txt").write_text("A bird.\n")
    (beside / "empty.txt").write_text("\n")

    assert list(captioned(listed)) == [(listed / "images" / "a.jpg", "A dog.")]
    assert list(captioned(beside)) == [(beside / "b.png", "A cat."), (beside / "deeper" / "c.JPG", "A bird.")]


def test_the_command_measures_a_folder(tmp_path: Path) -> None:
    for name, sentence in (("flower", "A flower in bloom."), ("china", "A temple with a tiled roof.")):
        Image.fromarray(load_sample_image(f"{name}.jpg")).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(sentence)
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "experiments.retrieval_recall", "--data", str(tmp_path), "--json", str(report)]

    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    numbers = json.loads(report.read_text())
    assert (numbers["model"], numbers["pairs"], numbers["text to image"]["1"]) == ("mini", 2, 1)
    assert "text to image: R@1 1.000, R@5 1.000, R@10 1.000" in printed
