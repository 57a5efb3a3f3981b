"""Measures how good the recommendations are: part of each profile is held out, and looked for in the feed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from zccr_stream import assemble, metrics, oversight
from zccr_stream.evaluation import (
    EACH_ASSET,
    LENGTHS,
    ONE_AREA,
    PRODUCTION,
    RANDOM,
    Estimate,
    Evaluation,
    EvaluationRule,
)
from zccr_stream.settings import Settings

_MEASURES = {
    "recall": "recall",
    "precision": "precision",
    "ndcg": "nDCG",
    "coverage": "areas covered",
    "near_duplicates": "near-duplicates",
    "diversity": "diversity",
    "crossmodal": "of the other modality",
}
_OTHERS = {ONE_AREA: "one area a user", EACH_ASSET: "one area an asset", RANDOM: "chance"}


def evaluate(
    users: Annotated[int, typer.Option(min=1, help="How many users to measure, drawn by their ids.")] = 500,
    held_out: Annotated[
        float, typer.Option(help="Share of each profile that is held out, above 0 and below 1; 50 assets at most.")
    ] = 0.2,
    newest: Annotated[
        bool, typer.Option("--newest", help="Hold out the newest assets: is what comes next recommended already?")
    ] = False,
    assets_min: Annotated[int, typer.Option(min=2, help="Assets of a user who can be measured.")] = 5,
    seed: Annotated[int, typer.Option(help="Another one draws other users and other assets.")] = 0,
    textfile: Annotated[
        Path | None, typer.Option(help="Write metrics there, for node_exporter's textfile collector; ends in .prom.")
    ] = None,
    pushgateway: Annotated[
        str | None, typer.Option(help="Push metrics to the Prometheus Pushgateway at this URL.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for machines.")] = False,
) -> None:
    """Measure how good the recommendations are, on what your own users uploaded.

    Of each sampled user some uploads are taken away, as if others had uploaded them. Then areas, search and feed come
    from production's own code and settings, and what was taken away is looked for in the first 10, 20 and 50 places:

    - **recall**: share of it that is shown; **precision**: share of the places that show it; **nDCG**: early places
      count more; **areas covered**: share of the areas that the missing assets belong to;
    - **near-duplicates**: places that look like one before them (cosine .9); **diversity**: mean of 1 - cosine within a
      modality; **of the other modality**: places that show it to an area of images or of texts.

    Beside it, the recall of feeds that anybody could make. Only what a user uploaded counts as right, so numbers are
    low: compare nights and settings, not products. Reads the database alone, in one snapshot, and changes nothing;
    needs no Kafka, no encoder, and as much memory as a recommender. The same assets give the same numbers.

    Nightly: `zccr-stream evaluate --pushgateway http://pushgateway:9091`; docs/operations.md has lines for crontab and
    Kubernetes, and says what the metrics mean.
    """
    if not 0 < held_out < 1:
        raise typer.BadParameter("a share above 0 and below 1 is expected", param_hint="--held-out")
    if textfile:
        metrics.check_textfile(textfile)
    if pushgateway is not None:
        metrics.check_pushgateway(pushgateway)
    assemble.warn_of_unknown_settings()  # a misspelt one would be compared with itself
    settings = Settings()
    rule = EvaluationRule(users, assets_min, held_out, newest, seed)
    with _bar() as report:
        evaluation = oversight.evaluate(settings, rule, report)
    oversight.measured(evaluation, settings)
    try:  # whatever the terminal or the pipe does, the work of minutes is exported
        _show(evaluation, rule, settings, json)
    finally:
        if textfile:
            metrics.write_evaluation(textfile)
        if pushgateway is not None:
            metrics.push_evaluation(pushgateway)


def _show(evaluation: Evaluation, rule: EvaluationRule, settings: Settings, json: bool) -> None:
    console = Console()
    waiting = assemble.too_few_assets(settings, evaluation.assets)
    if json:
        made_of = {"model": assemble.model(settings), "settings": oversight.of_areas_and_feeds(settings)}
        asked = {"rule": asdict(rule), "too_few_assets": waiting}
        console.print_json(data={**made_of, **asked, **_summary(evaluation)})
        return
    console.print(_who(evaluation, rule), highlight=False)
    if waiting:
        console.print(waiting, style="yellow", highlight=False)
    console.print(_table(evaluation))
    console.print(_verdict(evaluation), highlight=False)


@contextmanager
def _bar() -> Iterator[oversight.Report]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:  # cron mails a newline
        tasks: dict[str, TaskID] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step, total=total)
            progress.update(tasks[step], completed=done)

        yield report


def _who(evaluation: Evaluation, rule: EvaluationRule) -> str:
    sample = evaluation.sample
    assets = " and ".join(f"{size:,} {modality}s" for modality, size in sorted(evaluation.assets.items()))
    which = "their newest" if rule.newest else "drawn"
    return (
        f"{len(sample.user_ids):,} users measured, of {sample.enough:,} with {rule.assets_min} assets or more "
        f"({sample.too_few:,} have fewer)\n"
        f"{evaluation.held_out:,} of their assets held out ({which}), looked for among {assets}"
    )


def _table(evaluation: Evaluation) -> Table:
    """Means and half of their 95 % intervals, by length of the feed."""
    table = Table("production's feed", *(f"first {length}" for length in LENGTHS))
    for column in table.columns[1:]:
        column.justify = "right"
    ours = evaluation.feeds[PRODUCTION]
    for measure, name in _MEASURES.items():
        table.add_row(name, *(_said(ours[length][measure]) for length in LENGTHS))
    distinct = evaluation.distinct[PRODUCTION]
    table.add_row("different assets shown", *(_share(distinct[length]) for length in LENGTHS), end_section=True)
    for feed, name in _OTHERS.items():
        table.add_row(f"recall, {name}", *(_said(evaluation.feeds[feed][length]["recall"]) for length in LENGTHS))
    table.rows[-1].end_section = True
    for feed, name in _OTHERS.items():
        table.add_row(f"above {name}", *(_said(evaluation.above[feed][length], "+") for length in LENGTHS))
    return table


def _said(estimate: Estimate, sign: str = "") -> str:
    mean = _share(estimate.mean, sign)
    return mean if estimate.half_width is None else f"{mean} ± {estimate.half_width:.3f}"


def _share(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _verdict(evaluation: Evaluation) -> str:
    """What the numbers allow to be said, and what they do not."""
    lines = []
    for feed, name in _OTHERS.items():
        leads = evaluation.above[feed].items()
        above = [str(length) for length, lead in leads if _tells(lead) and (lead.mean or 0) > 0]
        below = [str(length) for length, lead in leads if _tells(lead) and (lead.mean or 0) < 0]
        said = [f"{word} in the first {', '.join(of)}" for word, of in (("better", above), ("worse", below)) if of]
        lines.append(f"Recall beside {name}: {' and '.join(said) or 'no difference that these users can tell'}")
    if evaluation.repeats.mean is not None:
        lines.append(
            f"{evaluation.repeats.mean:.1%} of what was held out has a near-duplicate in the rest of its profile: "
            "finding that is easy"
            if evaluation.repeats.mean
            else "Nothing of what was held out has a near-duplicate in the rest of its profile"
        )
    return "\n".join(lines)


def _tells(lead: Estimate) -> bool:
    """Whether its interval leaves out 0."""
    return lead.mean is not None and lead.half_width is not None and abs(lead.mean) > lead.half_width


def _summary(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but who was measured."""
    sample = evaluation.sample
    return {
        **asdict(evaluation),
        "sample": {
            "users": len(sample.user_ids),
            "enough": sample.enough,
            "too_few": sample.too_few,
            "largest": sample.largest,
        },
    }
