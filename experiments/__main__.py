"""The paper's experiments, on any pictures with captions.

    python -m experiments areas --data DIR [--encoder NAME] [--json FILE]
    python -m experiments retrieval --data DIR [--encoder NAME] [--json FILE]

The benchmarks beside them run by their own names: python -m experiments.bench_interests, …
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import SettingsError

from experiments import areas, datasets, retrieval
from zccr_stream.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one experiment; the exit code: 0, or 2 for what cannot be measured so."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
    try:
        items = datasets.load(options.data, options.encoder, options.device, options.cache)
        if options.command == "areas":
            grid = areas.Grid(options.classes, options.assets, options.draws)
            report, tables = areas.areas(items, grid, Settings())
        else:
            report, tables = retrieval.retrieval(items)
    except (datasets.DataError, ValidationError, SettingsError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(tables + "\n")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", title="experiments", metavar="EXPERIMENT")
    for name, module, help_ in (
        ("areas", areas, "how well areas of interest are found, and what that is worth in the feed (section 4.3)"),
        ("retrieval", retrieval, "one index a modality against one for both, and the gap closed (Tables 3 and 4)"),
    ):
        command = commands.add_parser(
            name, help=help_, description=module.__doc__, epilog=datasets.LAYOUTS, formatter_class=plain
        )
        command.add_argument("--data", type=Path, required=True, metavar="DIR", help="a folder of data, see below")
        command.add_argument(
            "--encoder",
            default="mini",
            metavar="NAME",
            help="`mini` (the default), or <open_clip model>/<pretrained tag or file>; embeddings need none",
        )
        command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        command.add_argument("--json", type=Path, metavar="FILE", help="file for all numbers")
        command.add_argument(
            "--cache",
            type=Path,
            metavar="DIR",
            default=datasets.cache_folder(),
            help="keeps what was encoded, by encoder and data; by default %(default)s",
        )
        if name == "areas":
            _add_grid(command)
    return parser


def _add_grid(command: argparse.ArgumentParser) -> None:
    for name, default, help_ in (
        ("classes", areas.CLASSES, "classes a user has assets of"),
        ("assets", areas.ASSETS, "assets of each class"),
    ):
        shown = " ".join(map(str, default))
        command.add_argument(
            f"--{name}", type=_positive, nargs="+", default=default, metavar="N", help=f"{help_}; by default {shown}"
        )
    command.add_argument(
        "--draws", type=_positive, default=areas.DRAWS, metavar="N", help="users a cell; by default %(default)s"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; expected at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
