"""Any of the layouts becomes pairs of unit vectors, or the error says what is expected."""

import io
import json
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from experiments import encoding
from experiments.__main__ import main
from experiments.datasets import DataError, Items, Picture, Selection, captioned, load
from experiments.datasets.precomputed import pairs
from zccr_stream.events import IMAGE, BadInputError


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

    precompute(tmp_path, lines='{"text": "x", "label": NaN}\n' + 3 * '{"text": "x", "label": "a"}\n')
    assert pairs(tmp_path).labels == [None, "a", "a", "a"]
    precompute(tmp_path, lines=4 * '{"text": "x"}\n')
    assert pairs(tmp_path).labels is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": np.eye(3, 8)}, r"images.npy is \(3, 8\).* has 4 lines"),
        ({"captions": np.eye(4, 9)}, r"captions.npy is \(4, 9\)"),
        ({"images": np.zeros((4, 8))}, "row 0: a vector of length 0"),
        ({"images": np.full((4, 8), 1e200)}, "row 0: a vector of length inf"),
        ({"images": np.full((4, 8), np.nan)}, "length nan"),
        ({"images": np.eye(4, 8, dtype=np.int64)}, r"int64 .* expected \(n, d\) floating point"),
        ({"images": np.array([{}])}, "cannot be read as an array"),
        ({"lines": "{}\n" * 4}, 'line 1: no "text"; expected a string'),
        ({"lines": 4 * (r'{"text": "\ud800 dog"}' + "\n")}, "line 1: .* half of a surrogate pair"),
        ({"lines": '{"text": ""}\n\nnonsense'}, "line 3: .*expected a JSON object"),
        ({"lines": "[" * 100_000}, "line 1: .*expected a JSON object"),
        ({"lines": "{}\n[]"}, r"line 2: '\[\]'; expected a JSON object"),
        ({"lines": 4 * '{"text": "x", "label": ["a"]}\n'}, """line 1: "label" is "\\['a'\\]"; expected a string"""),
    ],
)
def test_embeddings_that_do_not_fit_are_refused_and_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    precompute(tmp_path, **changed)

    with pytest.raises(DataError, match=said):
        pairs(tmp_path)


def test_empty_files_and_no_pairs_are_refused(tmp_path: Path) -> None:
    precompute(tmp_path)
    for name in ("images.npy", "captions.npy"):
        np.save(tmp_path / name, np.zeros((0, 8)))
    (tmp_path / "items.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no pair"):
        load(tmp_path, "mini", "cpu", tmp_path)
    (tmp_path / "images.npy").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read as an array"):
        load(tmp_path, "mini", "cpu", tmp_path)


