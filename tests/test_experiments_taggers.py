"""Tags that are known, and what is recommended by them."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from experiments import taggers, tags
from experiments.comparison import TASKS
from experiments.datasets import DataError, Items
from experiments.taggers import BT, BTBA, SYSTEMS, TRUE, TRUE_NUMBER, ZCCR, most_matches, tagged_by
from zccr_stream.events import IMAGE, TEXT

D, CLASSES, ITEMS = 32, 4, 12


@pytest.fixture(name="made")
def _made(monkeypatch: pytest.MonkeyPatch) -> Items:
    """Well separated classes; each has two tags of its own, whose embedding is an axis of its own."""
    groups = np.repeat(np.arange(CLASSES), ITEMS)
    near = np.eye(CLASSES, D)[groups] + 0.03 * np.random.default_rng(0).normal(size=(len(groups), D))
    vectors = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    of = [frozenset({f"kind {group}", f"sort {group}"}) for group in groups]
    monkeypatch.setattr(tags, "tags_of", lambda items, *_: [of[int(text)] for text in items.texts])
    monkeypatch.setattr(tags, "embed_tags", lambda _, cache: vectors)
    monkeypatch.setenv("ZCCR_AREA_CUT", "0.6")
    texts = [str(row) for row in range(len(groups))]
    return Items("made", vectors, vectors, texts, [f"{g}" for g in groups], paths=[Path(text) for text in texts])


def options(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(
        classes=[1, 3], assets=[6, 8], draws=2, data=folder, cache=folder, classifier="lite0", device="cpu"
    )


def test_separated_classes_with_tags_of_their_own_are_found_by_all(made: Items, tmp_path: Path) -> None:
    outcome = taggers.measure(made, options(tmp_path))

    systems = outcome.report["systems"]
    assert list(systems) == SYSTEMS
    for name in (ZCCR, BTBA):
        for way in ("", f", {TRUE_NUMBER}", f", {TRUE}"):
            assert systems[f"{name}{way}"]["paper_recall"] == systems[f"{name}{way}"]["ari"] == 1
    assert "ari" not in systems[BT]
    one, three = (
        [cell["paper_recall"] for cell in systems[BT]["cells"] if cell["classes"] == classes] for classes in (1, 3)
    )
    assert one == [1, 1]  # one of the two tags is kept: exactly the one wanted has it
    assert three == pytest.approx([2 / 3, 2 / 3])  # two of six, and with both of one class it would be a third


def test_the_figure_has_a_panel_for_each_task_and_class_count(made: Items, tmp_path: Path) -> None:
    (figure,) = taggers.measure(made, options(tmp_path)).figures.values()

    assert [panel.get_ylabel() for panel in figure.axes][::2] == list(TASKS)
    assert {len(panel.get_lines()) for panel in figure.axes} == {5}


def test_without_pictures_and_their_tags_only_texts_are_measured(made: Items, tmp_path: Path) -> None:
    bare = Items(made.space, made.images, made.captions, made.texts, made.labels)

    outcome = taggers.measure(bare, options(tmp_path))

    assert list(outcome.report["systems"][ZCCR]["tasks"]) == ["text to text"]
    assert "Not measured: text to image, image to text, image to image" in outcome.text


def test_given_tags_of_pictures_are_taken(made: Items, tmp_path: Path) -> None:
    bare = Items(made.space, made.images, made.captions, made.texts, made.labels)
    lines = [f'{{"row": {row}, "image_tags": ["x"]}}' for row in range(len(made))]
    (tmp_path / "tags.jsonl").write_text("\n".join(lines))

    assert list(taggers.measure(bare, options(tmp_path)).report["systems"][ZCCR]["tasks"]) == list(TASKS)


def test_a_file_that_lacks_items_is_refused(made: Items, tmp_path: Path) -> None:
    (tmp_path / "tags.jsonl").write_text('{"row": 0, "image_tags": ["x"]}')

    with pytest.raises(DataError, match="image_tags"):
        taggers.measure(made, options(tmp_path))


def test_the_same_users_have_the_same_ties(made: Items, tmp_path: Path) -> None:
    few = options(tmp_path)
    few.classes, few.assets = [3], [6]

    assert taggers.measure(made, few).report == taggers.measure(made, few).report


def test_the_most_frequent_third_of_the_tags_is_matched() -> None:
    profile = [{"a", "b", "c"}, {"a", "b", "d"}, {"a", "e", "f"}]  # a third of six: a and b
    others = [{"c", "d", "e", "f"}, {"b"}, {"a", "b"}, {"x"}, set()]
    has = tagged_by({TEXT: list(map(frozenset, profile)), IMAGE: list(map(frozenset, others))}, {}).has

    best = most_matches(has[TEXT], has[IMAGE], 10, np.random.default_rng(0))

    assert best.tolist() == [2, 1]
    assert most_matches(has[TEXT], has[IMAGE], 1, np.random.default_rng(0)).tolist() == [2]


def test_nothing_matches_disjoint_or_no_tags() -> None:
    has = tagged_by({TEXT: [frozenset("ab")], IMAGE: [frozenset("cd"), frozenset()]}, {}).has

    assert most_matches(has[TEXT], has[IMAGE], 10, np.random.default_rng(0)).tolist() == []
    assert most_matches(has[IMAGE][1:], has[TEXT], 10, np.random.default_rng(0)).tolist() == []


def test_ties_are_in_no_order_of_rows() -> None:
    has = tagged_by({TEXT: [frozenset("a")] * 50}, {}).has[TEXT]

    first = [most_matches(has[:1], has, 1, np.random.default_rng(seed)).item() for seed in range(20)]

    assert len(set(first)) > 5
