"""The paper's experiments, on any pictures with captions.

    python -m experiments EXPERIMENT --data DIR [--encoder NAME] [--json FILE] [--figures DIR]

The benchmarks beside them run by their own names: python -m experiments.bench_interests, …
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError
from pydantic_settings import SettingsError

from experiments import areas, datasets, gap, retrieval, searches, similarities
from experiments.datasets import Items
from experiments.outcome import Outcome


class Experiment(Protocol):
    """A module of an experiment; its docstring is its `--help`."""

    def add_options(self, command: argparse.ArgumentParser) -> None:
        """Add what only this experiment asks for."""

    def measure(self, items: Items, options: argparse.Namespace) -> Outcome:
        """Measure; a `DataError` says what the items lack."""


EXPERIMENTS: Mapping[str, tuple[Experiment, str]] = {
    "areas": (areas, "how well areas of interest are found, and what that is worth in the feed (section 4.3)"),
    "retrieval": (retrieval, "one index a modality against one for both, and the gap closed (Tables 3 and 4)"),
    "similarities": (similarities, "cosines within and between modalities, and t-SNE of both (Figures 5 to 7)"),
    "searches": (searches, "what a search costs, and that exact ones find the same (Tables 1, 5, 6 and 7)"),
    "gap": (gap, "how far the modality gap can be closed, and what one space of both modalities is worth"),
}
"""By name the module and one line about it, in the order of the report."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one experiment; the exit code: 0, or 2 for what cannot be measured so."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    experiment, _ = EXPERIMENTS[options.command]
    try:
        items = datasets.load(options.data, options.encoder, options.device, options.cache)
        outcome = experiment.measure(items, options)
    except (datasets.DataError, ValidationError, SettingsError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(outcome.text + "\n")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(outcome.report, indent=1) + "\n")
    if options.figures:
        outcome.save_figures(options.figures)
    return 0


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", title="experiments", metavar="EXPERIMENT")
    for name, (experiment, help_) in EXPERIMENTS.items():
        command = commands.add_parser(
            name, help=help_, description=experiment.__doc__, epilog=datasets.LAYOUTS, formatter_class=plain
        )
        _add_common(command)
        experiment.add_options(command)
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=Path, required=True, metavar="DIR", help="a folder of data, see below")
    command.add_argument(
        "--encoder",
        default="mini",
        metavar="NAME",
        help="`mini` (the default), or <open_clip model>/<pretrained tag or file>; embeddings need none",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    command.add_argument("--json", type=Path, metavar="FILE", help="file for all numbers")
    command.add_argument("--figures", type=Path, metavar="DIR", help="folder for the plots, as PNG")
    command.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=datasets.cache_folder(),
        help="keeps what was encoded, by encoder and data; by default %(default)s",
    )


if __name__ == "__main__":
    sys.exit(main())