def header(text: str) -> bytes:
    """Write a NumPy file, version 1.0, of this header and no numbers."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 no archive",
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000), }\n"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 30 + ", 2), }\n"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': ("),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 8), }\n"),
    ],
)
def test_a_file_that_is_no_array_is_named(tmp_path: Path, content: bytes) -> None:
    precompute(tmp_path)
    (tmp_path / "images.npy").write_bytes(content)

    with pytest.raises(DataError, match=r"images.npy cannot be read as an array"):
        pairs(tmp_path)


def test_several_arrays_in_one_file_are_refused(tmp_path: Path) -> None:
    precompute(tmp_path)
    np.savez(tmp_path / "images.npz", np.eye(4, 8))
    (tmp_path / "images.npz").rename(tmp_path / "images.npy")

    with pytest.raises(DataError, match=r"images.npy cannot be read as an array"):
        pairs(tmp_path)


def test_a_picture_of_a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    for name in ("a" * 300, "a\0b"):
        (tmp_path / "captions.jsonl").write_text(json.dumps({"image": name, "captions": ["a dog"]}))
        with pytest.raises(DataError, match="1 of 1 pictures are missing"):
            load(tmp_path, "mini", "cpu", tmp_path)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    precompute(tmp_path, lines="\ufeff" + 4 * '{"text": "a"}\n')

    assert pairs(tmp_path).texts == ["a"] * 4


def test_a_text_may_hold_any_line_break_and_lines_may_be_blank(tmp_path: Path) -> None:
    precompute(tmp_path, lines='{"text": "a\u2028b"}\n\n' + 3 * '{"text": "c\x85"}\r\n')

    assert pairs(tmp_path).texts == ["a\u2028b", "c\x85", "c\x85", "c\x85"]


def test_a_folder_that_is_no_data_is_told_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="A folder of data is one of"):
        load(tmp_path, "mini", "cpu", tmp_path)
    with pytest.raises(DataError, match="missing is no folder; expected one of data"):
        load(tmp_path / "missing", "mini", "cpu", tmp_path)
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
    (beside / "b.txt").write_text("\ufeffA cat.\nsecond line\n")
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


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            '{"image": "a.jpg", "captions": []}',
            r"""captions\.jsonl, line 1, "captions": no captions; expected a list""",
        ),
        (
            '{"image": "a.jpg", "captions": "A."}',
            """line 1, "captions": 'A.'; expected a list of sentences""",
        ),
        (
            '{"image": "a", "captions": ["A."], "label": "b"}\n{"image": "a", "captions": ["A."], "label": "c"}',
            "line 2: 'a' is 'c', and on a line before 'b'; expected one label",
        ),
    ],
)
def test_a_listing_that_is_broken_is_refused_with_the_line(tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "captions.jsonl").write_text(lines)

    with pytest.raises(DataError, match=said):
        load(tmp_path, "mini", "cpu", tmp_path)


def test_a_picture_may_be_listed_with_a_caption_a_line_and_lie_beside_the_listing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "a.jpg").touch()
    (tmp_path / "captions.jsonl").write_text(
        '{"image": "a.jpg", "captions": ["A dog."]}\n{"image": "b.jpg", "captions": ["B."]}\n'
        '{"image": "./a.jpg", "captions": ["A puppy."], "label": "dog"}\n'
    )

    assert captioned(tmp_path) == [
        Picture(tmp_path / "a.jpg", "a.jpg", ("A dog.", "A puppy."), "dog"),
        Picture(tmp_path / "images/b.jpg", "b.jpg", ("B.",)),
    ]


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


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:50]),
        lambda file: savez(file, {name: np.full_like(rows, np.nan) for name, rows in np.load(file).items()}),
        lambda file: savez(file, {name: np.concatenate([rows, rows]) for name, rows in np.load(file).items()}),
        lambda file: savez(file, {f"{name}s": rows for name, rows in np.load(file).items()}),
        lambda file: file.write_bytes(npy(np.zeros((1, 384), np.float32))),
    ],
    ids=["cut off", "no numbers", "too many", "of another name", "no archive"],
)
def test_what_was_kept_and_is_not_what_it_should_be_is_encoded_anew(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(data / "a.png")
    (data / "a.txt").write_text("a dog")
    items = load(data, "mini", "cpu", cache)
    for kept in cache.rglob("*.npz"):
        damage(kept)

    again = load(data, "mini", "cpu", cache)

    assert np.array_equal(items.images, again.images)
    assert np.array_equal(items.captions, again.captions)


def savez(file: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    np.savez(file, allow_pickle=False, **arrays)


def npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("other", ["images/a.png", "../images/a.png"])
def test_a_picture_that_is_there_twice_is_refused(tmp_path: Path, other: str) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    lines = [json.dumps({"image": name, "captions": ["A."]}) for name in ("a.png", other)]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))

    with pytest.raises(DataError, match=r"a\.png is there twice; expected each picture once, with all of its captions"):
        load(tmp_path, "mini", "cpu", tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a dog")

    assert main(["retrieval", "--data", str(tmp_path), "--cache", str(tmp_path / "a.txt")]) == 2
    assert "a.txt cannot be made (File exists): give another folder by --cache" in capsys.readouterr().err


def test_a_picture_or_an_encoder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "captions.jsonl").write_text('{"image": "gone.jpg", "captions": ["A."]}\n')
    with pytest.raises(DataError, match=r"1 of 1 pictures are missing, the first is .*gone\.jpg"):
        load(tmp_path, "mini", "cpu", tmp_path / "cache")
    (tmp_path / "gone.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="'no such encoder' cannot be used"):
        load(tmp_path, "no such encoder", "cpu", tmp_path / "cache")
    with pytest.raises(DataError, match=r"gone\.jpg cannot be read as a picture: .*expected JPEG"):
        load(tmp_path, "mini", "cpu", tmp_path / "cache")
    (tmp_path / "gone.jpg").rename(tmp_path / "elsewhere")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"gone\.jpg cannot be read as a picture: .*expected JPEG"):
        load(tmp_path, "mini", "cpu", tmp_path / "cache")


def test_a_name_that_terminals_obey_is_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = json.dumps({"image": "\x1b[31mred.jpg", "captions": ["A."]})
    (tmp_path / "captions.jsonl").write_text(line + "\n")

    assert main(["retrieval", "--data", str(tmp_path), "--encoder", "mini"]) == 2
    said = capsys.readouterr().err
    assert "\\x1b[31mred.jpg" in said and "\x1b" not in said


class Counting:
    """An encoder whose vectors say which picture and which caption they are of: the grey, the number in the text."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, modality: str, contents: Sequence[Any]) -> Any:
        self.encoded += [modality] * len(contents)
        numbers = [image.getpixel((0, 0))[0] if modality == IMAGE else int(image.split()[0]) for image in contents]
        return np.eye(256, dtype=np.float32)[numbers]


