"""Tags are read or made, and embedded as the mean of what each of them means."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments import tags
from experiments.classifier import Likeliest, class_names
from experiments.datasets import DataError, Items
from experiments.tags import embed_tags, nouns_and_verbs, of_classes, tags_of
from zccr_stream.events import IMAGE, TEXT


def items(n: int, names: list[str] | None = None) -> Items:
    vectors = np.eye(n, 4, dtype=np.float32)
    return Items("space", vectors, vectors, ["A dog runs."] * n, None, names or [str(row) for row in range(n)])


def made(folder: Path, modality: str, names: list[str] | None = None) -> list[list[str]]:
    return list(map(sorted, tags_of(items(2, names), modality, folder, "lite0", "cpu", folder)))


def write(folder: Path, *lines: dict[str, Any]) -> None:
    (folder / "tags.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_nouns_and_verbs_keep_their_root_forms() -> None:
    found = nouns_and_verbs(
        [
            "Two Dogs are running in the snow .",
            "A BLACK DOG IS JUMPING",
            "children threw balls at a woman holding tennis rackets",
            "Very beautiful .",
        ]
    )

    assert list(map(sorted, found)) == [
        ["dog", "run", "snow"],
        ["dog", "jump"],
        ["ball", "child", "hold", "racket", "tennis", "throw", "woman"],
        [],
    ]


def test_a_picture_has_the_words_of_its_likeliest_classes() -> None:
    retriever, ball, hen = (class_names().index(name) for name in ("Golden Retriever", "tennis ball", "hen"))
    likeliest = Likeliest(
        np.array([[retriever, ball, hen], [hen, ball, retriever]], np.int16),
        np.array([[0.6, 0.3, 0.01], [0.04, 0.03, 0.02]], np.float32),
    )

    assert list(map(sorted, of_classes(likeliest))) == [["ball", "golden", "retriever", "tennis"], ["hen"]]


def test_every_class_has_words() -> None:
    words = tags._words_of_classes()

    assert len(words) == 1000
    assert all(words)
    assert words[class_names().index("hen of the woods mushroom")] == {"hen", "wood", "mushroom"}
    assert all(word.isalpha() and word.islower() for of_class in words for word in of_class)


def test_tags_come_from_the_file_by_name_or_by_row(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"image": "b/b.jpg", "image_tags": [" Dog ", "park", ""], "text_tags": []},
        {"image": "a.jpg", "image_tags": ["cat"], "text_tags": ["Cat"]},
    )
    assert made(tmp_path, IMAGE, names=["a.jpg", "b/b.jpg"]) == [["cat"], ["dog", "park"]]
    assert made(tmp_path, TEXT, names=["a.jpg", "b/b.jpg"]) == [["cat"], []]

    write(tmp_path, {"row": 1, "image_tags": ["dog"]}, {"row": 0, "image_tags": ["cat"]})
    assert made(tmp_path, IMAGE) == [["cat"], ["dog"]]
    assert made(tmp_path, TEXT) == [["dog", "run"]] * 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"row": 0, "image_tags": "dog"}, 'line 1, "image_tags": .*expected a list of strings'),
        ({"row": 0, "image_tags": [1]}, "expected a list of strings"),
        ({"image_tags": ["dog"]}, 'line 1: no "image"; expected a string'),
        ({"row": 0, "image_tags": ["dog"]}, "no \"image_tags\" for 1 of 2 items, the first is '1'"),
    ],
)
def test_a_file_of_tags_that_does_not_fit_is_named(tmp_path: Path, line: dict[str, Any], said: str) -> None:
    write(tmp_path, line)

    with pytest.raises(DataError, match=said):
        made(tmp_path, IMAGE)


def test_embeddings_without_tags_have_no_pictures_to_tag(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'no pictures to tag: give "image_tags" in .*tags\.jsonl'):
        made(tmp_path, IMAGE)


def test_a_row_is_the_mean_of_its_tags_and_each_tag_is_embedded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def sentences(texts: list[str], model: str, device: str) -> Any:
        asked.append(texts)
        return np.eye(3, dtype=np.float32)[: len(texts)]

    monkeypatch.setattr(tags, "_sentences", sentences)
    rows = [frozenset({"a", "b"}), frozenset({"c"}), frozenset(), frozenset({"a"})]

    embedded = embed_tags(rows, tmp_path)

    half = np.sqrt(0.5)
    assert asked == [["a", "b", "c"]]
    assert embedded[[0, 1, 3]] == pytest.approx(np.array([[half, half, 0], [0, 0, 1], [1, 0, 0]]))
    assert np.linalg.norm(embedded, axis=1) == pytest.approx(np.ones(4))
    assert (embedded[2] > 0).all()
    assert np.array_equal(embed_tags(rows, tmp_path), embedded)
    assert len(asked) == 1
    with pytest.raises(DataError, match="no item has a tag"):
        embed_tags([frozenset()], tmp_path)


def test_related_tags_lie_near_each_other(tmp_path: Path) -> None:
    dog, puppy, rocket = embed_tags([frozenset({"dog", "run"}), frozenset({"puppy"}), frozenset({"rocket"})], tmp_path)

    assert float(dog @ puppy) > 0.5 > float(dog @ rocket)


def test_another_model_of_sentences_embeds_the_tags_or_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sentences:
        def __init__(self, model: str, device: str | None) -> None:
            if model != "known" or device is not None:
                raise OSError("no such model")

        def encode(self, texts: list[str], **_: bool) -> Any:
            return np.eye(2, dtype=np.float32)[[len(text) for text in texts]]

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Sentences))

    assert embed_tags([frozenset({"a"})], tmp_path, model="known").tolist() == [[0, 1]]
    with pytest.raises(DataError, match="sentence-transformers model 'gone' cannot be loaded: no such model"):
        embed_tags([frozenset({"dog"})], tmp_path, model="gone")
