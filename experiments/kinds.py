"""Captioned photos without labels -> a folder of embeddings with labels that the captions give.

    python -m experiments.kinds PHOTOS [PHOTOS ...] DIR --by {nouns,subject} [--encoder NAME]

The paper's labels are a classifier's, which knows ImageNet's classes only (`--labels classifier` of the experiments).
All captions of a photo say what people see in it:
  nouns    a photo's kind is the one of 27 kinds that at least two of its captions name by one of the kind's nouns
           (`KINDS` in this module; a verb of the same lemma counts as well). Photos of no kind, or of several, are left
           out;
  subject  the captions' words (tf-idf, projected onto 60 directions) in 40 clusters by k-means, with a fixed seed. A
           kind is a cluster, and is called by its three heaviest words. The 30 % of all photos that are farthest from
           their cluster's middle are left out.
A photo's pair is its first caption. The same photos give the same folder; encoded embeddings are cached.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from experiments import datasets
from experiments.datasets import DataError, Picture, precomputed
from experiments.tags import nouns_and_verbs
from zccr_stream.encoders import MINI
from zccr_stream.settings import explain

KINDS: Mapping[str, frozenset[str]] = {
    kind: frozenset(nouns.split())
    for kind, nouns in {
        "baseball": "baseball umpire pitcher",
        "basketball": "basketball",
        "beach": "beach sand shore",
        "bench": "bench",
        "bicycle": "bicycle cyclist biker",
        "bird": "bird duck goose seagull flamingo pigeon",
        "boat": "boat canoe kayak kayaker raft ship",
        "car": "car truck racecar taxi",
        "climbing": "climber cliff",
        "crowd": "crowd parade audience",
        "dog": "dog puppy poodle greyhound",
        "football": "football",
        "grass": "lawn field meadow",
        "hiking": "hiker mountain mountaintop",
        "horse": "horse jockey rodeo",
        "meal": "restaurant food dinner cake",
        "motorcycle": "motorcycle motorbike motorcyclist motocross",
        "music": "guitar guitarist band microphone drum",
        "playground": "slide swing playground trampoline",
        "skating": "skateboard skateboarder skater rollerblade",
        "snow": "snow snowboard snowboarder ski skier sled",
        "soccer": "soccer",
        "street": "street sidewalk city",
        "surfing": "surfer surfboard wave",
        "swimming": "pool swimmer",
        "tennis": "tennis racket",
        "waterfall": "waterfall fountain sprinkler",
    }.items()
}
NAMED_BY = 2
"""Captions of a photo that name its kind, at least."""

CLUSTERS = 40
DIRECTIONS = 60
KEPT = 0.7
SEED = 0
"""Of the projection and of k-means."""

Labels = list[str | None]
"""A kind a photo; None for one that is left out."""


def by_nouns(captions: Sequence[Sequence[str]]) -> Labels:
    """The kind of each of n photos that is named by enough of its captions, if it is a single one."""
    lemmas = iter(nouns_and_verbs([caption for of_photo in captions for caption in of_photo]))
    labels: Labels = []
    for of_photo in captions:
        words = [next(lemmas) for _ in of_photo]
        named = [kind for kind, nouns in KINDS.items() if sum(bool(nouns & of_one) for of_one in words) >= NAMED_BY]
        labels.append(named[0] if len(named) == 1 else None)
    return labels


def by_subject(captions: Sequence[Sequence[str]]) -> Labels:
    """The cluster of each of n photos whose captions are near its middle.

    Raises:
        DataError: fewer photos than clusters, or captions of too few words.
    """
    if len(captions) < CLUSTERS:
        raise DataError(f"{len(captions)} photos; expected at least {CLUSTERS}, one for every cluster")
    words = TfidfVectorizer(stop_words="english", min_df=3)
    try:
        weights = words.fit_transform([" ".join(of_photo) for of_photo in captions])
        seen = TruncatedSVD(DIRECTIONS, random_state=SEED).fit_transform(weights)
    except ValueError as error:
        raise DataError(f"the captions have too few words that three photos share: {error}") from error
    seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), np.finfo(seen.dtype).tiny)
    clusters = KMeans(CLUSTERS, n_init=4, random_state=SEED).fit(seen)
    distances = np.linalg.norm(seen - clusters.cluster_centers_[clusters.labels_], axis=1)
    near = distances <= np.quantile(distances, KEPT)
    names = words.get_feature_names_out()
    heaviest = {
        cluster: " ".join(names[np.argsort(-weights[clusters.labels_ == cluster].sum(axis=0).A1)[:3]])
        for cluster in range(CLUSTERS)
    }
    return [
        f"{heaviest[cluster]} {cluster}" if keep else None
        for cluster, keep in zip(clusters.labels_.tolist(), near.tolist(), strict=True)
    ]


WAYS: Mapping[str, Callable[[Sequence[Sequence[str]]], Labels]] = {"nouns": by_nouns, "subject": by_subject}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.kinds",
        description=__doc__,
        epilog=datasets.LAYOUTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTOS", help="captioned pictures, see below")
    parser.add_argument("folder", type=Path, metavar="DIR", help="is made where it is missing")
    parser.add_argument("--by", choices=WAYS, required=True, help="what makes a photo's kind")
    parser.add_argument("--encoder", default=MINI, metavar="NAME", help="by default %(default)s")
    options = parser.parse_args(arguments)
    try:
        folders = dict.fromkeys(folder.resolve() for folder in options.photos)
        pictures = [picture for folder in folders for picture in _captioned(folder)]
        precomputed.check_new(options.folder)
        labels = WAYS[options.by]([picture.captions for picture in pictures])
        found = zip(pictures, labels, strict=True)
        chosen = [replace(picture, label=kind) for picture, kind in found if kind is not None]
        if not chosen:
            raise DataError(f"none of {len(pictures):,} photos has a kind; expected captions that name what is seen")
        precomputed.make_folder(options.folder)
        items = datasets.encode(chosen, options.encoder, "auto", datasets.cache_folder())
        precomputed.write(options.folder, items.images, items.captions, items.texts, items.labels or ())
    except DataError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except (ValidationError, SettingsError) as error:
        parser.exit(2, f"{parser.prog}: wrong settings: {explain(error)}\n")
    kinds = len({picture.label for picture in chosen})
    sys.stdout.write(f"{options.folder}: {len(chosen):,} of {len(pictures):,} photos, {kinds} kinds\n")
    return 0


def _captioned(folder: Path) -> list[Picture]:
    pictures = datasets.captioned(folder.resolve()) if folder.is_dir() else []
    if not pictures:
        raise DataError(f"{folder} holds no captioned pictures.\n{datasets.LAYOUTS}")
    return pictures


if __name__ == "__main__":
    sys.exit(main())