@pytest.fixture(name="encoder")
def _encoder(monkeypatch: pytest.MonkeyPatch) -> Counting:
    encoder = Counting()
    monkeypatch.setattr("zccr_stream.assemble.encoder", lambda settings: encoder)
    return encoder


def paint(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (grey, grey, grey)).save(path)


def loaded(folder: Path, **selection: Any) -> Items:
    return load(folder, "mini", "cpu", folder.parent / "cache", Selection(**selection))


def numbers(items: Items) -> list[tuple[int, int]]:
    """Which picture and which caption the pairs are of."""
    return list(zip(items.images.argmax(axis=1).tolist(), items.captions.argmax(axis=1).tolist(), strict=True))


def karpathy(folder: Path, name: str, filepath: bool) -> None:
    """Six pictures, two captions each: 10 n and 10 n + 1 of picture n."""
    images = []
    for number, split in enumerate(("train", "val", "test", "val", "restval", "val"), 1):
        part = "train2014" if split == "train" else "val2014"
        sentences = [{"raw": f"{10 * number + more} .", "tokens": []} for more in (0, 1)]
        image = {"filename": f"{number}.png", "split": split, "sentences": sentences, "imgid": number}
        images.append({**image, "filepath": part} if filepath else image)
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"images": images, "dataset": "any"}))


@pytest.mark.parametrize("place", ["", "images"])
def test_coco_is_read_by_karpathys_splits(tmp_path: Path, encoder: Counting, place: str) -> None:
    data = tmp_path / "coco"
    karpathy(data, "dataset_coco.json", filepath=True)
    for number in range(1, 7):
        paint(data / place / ("train2014" if number == 1 else "val2014") / f"{number}.png", number)

    items = loaded(data)

    assert numbers(items) == [(2, 20), (4, 40), (6, 60)]
    assert items.texts == ["20 .", "40 .", "60 ."]
    assert items.names == ["2.png", "4.png", "6.png"]
    assert items.paths is not None
    assert items.paths[0] == data / place / "val2014/2.png"
    assert items.labels is None
    assert numbers(loaded(data, split="train")) == [(1, 10)]
    assert numbers(loaded(data, split="test")) == [(3, 30)]
    assert numbers(loaded(data, split="restval")) == [(5, 50)]
    assert len(loaded(data, split="all")) == 6
    with pytest.raises(DataError, match="no split 'dev'; it has restval, test, train, val, or all"):
        loaded(data, split="dev")


