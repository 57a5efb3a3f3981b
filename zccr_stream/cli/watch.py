"""Follows `recommendations` by the contract: the greatest version of each user, shown as a table."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from zccr_stream import oversight
from zccr_stream.cli.newest import Newest
from zccr_stream.cli.showing import shown
from zccr_stream.events import MODALITIES
from zccr_stream.settings import Settings

_SHOWN = 3


def watch(
    user: Annotated[str | None, typer.Option("--user", help="Only this user.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Show what is there now and end.")] = False,
) -> None:
    """Follow the recommendations as they are refreshed, beginning with those that are there. Ctrl-C ends it."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    console = Console()
    newest = Newest()
    follower = oversight.recommendations_follower(Settings(), newest.take)

    def show() -> None:
        if not follower.caught_up.is_set():
            return
        for user_id in sorted(newest.changed):
            if user in (None, user_id):
                console.print(table(user_id, newest.by_user[user_id]))
        newest.changed.clear()
        if once:
            stop.set()

    follower.run({}, stop, between=show)


def table(user_id: str, recommendations: dict[str, Any] | None) -> Table:
    """One user's recommendations as a table: a row per area of interest."""
    if recommendations is None:
        return Table(title=f"{shown(user_id)}: no assets left")
    title = f"{shown(user_id)}, version {recommendations['profile_version']}, {recommendations['generated_at']}"
    rows = Table("area", "weight", "assets", "like", *(f"recommended: {m}" for m in MODALITIES), title=title)
    for area in recommendations["areas"]:
        rows.add_row(
            f"{area['modality']} {area['area_id'][:6]}",
            f"{area['weight']:.0%}",
            str(area["size"]),
            shown(area["representative"]),
            *(_line(area["recommended"].get(modality, [])) for modality in MODALITIES),
        )
    return rows


def _line(recommended: Sequence[dict[str, Any]]) -> str:
    more = f"\n… {len(recommended) - _SHOWN} more" if len(recommended) > _SHOWN else ""
    return "\n".join(f"{hit['score']:.2f} {shown(hit['asset_id'])}" for hit in recommended[:_SHOWN]) + more
