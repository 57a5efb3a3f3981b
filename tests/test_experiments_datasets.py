"""Any of the layouts becomes pairs of unit vectors, or the error says what is expected."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from experiments.datasets import DataError, Picture, captioned, load
from experiments.datasets.precomputed import pairs


def precompute(folder: Path, **changed: Any) -> None:
    """Write four embeddings whose labels are `a` and `b` in turn."""
    np.save(folder / "images.npy", changed.get("images", 3 * np.eye(4, 8)))
    np.save(folder / "captions.npy", changed.get("captions", np.eye(4, 8, dtype=np.float16)))
    lines = [{"text": f"Item {row}.", "label": "ab"[row % 2]} for row in range(4)]
    (folder / "items.jsonl").write_text(changed.get("lines", "\n".join(map(json.dumps, lines))))


def test_embeddings_come_out_at_unit_length_with_their_texts_and_labels(tmp_path: Path) -> None:
    precompute(tmp_path)

    items = load(tmp_path, "mini", "cpu", tmp_path / "cache")

    assert len(items) == 4
    assert items.images.dtype == items.captions.dtype == np.float32
    assert np.array_equal(items.images, np.eye(4, 8))
    assert items.texts == ["Item 0.", "Item 1.", "Item 2.", "Item 3."]
    assert items.labels == ["a", "b", "a", "b"]


def test_labels_may_be_missing_from_some_lines_or_from_all(tmp_path: Path) -> None:
    precompute(tmp_path, lines='{"text": "x", "label": null}\n{"text": "y", "label": 7}\n' + 2 * '{"text": "z"}\n')
    assert pairs(tmp_path).labels == [None, "7", None, None]

    precompute(tmp_path, lines=4 * '{"text": "x", "label": ""}\n')
    assert pairs(tmp_path).labels is None

    precompute(tmp_path, lines=4 * '{"text": "x"}\n')
    assert pairs(tmp_path).labels is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": np.eye(3, 8)}, r"images.npy is \(3, 8\).* has 4 lines"),
        ({"captions": np.eye(4, 9)}, r"captions.npy is \(4, 9\)"),
        ({"images": np.zeros((4, 8))}, "row 0: a vector of length 0"),
        ({"images": np.full((4, 8), np.nan)}, "length nan"),
        ({"images": np.eye(4, 8, dtype=np.int64)}, r"int64 .* expected \(n, d\) floating point"),
        ({"images": np.array([{}])}, "cannot be read as an array"),
        ({"lines": "{}\n" * 4}, 'line 1: no "text"'),
        ({"lines": '{"text": ""}\n\nnonsense'}, "line 3: .*expected a JSON object"),
        ({"lines": "{}\n[]"}, r"line 2: '\[\]'; expected a JSON object"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused_and_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    precompute(tmp_path, **changed)

    with pytest.raises(DataError, match=said):
        pairs(tmp_path)


def test_a_text_may_hold_any_line_break_and_lines_may_be_blank(tmp_path: Path) -> None:
    precompute(tmp_path, lines='{"text": "a\u2028b"}\n\n' + 3 * '{"text": "c\x85"}\r\n')

    assert pairs(tmp_path).texts == ["a\u2028b", "c\x85", "c\x85", "c\x85"]


def test_a_folder_that_is_no_data_is_told_the_layouts(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="A folder of data is one of"):
            load(folder, "mini", "cpu", tmp_path)
    precompute(tmp_path)
    (tmp_path / "items.jsonl").unlink()
    with pytest.raises(DataError, match=r"no items.jsonl(.|\n)*A folder of data is one of"):
        load(tmp_path, "mini", "cpu", tmp_path)


def test_pictures_are_found_by_listing_and_by_the_name_of_their_text(tmp_path: Path) -> None:
    listed, beside = tmp_path / "listed", tmp_path / "beside"
    (listed / "images").mkdir(parents=True)
    (listed / "captions.jsonl").write_text(
        '{"image": "a.jpg", "captions": ["A dog.", "A puppy."]}\n{"image": "b.jpg", "captions": ["C."], "label": "c"}\n'
    )
    (beside / "animals/birds/drawn").mkdir(parents=True)
    for name in ("b.png", "animals/birds/drawn/c.JPG", "silent.png", "empty.png"):
        (beside / name).touch()
    (beside / "b.txt").write_text("A cat.\nsecond line\n")
    (beside / "animals/birds/drawn/c.txt").write_text("A bird.\n")
    (beside / "empty.txt").write_text("\n")

    assert captioned(listed) == [
        Picture(listed / "images" / "a.jpg", "a.jpg", ("A dog.", "A puppy.")),
        Picture(listed / "images" / "b.jpg", "b.jpg", ("C.",), "c"),
    ]
    assert captioned(beside) == [
        Picture(beside / "animals/birds/drawn/c.JPG", "animals/birds/drawn/c.JPG", ("A bird.",), "animals/birds"),
        Picture(beside / "b.png", "b.png", ("A cat.",)),
    ]


def test_a_listing_without_captions_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "captions.jsonl").write_text('{"image": "a.jpg", "captions": []}\n')

    with pytest.raises(DataError, match=r'captions\.jsonl, line 1: no "captions"'):
        load(tmp_path, "mini", "cpu", tmp_path)


def test_pictures_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    for name, caption in (("plants/flower", "A flower in bloom."), ("town/china", "A temple with a tiled roof.")):
        (data / name).parent.mkdir(parents=True)
        Image.fromarray(load_sample_image(f"{Path(name).name}.jpg")).save(data / f"{name}.png")
        (data / f"{name}.txt").write_text(caption)

    items = load(data, "mini", "cpu", cache)

    assert np.linalg.norm(items.images, axis=1) == pytest.approx([1, 1], abs=1e-3)
    assert (items.images @ items.captions.T).argmax(axis=1).tolist() == [0, 1]
    assert items.labels == ["plants", "town"]
    monkeypatch.setattr("zccr_stream.assemble.encoder", None)
    again = load(data.rename(tmp_path / "moved"), "mini", "cpu", cache)
    assert np.array_equal(items.images, again.images)
    assert np.array_equal(items.captions, again.captions)


def test_a_picture_or_an_encoder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "captions.jsonl").write_text('{"image": "gone.jpg", "captions": ["A."]}\n')
    with pytest.raises(DataError, match=r"1 of 1 pictures are missing, the first is .*gone\.jpg"):
        load(tmp_path, "mini", "cpu", tmp_path / "cache")
    (tmp_path / "gone.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="'no such encoder' cannot be used"):
        load(tmp_path, "no such encoder", "cpu", tmp_path / "cache")
