"""Labels for areas of interest the paper's way (section 4.1): what a classifier of ImageNet is sure of.

A pair's label is its picture's likeliest class, and pairs whose picture no class has that is likelier than a threshold
are left out. The paper's classifier is ResNet50 and its threshold 90 %.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.classifier import class_names, classify
from experiments.datasets import DataError, Label

LABELS = ("given", "classifier")
CONFIDENCE = 0.9


def classified(classifier: str, confidence: float, device: str, cache: Path) -> Label:
    """Make what labels pictures, for `datasets.load`; it tells on stderr how many pairs and classes remain.

    Args:
        classifier: see `experiments.classifier`.
        confidence: above which a picture's likeliest class is its label, 0 to 1.
        device: where the classifier runs.
        cache: folder that keeps what was found.
    """

    def label(paths: Sequence[Path]) -> list[str | None]:
        likeliest = classify(paths, classifier, device, cache)
        sure = likeliest.probabilities[:, 0] > confidence
        names = [class_names()[number] for number in likeliest.classes[:, 0].tolist()]
        labels = [name if keep else None for name, keep in zip(names, sure.tolist(), strict=True)]
        kinds = len(set(labels) - {None})
        found = (
            f"{classifier} is surer than {confidence:g} of {int(sure.sum()):,} of {len(paths):,} pictures: "
            f"{kinds:,} classes"
        )
        if not kinds:
            raise DataError(f"{found}; expected some: ask for less by --confidence")
        sys.stderr.write(f"{found}\n")
        return labels

    return label
