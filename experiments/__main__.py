"""The paper's experiments, on any pictures with captions.

    python -m experiments paper --data DIR [--encoder NAME] [--out DIR]
    python -m experiments EXPERIMENT --data DIR [--encoder NAME] [--json FILE] [--figures DIR]

Beside them, by their own names: the benchmarks (python -m experiments.bench_interests, …),
python -m experiments.constants, which says how good the cut's constants are over several data sets,
python -m experiments.mixtures, which makes up embeddings whose classes are known, and
python -m experiments.kinds, which gives captioned photos without labels kinds by what their captions say.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError
from pydantic_settings import SettingsError

from experiments import (
    areas,
    beyond,
    classifier,
    components,
    cuts,
    datasets,
    gap,
    grid,
    labels,
    retrieval,
    searches,
    similarities,
    taggers,
)
from experiments.datasets import Items
from experiments.outcome import Outcome
from zccr_stream.assemble import warn_of_unknown_settings
from zccr_stream.cli.showing import plain
from zccr_stream.settings import explain


class Experiment(Protocol):
    """A module of an experiment; its docstring is its `--help`."""

    def add_options(self, command: argparse.ArgumentParser) -> None:
        """Add what only this experiment asks for."""

    def measure(self, items: Items, options: argparse.Namespace) -> Outcome:
        """Measure; a `DataError` says what the items lack."""


EXPERIMENTS: Mapping[str, tuple[Experiment, str]] = {
    "areas": (areas, "how well areas of interest are found, and what that is worth in the feed (section 4.3)"),
    "components": (components, "projection, clustering and seed, each exchanged (Table 2, Figures 14 to 18)"),
    "taggers": (taggers, "ZCCR against recommending by tags, BT and BTBA (Figures 19 and 20)"),
    "cuts": (cuts, "rules for where to cut Ward's tree into areas, against each other"),
    "retrieval": (retrieval, "one index a modality against one for both, and the gap closed (Tables 3 and 4)"),
    "similarities": (similarities, "cosines within and between modalities, and t-SNE of both (Figures 5 to 7)"),
    "searches": (searches, "what a search costs, and that exact ones find the same (Tables 1, 5, 6 and 7)"),
    "gap": (gap, "how far the modality gap can be closed (section 3.1.3)"),
    "beyond": (beyond, "what could be better than the paper's way from areas to a feed, each against production"),
}
"""By name the module and one line about it, in the order of the report."""


PAPER = "paper"
REPORT = "report.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one experiment; the exit code: 0, 2 for what cannot be measured so, or 130 where a person stopped it."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    warn_of_unknown_settings()
    try:
        _check_written(options)
        items = _load(options)
        if options.command == PAPER:
            return _paper(items, options)
        experiment, _ = EXPERIMENTS[options.command]
        outcome = experiment.measure(items, options)
    except datasets.DataError as error:
        sys.stderr.write(f"{_shown(str(error))}\n")
        return 2
    except (ValidationError, SettingsError) as error:
        sys.stderr.write(f"wrong settings: {explain(error)}\n")
        return 2
    except OSError as error:  # of the cache, or of a disk that fails
        sys.stderr.write(f"{error}\n")
        return 2
    except MemoryError as error:
        sys.stderr.write(f"there is no memory for so much: ask for less ({str(error) or 'out of memory'})\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was encoded until then and kept is not encoded again\n")
        return 130
    try:  # files first: a terminal that cannot show the tables costs no results
        if options.json:
            _write(options.json, outcome)
        if options.figures and not outcome.save_figures(options.figures):
            sys.stderr.write(f"{options.command} has no plots, its tables are all there is\n")
    except OSError as error:
        sys.stderr.write(f"not written: {error}\n")
        return 2
    _show(outcome.text)
    return 0


def _show(text: str) -> None:
    """Print what the terminal's encoding can show of it."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")


def _write(file: Path, outcome: Outcome) -> None:
    file.write_text(json.dumps(outcome.report, indent=1, allow_nan=False) + "\n")


