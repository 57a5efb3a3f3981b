"""The command line's root: settings are read here, outages and wrong settings become one clear line."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zccr_stream import assemble, metrics, oversight
from zccr_stream.cli.demo.command import demo
from zccr_stream.cli.dlq import dlq
from zccr_stream.cli.evaluate import evaluate
from zccr_stream.cli.upload import upload
from zccr_stream.cli.verify import verify
from zccr_stream.cli.watch import watch
from zccr_stream.embedded import EmbeddedError
from zccr_stream.embedded.__main__ import up as keep_running
from zccr_stream.encoders import EncoderError
from zccr_stream.ownership import NotMigratedError
from zccr_stream.parts import UnavailableError
from zccr_stream.settings import Settings, explain

app = typer.Typer(
    name="zccr-stream",
    help="Crossmodal recommendations as a stream: uploads come in, refreshed recommendations go out.\n\n"
    "Settings are `ZCCR_…` variables (docs/settings.md). A first run: `zccr-stream demo`. On your own Kafka and "
    "PostgreSQL: `migrate`, `topics`, then run `python -m consumers.ingest` and `python -m consumers.recommend`, "
    "`upload` something and `watch`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(demo)
app.command()(upload)
app.command()(watch)
app.command()(dlq)
app.command()(verify)
app.command()(evaluate)


def main() -> None:
    """Run the command line; 2 for wrong settings, 1 for what is away or went wrong."""
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        app()
    except (ValidationError, SettingsError) as error:
        errors.print(f"[red]wrong settings:[/red] {escape(explain(error))}\nAll settings: docs/settings.md")
        sys.exit(2)
    except (UnavailableError, EmbeddedError, EncoderError, NotMigratedError, metrics.ExportError) as error:
        errors.print(f"[red]unavailable:[/red] {escape(str(error))}")
        sys.exit(1)


@app.command()
def migrate() -> None:
    """Bring the tables in PostgreSQL to this version. Safe to run again, and by several at once."""
    assemble.migrate(Settings())
    Console().print("the database is up to date")


@app.command()
def topics() -> None:
    """Make the topics that are missing, with the right settings, and say where others differ."""
    table = Table("topic", "partitions", "state")
    for report in assemble.ensure_topics(Settings()):
        table.add_row(report.topic, str(report.partitions), report.state)
    Console().print(table)


@app.command()
def up(
    data: Annotated[Path, typer.Option(help="Folder that keeps everything for the next start.")] = Path(".zccr"),
) -> None:
    """Run Apache Kafka and PostgreSQL for development, until Ctrl-C; prints the settings to export."""
    keep_running(data, say=Console(soft_wrap=True, highlight=False).print)


@app.command()
def status(
    json: Annotated[bool, typer.Option("--json", help="As JSON, for machines.")] = False,
) -> None:
    """Say what is there: the groups' lag, assets, users, and what is still to be announced."""
    state = oversight.status(Settings())
    console = Console()
    if json:
        console.print_json(data=state)
        return
    table = Table("what", "value", title="zccr-stream")
    for name, value in state.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    console.print(table)
