"""Cosines of hits -> scores that can be compared across the pairs of modalities, gap or not. Pure.

Comes in: what every modality's index found for all seeds of a batch. Goes out: the same hits with calibrated scores,
0 for one that is as near as usual. Knows nothing of areas' turns and of feeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from zccr_stream.calibration import comparable, local_mean
from zccr_stream.interests import MEDOID, Area, AreaRule
from zccr_stream.ranking import Hits

NEIGHBOURS = 10
"""How many of a catalogue's sample say what is usual."""
POOL = 5
"""Hits to search for each that is shown: calibrated scores have another order than cosines."""


def calibrate(found: Mapping[str, Hits], areas: Sequence[Area], rule: AreaRule) -> dict[str, Hits]:
    """Take from every cosine what is usual for its seed and for its hit, half of each (`calibration.comparable`).

    Usual for a seed are the nearest of the hits' modality. Usual for a hit are the nearest of the seed's modality, seen
    as seeds are; where it has several, on average.

    Args:
        found: by modality the hits of all areas' seeds, a line each.
        areas: whose seeds they are.
        rule: by which these were found; it knows catalogues of all their modalities.
    """
    return {modality: _calibrated(hits, modality, areas, rule) for modality, hits in found.items()}


def _calibrated(hits: Hits, modality: str, areas: Sequence[Area], rule: AreaRule) -> Hits:
    if not len(hits.asset_ids):
        return hits
    sources = [(area.modality,) if rule.seed == MEDOID else area.modalities for area in areas]
    kinds = sorted(set(sources))
    usual = {source: _usual(hits.vectors, source, rule) for source in sorted({one for kind in kinds for one in kind})}
    of_hits = np.empty_like(hits.scores)
    for kind in kinds:
        lines = [line for line, of_area in enumerate(sources) if of_area == kind]
        of_hits[lines] = np.mean([usual[source] for source in kind], axis=0)[hits.rows[lines]]
    seeds = np.stack([area.seed for area in areas])
    of_seeds = local_mean(seeds, rule.catalogues[modality].sample, NEIGHBOURS)
    return replace(hits, scores=comparable(hits.scores, of_seeds, of_hits))


def _usual(vectors: npt.NDArray[np.float32], source: str, rule: AreaRule) -> npt.NDArray[np.float32]:
    ground, sample = rule.ground(source), rule.catalogues[source].sample
    return local_mean(vectors, sample if ground is None else ground.contrasts(sample), NEIGHBOURS)