@pytest.mark.parametrize("place", ["flickr30k-images", "images", "flickr30k_images", ""])
def test_flickr30k_is_read_by_karpathys_splits(tmp_path: Path, encoder: Counting, place: str) -> None:
    data = tmp_path / "flickr"
    karpathy(data, "dataset_flickr30k.json", filepath=False)
    for number in (2, 4, 6):
        paint(data / place / f"{number}.png", number)

    assert numbers(loaded(data)) == [(2, 20), (4, 40), (6, 60)]
    with pytest.raises(DataError, match=r"1 of 1 pictures are missing, the first is .*flickr/3\.png"):
        loaded(data, split="test")


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_coco_is_read_from_its_own_annotations(tmp_path: Path, encoder: Counting, year: str) -> None:
    data = tmp_path / "coco"
    (data / "annotations").mkdir(parents=True)
    for split, ids in (("val", (3, 2)), ("train", (1,))):
        content = {
            "images": [{"id": number, "file_name": f"{number}.png"} for number in ids],
            "annotations": [{"image_id": n, "id": 0, "caption": f"{10 * n + more} ."} for more in (1, 0) for n in ids],
        }
        (data / f"annotations/captions_{split}{year}.json").write_text(json.dumps(content))
        for number in ids:
            paint(data / f"{split}{year}/{number}.png", number)

    assert numbers(loaded(data)) == [(3, 31), (2, 21)]
    assert numbers(loaded(data, split="train")) == [(1, 11)]
    with pytest.raises(DataError, match="no split 'test'; it has train, val, or all"):
        loaded(data, split="test")


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("results_20130124.token", "1.png#0\t10 a | b , c\n1.png#1\t11 .\n2.png#0\t20 .\n"),
        (
            "results.csv",
            "image_name| comment_number| comment\n1.png| 0| 10 a | b , c\n1.png| 1| 11 .\n2.png| 4   20 .\n",
        ),
    ],
)
def test_flickr30k_is_read_as_published(tmp_path: Path, encoder: Counting, name: str, lines: str) -> None:
    """The published table has one row without its second bar."""
    data = tmp_path / "flickr"
    for number in (1, 2):
        paint(data / f"flickr30k-images/{number}.png", number)
    (data / name).write_text(lines)

    items = loaded(data)

    assert numbers(items) == [(1, 10), (2, 20)]
    assert items.texts == ["10 a | b , c", "20 ."]
    assert [len(picture.captions) for picture in captioned(data)] == [2, 1]
    with pytest.raises(DataError, match="flickr has no splits: leave --split out"):
        loaded(data, split="val")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("dataset_coco.json", "{", "expected one JSON object"),
        ("dataset_coco.json", "[" * 100_000, "expected one JSON object"),
        (
            "dataset_coco.json",
            '{"images": [{"filename": "a", "filepath": 5, "sentences": []}]}',
            """image 0: "filepath" is '5'; expected a string""",
        ),
        (
            "annotations/captions_val2014.json",
            '{"images": [], "annotations": [{"image_id": [1], "caption": "a"}]}',
            r"""annotation 0: "image_id" is '\[1\]'; expected a number or a string""",
        ),
        (
            "annotations/captions_val2014.json",
            '{"images": [{"id": {}, "file_name": "a"}], "annotations": []}',
            """image 0: "id" is '{}'; expected a number or a string""",
        ),
        ("dataset_coco.json", "[]", "holds a JSON list; expected one object"),
        ("dataset_coco.json", '{"images": {}}', '"images": .*expected a list of objects'),
        ("dataset_coco.json", '{"images": [{"filename": "a"}]}', 'image 0, "sentences": .*expected a list of objects'),
        (
            "dataset_flickr30k.json",
            '{"images": [{"filename": "a", "split": "val", "sentences": [{"raw": " "}]}]}',
            "image 0: no captions; expected a list of sentences",
        ),
        (
            "dataset_flickr30k.json",
            '{"images": [{"filename": "a", "sentences": [{"raw": "b"}]}]}',
            'image 0: no "split"; expected a string',
        ),
        (
            "annotations/captions_val2014.json",
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": []}',
            "image 0: no captions",
        ),
        ("annotations/captions_val2017.json", '{"images": []}', '"annotations": missing; expected a list of objects'),
        ("results_20130124.token", "1.png#0\ta\n1.png a\n", "line 2: '1.png a'; expected NAME#NUMBER<tab>CAPTION"),
        ("results.csv", "1.png| a\n", r"line 1: '1.png\| a'; expected NAME\| NUMBER\| CAPTION"),
    ],
)
def test_what_is_broken_in_a_published_file_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)

    with pytest.raises(DataError, match=said):
        captioned(tmp_path)


