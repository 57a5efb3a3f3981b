"""How long an encoder takes for one text and one picture (paper, section 5.1, Table 5).

Comes in: captioned pictures and the encoder's name. Go out: milliseconds an item, alone and in batches.
Fetching and decoding come first and are not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.datasets import Items
from experiments.datasets.encoding import loaded
from experiments.tables import markdown
from experiments.timing import milliseconds, spread
from zccr_stream import assemble
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.parts import Content
from zccr_stream.settings import Settings

BATCHES = (1, 64)

TABLE_5 = {"CLIP": {TEXT: 9.10, IMAGE: 17.43}, "ALBEF": {TEXT: 8.15, IMAGE: 15.71}}
"""The paper's milliseconds, on an A100."""

Report = dict[str, Any]


def measure(items: Items, options: argparse.Namespace, repeats: int) -> Report:
    """Milliseconds an item by modality and batch; nothing for precomputed embeddings."""
    if items.paths is None:
        return {}
    settings = Settings(encoder=options.encoder, device=options.device)
    pictures = [picture for batch in loaded(items.paths[: max(BATCHES)], settings, "decoding") for picture in batch]
    encoder = assemble.encoder(settings)
    report: Report = {}
    for modality, contents in ((TEXT, list(items.texts[: max(BATCHES)])), (IMAGE, pictures)):
        report[modality] = {}
        for batch in BATCHES:
            several = list(_batches(contents, batch, repeats))
            encoder.encode(modality, several[0])
            times = [milliseconds(encoder.encode, modality, part) / len(part) for part in several]
            report[modality][str(batch)] = spread(times)
    return report


def _batches(contents: Sequence[Content], size: int, count: int) -> Iterator[list[Content]]:
    for number in range(count):
        yield [contents[(number * size + place) % len(contents)] for place in range(min(size, len(contents)))]


def table(report: Report) -> str:
    """Table 5 with the paper's values."""
    rows = [
        [f"paper: {name}", "1", *(f"{of_way[modality]:.2f}" for modality in (TEXT, IMAGE))]
        for name, of_way in TABLE_5.items()
    ]
    for batch in BATCHES:
        values = [report[modality][str(batch)] for modality in (TEXT, IMAGE)]
        rows.append(["here", str(batch), *(f"{value['mean_ms']:.2f} ± {value['std_ms']:.2f}" for value in values)])
    return markdown(["encoder", "batch", "text, ms", "image, ms"], rows)