def _check_written(options: argparse.Namespace) -> None:
    """Refuse what cannot be written before the work is done and not after it."""
    file, folders = getattr(options, "json", None), [getattr(options, name, None) for name in ("figures", "out")]
    if file and file.is_dir():
        raise datasets.DataError(f"{file} is a folder; --json expects a file")
    for folder in filter(None, [file and file.parent, *folders]):
        if folder.exists() and not folder.is_dir():
            raise datasets.DataError(f"{folder} is a file; expected a folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise datasets.DataError(f"{folder} cannot be written: {error.strerror}") from error


def _shown(text: str) -> str:
    """Line by line without what terminals obey: names of files are somebody's input."""
    return "\n".join(plain(line) for line in text.split("\n"))


def _paper(items: Items, options: argparse.Namespace) -> int:
    """Run every experiment by its defaults and keep the report; what the data lack is said there."""
    encoded = "" if items.space == datasets.PRECOMPUTED else f", encoded by {items.space}"
    parts = [f"# The paper's experiments on {options.data.resolve().name}{encoded}"]
    lacking, failed = 0, 0
    _forget(options.out)
    for name, (experiment, title) in EXPERIMENTS.items():
        sys.stderr.write(f"{name}: {title}\n")
        command = f"python -m experiments {name} {_common(options)}"
        defaults = argparse.ArgumentParser()
        experiment.add_options(defaults)
        try:
            outcome = experiment.measure(items, defaults.parse_args([], argparse.Namespace(**vars(options))))
        except datasets.DataError as error:
            lacking += 1
            found = [f"Not measured: {_shown(str(error))}"]
        except (ValidationError, SettingsError):  # all experiments go by the same settings
            raise
        except (ArithmeticError, LookupError, ValueError) as error:  # a fault in one costs nobody the others
            traceback.print_exc()
            failed += 1
            found = [f"Failed: {type(error).__name__}: {error}"]
        else:
            _write(options.out / f"{name}.json", outcome)
            figures = [f"![{file.stem}]({file.name})" for file in outcome.save_figures(options.out)]
            found = [f"`{command}`", outcome.text, *figures]
        parts += [f"## {name}: {title}", *found]
        (options.out / REPORT).write_text("\n\n".join(parts) + "\n", "utf-8")  # what is there is kept, whatever comes
    measured = len(EXPERIMENTS) - lacking - failed
    sys.stdout.write(f"{options.out / REPORT}: {measured} of {len(EXPERIMENTS)} experiments")
    sys.stdout.write(f", {lacking} that the data lack something for" * (lacking > 0))
    sys.stdout.write(f", {failed} failed by a fault" * (failed > 0) + "\n")
    return 1 if failed else 0 if measured else 2


def _forget(folder: Path) -> None:
    """Remove an earlier report with its numbers and plots: they may be of other data."""
    report = folder / REPORT
    text = report.read_text("utf-8", "replace") if report.is_file() else ""
    plots = re.findall(r"^!\[[\w-]+\]\(([\w-]+\.png)\)$", text, re.MULTILINE)
    for stale in (*plots, *(f"{name}.json" for name in EXPERIMENTS), REPORT):
        (folder / stale).unlink(missing_ok=True)


def _common(options: argparse.Namespace) -> str:
    """The options that all experiments share, as one gives them; without those that are as by default."""
    parser = argparse.ArgumentParser()
    _add_common(parser)
    data = ["--data", str(options.data)]
    defaults = vars(parser.parse_args(data)).items()
    given = [(name, str(getattr(options, name))) for name, default in defaults if getattr(options, name) != default]
    return shlex.join([*data, *(part for name, value in given for part in (f"--{name}", value))])


def _load(options: argparse.Namespace) -> Items:
    selection = datasets.Selection(options.split, options.limit, options.caption)
    label = None
    if options.labels == "classifier":
        label = labels.classified(options.classifier, options.confidence, options.device, options.cache)
    return datasets.load(options.data, options.encoder, options.device, options.cache, selection, label)


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__, formatter_class=plain)
    commands = parser.add_subparsers(dest="command", title="experiments", metavar="EXPERIMENT")
    paper = commands.add_parser(
        PAPER,
        help="all of these by their defaults: one report with tables and plots, and the numbers as JSON",
        description="Runs every experiment by its defaults on one data set. Into the folder of the report go report.md "
        "with all tables, the plots, and each experiment's numbers as JSON. What the data lack, such as labels, is "
        "said there, and the other experiments run.",
        epilog=datasets.LAYOUTS,
        formatter_class=plain,
    )
    _add_common(paper)
    paper.add_argument(
        "--out",
        type=Path,
        default=Path("paper"),
        metavar="DIR",
        help="folder of the report, whose report.md and JSON files are replaced; by default ./%(default)s",
    )
    for name, (experiment, help_) in EXPERIMENTS.items():
        command = commands.add_parser(
            name, help=help_, description=experiment.__doc__, epilog=datasets.LAYOUTS, formatter_class=plain
        )
        _add_common(command)
        command.add_argument(
            "--json", type=Path, metavar="FILE", help="file for all numbers, its folder made where it is missing"
        )
        command.add_argument("--figures", type=Path, metavar="DIR", help="folder for the plots, as PNG")
        experiment.add_options(command)
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=Path, required=True, metavar="DIR", help="a folder of data, see below")
    command.add_argument(
        "--encoder",
        default="mini",
        metavar="NAME",
        help="`mini` (the default), albef/<file> or <open_clip model>/<pretrained tag or file>; embeddings need none",
    )
    command.add_argument(
        "--split", choices=datasets.SPLITS, help="part of the data; by default val where they have splits, else all"
    )
    command.add_argument(
        "--limit", type=grid.at_least(1), metavar="N", help="at most N pairs, drawn with a fixed seed; by default all"
    )
    command.add_argument(
        "--caption",
        choices=datasets.CAPTION_CHOICES,
        default="first",
        help="which of a picture's captions is its pair: the first (the default), or a random one as in the paper",
    )
    command.add_argument(
        "--labels",
        choices=labels.LABELS,
        default="given",
        help="the data's own (the default), or a classifier's of the pictures that it is sure of, as in the paper",
    )
    command.add_argument(
        "--confidence",
        type=share,
        default=labels.CONFIDENCE,
        metavar="P",
        help="of the classifier, above which its label is taken; by default %(default)s",
    )
    command.add_argument(
        "--classifier",
        default=classifier.LITE0,
        metavar="NAME",
        help="for labels and tags: lite0 (the default), timm:NAME or timm:NAME:FILE",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    command.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=datasets.cache_folder(),
        help="keeps what was encoded, by encoder and data; by default %(default)s",
    )


def share(text: str) -> float:
    """Read a share from the command line."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected 0 or more and less than 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