def test_pictures_may_be_links_to_elsewhere(tmp_path: Path, encoder: Counting) -> None:
    data = tmp_path / "coco"
    karpathy(data, "dataset_coco.json", filepath=True)
    for number in (2, 4, 6):
        paint(tmp_path / f"elsewhere/{number}.png", number)
    (data / "val2014").symlink_to(tmp_path / "elsewhere")

    items = loaded(data)
    assert numbers(items) == [(2, 20), (4, 40), (6, 60)]

    report = encoding.measure(items, Namespace(encoder="mini", device="cpu"), repeats=2)  # all that are asked for
    assert {batch for of_modality in report.values() for batch in of_modality} == {"1", "64"}
    assert encoder.encoded.count(IMAGE) == 3 + 3 * (1 + 3)


def listing(folder: Path, pictures: int, captions: int) -> None:
    lines = []
    for number in range(pictures):
        paint(folder / f"{number}.png", number)
        said = [f"{captions * number + more} ." for more in range(captions)]
        lines.append(json.dumps({"image": f"{number}.png", "captions": said, "label": "ab"[number % 2]}))
    (folder / "captions.jsonl").write_text("\n".join(lines))


def test_a_limit_draws_the_same_pairs_each_time(tmp_path: Path, encoder: Counting) -> None:
    listing(tmp_path / "data", pictures=30, captions=2)

    drawn = numbers(loaded(tmp_path / "data", limit=8))

    assert len(set(drawn)) == 8
    assert drawn == sorted(drawn)
    assert drawn != [(number, 2 * number) for number in range(8)]
    assert all(caption == 2 * picture for picture, caption in drawn)
    assert numbers(loaded(tmp_path / "data", limit=8)) == drawn
    assert len(loaded(tmp_path / "data", limit=31)) == 30
    precompute(tmp_path)
    assert load(tmp_path, "mini", "cpu", tmp_path, Selection(limit=3)).names == ["0", "1", "2"]


def test_a_random_caption_is_the_same_one_in_any_selection(tmp_path: Path, encoder: Counting) -> None:
    listing(tmp_path / "data", pictures=20, captions=5)

    every = dict(numbers(loaded(tmp_path / "data", caption="random")))

    assert {caption - 5 * picture for picture, caption in every.items()} == set(range(5))
    few = dict(numbers(loaded(tmp_path / "data", caption="random", limit=7)))
    assert few.items() <= every.items()


def test_a_caption_that_says_nothing_visible_is_named(tmp_path: Path, encoder: Counting) -> None:
    listing(tmp_path / "data", pictures=3, captions=1)

    def refuse(modality: str, contents: Sequence[Any]) -> Any:
        raise BadInputError("encode", "the text is empty")

    encoder.encode = refuse  # type: ignore[method-assign]
    with pytest.raises(DataError, match="a caption cannot be encoded: the text is empty"):
        loaded(tmp_path / "data")


def test_further_captions_are_encoded_when_they_are_asked_for_and_once(tmp_path: Path, encoder: Counting) -> None:
    listing(tmp_path / "data", pictures=3, captions=5)

    items = loaded(tmp_path / "data")
    assert encoder.encoded == ["image"] * 3 + ["text"] * 3
    assert items.all_captions is not None
    for _ in range(2):
        every = items.all_captions()
        assert every.vectors.argmax(axis=1).tolist() == list(range(15))
        assert every.owner.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert len(encoder.encoded) == 6 + 15


def test_one_caption_a_picture_leaves_none_to_ask_for(tmp_path: Path, encoder: Counting) -> None:
    listing(tmp_path / "data", pictures=2, captions=1)
    precompute(tmp_path)

    assert loaded(tmp_path / "data").all_captions is None
    assert pairs(tmp_path).all_captions is None


