"""Photos get the kinds that their captions name."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import kinds
from experiments.datasets import load
from zccr_stream.encoders import MINI

DOG = ("A dog runs over the lawn.", "Two dogs play.", "A brown animal with a stick.")
SURFER = ("A surfer rides a wave.", "Somebody surfs a big wave.", "The surfer is in the sea.")


def test_a_photo_is_of_the_one_kind_that_two_of_its_captions_name() -> None:
    once = ("A dog is here.", "Something brown is here.", "It runs.")
    both = ("A dog surfs a wave.", "A dog on a wave.", "What a dog!")

    assert kinds.by_nouns([DOG, once, SURFER, both]) == ["dog", None, "surfing", None]


def test_kinds_share_no_noun() -> None:
    nouns = [noun for of_kind in kinds.KINDS.values() for noun in of_kind]

    assert len(nouns) == len(set(nouns))


def test_a_subject_is_what_captions_have_in_common_and_what_is_far_from_any_is_left_out() -> None:
    words = [[f"word{kind}x{place}" for place in range(6)] for kind in range(kinds.CLUSTERS)]
    random = np.random.default_rng(0)
    photos = [[" ".join(random.permutation(of_kind)[:4]) for _ in range(5)] for of_kind in words for _ in range(8)]

    labels = kinds.by_subject(photos)

    kept = [(row // 8, label) for row, label in enumerate(labels) if label is not None]
    assert len(kept) == pytest.approx(kinds.KEPT * len(photos), abs=1)
    pure = [label for kind, label in kept if label.startswith(f"word{kind}x")]
    assert len(pure) > 0.9 * len(kept)
    assert labels == kinds.by_subject(photos)


@pytest.fixture(name="photos")
def _photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    captions = {"dog.png": DOG, "surfer.png": SURFER, "nothing.png": ("Nothing.", "Nothing at all.")}
    for shade, name in enumerate(captions):
        Image.new("RGB", (32, 32), (80 * shade, 120, 40)).save(folder / name)
    lines = [json.dumps({"image": name, "captions": said}) for name, said in captions.items()]
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


def test_a_folder_of_kinds_is_data_for_every_experiment(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"

    assert kinds.main([str(photos), str(made), "--by", "nouns"]) == 0

    assert "2 of 3 photos, 2 kinds" in capsys.readouterr().out
    items, known = (load(folder, MINI, "cpu", tmp_path / "cache") for folder in (made, photos))
    assert (list(items.texts), items.labels) == ([DOG[0], SURFER[0]], ["dog", "surfing"])
    assert items.images == pytest.approx(known.images[:2], abs=1e-6)
    assert items.captions == pytest.approx(known.captions[:2], abs=1e-6)


def test_what_gives_no_kinds_is_said_before_the_work(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, full = tmp_path / "made", tmp_path / "full"
    (full / "some").mkdir(parents=True)
    blank = tmp_path / "blank"
    blank.mkdir()
    (blank / "captions.jsonl").write_text(json.dumps({"image": "a.png", "captions": ["Nothing."]}))

    for arguments, said in (
        ([str(tmp_path / "nowhere"), str(made), "--by", "nouns"], "holds no captioned pictures"),
        ([str(blank), str(made), "--by", "nouns"], "none of 1 photos has a kind"),
        ([str(photos), str(made), "--by", "subject"], "3 photos; expected at least 40"),
        ([str(photos), str(full), "--by", "nouns"], "is there already, and no empty folder"),
    ):
        with pytest.raises(SystemExit) as stopped:
            kinds.main(arguments)
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err
    assert not made.exists()