def test_items_are_taken_with_everything_that_is_theirs(tmp_path: Path, encoder: Counting) -> None:
    listing(tmp_path / "data", pictures=5, captions=3)

    taken = loaded(tmp_path / "data").take(np.array([4, 0, 3]))

    assert numbers(taken) == [(4, 12), (0, 0), (3, 9)]
    assert taken.texts == ["12 .", "0 .", "9 ."]
    assert taken.labels == ["a", "a", "b"]
    assert taken.names == ["4.png", "0.png", "3.png"]
    assert taken.paths == [tmp_path / f"data/{number}.png" for number in (4, 0, 3)]
    assert taken.all_captions is not None
    every = taken.all_captions()
    assert every.vectors.argmax(axis=1).tolist() == [12, 13, 14, 0, 1, 2, 9, 10, 11]
    assert every.owner.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def precompute_several(folder: Path, **changed: Any) -> None:
    """Two pictures; the captions are not in the pictures' order."""
    np.save(folder / "images.npy", changed.get("images", np.eye(2, 8)))
    np.save(folder / "captions.npy", changed.get("captions", 2 * np.eye(5, 8)))
    names = changed.get("names", ["b", "a", "a", "b", "a"])
    lines = [{"image": name, "caption": f"{row} ."} for row, name in enumerate(names)]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "image_ids.json").write_text(changed.get("ids", '{"image_ids": ["a", "b"]}'))


def test_embeddings_may_have_several_captions_a_picture(tmp_path: Path) -> None:
    precompute_several(tmp_path)

    items = loaded(tmp_path)

    assert numbers(items) == [(0, 1), (1, 0)]
    assert items.texts == ["1 .", "0 ."]
    assert (items.names, items.labels, items.paths) == (["a", "b"], None, None)
    assert items.all_captions is not None
    every = items.all_captions()
    assert every.vectors.argmax(axis=1).tolist() == [1, 2, 4, 0, 3]
    assert every.owner.tolist() == [0, 0, 0, 1, 1]
    drawn = numbers(loaded(tmp_path, caption="random"))
    assert drawn[0][1] in (1, 2, 4)
    assert drawn[1][1] in (0, 3)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"names": list("bacab")}, "line 3: image 'c' is not in image_ids.json"),
        ({"names": list("aaaaa")}, "image 'b' has no caption"),
        ({"names": list("aab")}, r"captions.npy is \(5, 8\) with 3 lines"),
        ({"images": np.eye(3, 8)}, r"images.npy is \(3, 8\) with 2 ids"),
        ({"images": np.eye(2, 7)}, "expected rows of the same length"),
        ({"ids": '{"image_ids": [1, 2]}'}, "expected a list of strings"),
        ({"ids": '{"image_ids": ["a", "a"]}'}, "image_ids: 'a' is there twice"),
    ],
)
def test_several_captions_that_do_not_fit_are_named(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    precompute_several(tmp_path, **changed)

    with pytest.raises(DataError, match=said):
        loaded(tmp_path)


def test_embeddings_have_neither_splits_nor_pictures_to_classify(tmp_path: Path) -> None:
    precompute(tmp_path)

    with pytest.raises(DataError, match="no splits"):
        loaded(tmp_path, split="val")
    with pytest.raises(DataError, match="only pictures can be classified"):
        load(tmp_path, "mini", "cpu", tmp_path, label=lambda paths: ["a" for _ in paths])


def test_pictures_that_get_no_label_are_left_out_before_the_limit_draws(tmp_path: Path, encoder: Counting) -> None:
    listing(tmp_path / "data", pictures=10, captions=1)

    items = load(
        *(tmp_path / "data", "mini", "cpu", tmp_path / "cache", Selection(limit=4)),
        label=lambda paths: ["odd" if int(path.stem) % 2 else None for path in paths],
    )

    assert items.labels == ["odd"] * 4
    assert all(picture % 2 for picture, _ in numbers(items))
