"""`zccr-stream demo`: says at each step what happens, shows what came of it, and ends by itself."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zccr_stream.cli.demo.cast import User, cast
from zccr_stream.cli.demo.media import NoMediaError, find_media
from zccr_stream.cli.demo.page import render
from zccr_stream.cli.demo.run import DemoError, Running, installation, publish_all, publish_last
from zccr_stream.cli.processes import ProcessEndedError
from zccr_stream.embedded import EmbeddedError
from zccr_stream.events import IMAGE, MODALITIES, TEXT

_LINES = 3
_WIDTH_MIN = 110


def demo(
    media: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images, each with a caption in a .txt file of the same name, best in folders by kind. "
            "By default the Tux Paint stamps, else a wheel's sample photos.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    page: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("demo.html"),
    keep: Annotated[bool, typer.Option("--keep", help="Go on running for uploads of your own, until Ctrl-C.")] = False,
) -> None:
    """Stream a dozen users' photos and sentences through a whole installation, and show what they are recommended."""
    console = Console()
    console.width = max(console.width, _WIDTH_MIN if not console.is_terminal else console.width)
    try:
        _demo(media, page, keep, console)
    except (NoMediaError, DemoError, EmbeddedError, ProcessEndedError) as error:
        console.print(f"[red]the demo cannot go on:[/red] {escape(str(error))}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("stopped")


def _demo(media: Path | None, page: Path, keep: bool, console: Console) -> None:
    found = find_media(media, _cache(), console.print)
    users = cast(found)
    uploads = [upload for user in users for upload in user.uploads]
    console.print(
        f"{len(users)} users share {len(found.kinds)} kinds of things from {found.source}: "
        f"{sum(upload.modality == IMAGE for upload in uploads)} photos and "
        f"{sum(upload.modality == TEXT for upload in uploads)} sentences"
    )
    with installation(console) as running:
        publish_all(running, users, console)
        seconds = publish_last(running, users, console)
        recommendations = {user_id: found for user_id, found in running.inbox.by_user.items() if found}
        console.print(_table(users, recommendations, seconds))
        facts = _facts(users, recommendations, seconds, running.settings.encoder)
        for name, value in facts:
            console.print(f"  {name:<42} {value}")
        page.write_text(render(users, recommendations, seconds, facts), encoding="utf-8")
        console.print(f"all of it with pictures: {page.resolve()}", soft_wrap=True)
        if keep:
            _keep(running, console)


def _keep(running: Running, console: Console) -> None:
    console.print("\nrunning until Ctrl-C. In another terminal:")
    for name in ("ZCCR_BOOTSTRAP_SERVERS", "ZCCR_DATABASE_URL", "ZCCR_TOPIC_PREFIX", "ZCCR_ENCODER"):
        console.print(f"  export {name}='{running.environment[name]}'", soft_wrap=True)
    console.print("  zccr-stream upload --user me FILES…\n  zccr-stream watch --user me")
    running.wait(lambda: False, float("inf"), "Ctrl-C")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zccr-stream"


def _table(users: Sequence[User], recommendations: Mapping[str, dict[str, Any]], seconds: Mapping[str, float]) -> Table:
    """A row per user: what goes in, what was found in it, and what comes out."""
    table = Table(title="What they upload, and what they are recommended", show_lines=True)
    for name in ("user and kinds", "areas found", "best hits across modalities"):
        table.add_column(name, overflow="fold")
    for name in ("feed", "of their kinds", "event to here"):
        table.add_column(name, justify="right")
    kinds = _kinds(users)
    for user in users:
        found = recommendations[user.user_id]
        table.add_row(
            "\n".join([f"{user.user_id}: {len(user.uploads)} {'+'.join(user.modalities)}", *map(escape, user.kinds)]),
            _first(
                f"{area['size']} {area['modality']} like {_name(area['representative'])}" for area in found["areas"]
            ),
            _first(_crossmodal(found["areas"])),
            str(len(found["feed"])),
            f"{_share(found['feed'], user, kinds):.0%}",
            f"{seconds[user.user_id] * 1000:.0f} ms",
        )
    return table


def _first(lines: Iterable[str]) -> str:
    """The first lines and how many more there are."""
    all_lines = list(lines)
    more = [f"… {len(all_lines) - _LINES} more"] if len(all_lines) > _LINES else []
    return "\n".join([*all_lines[:_LINES], *more]) or "none"


def _crossmodal(areas: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for area in areas:
        for modality in MODALITIES:
            if modality != area["modality"] and area["recommended"][modality]:
                hit = area["recommended"][modality][0]
                yield f"{_name(area['representative'])} → {modality} {_name(hit['asset_id'])} ({hit['score']:.2f})"


def _name(asset_id: str) -> str:
    return escape(asset_id.rsplit("/", 1)[1])


def _kinds(users: Sequence[User]) -> dict[str, str]:
    return {upload.asset_id: upload.kind for user in users for upload in user.uploads}


def _share(feed: Sequence[Mapping[str, Any]], user: User, kinds: Mapping[str, str]) -> float:
    """The share of the feed that is of a kind the user uploads."""
    return statistics.fmean([kinds.get(item["asset_id"]) in user.kinds for item in feed] or [0.0])


def _facts(
    users: Sequence[User], recommendations: Mapping[str, dict[str, Any]], seconds: Mapping[str, float], encoder: str
) -> list[tuple[str, str]]:
    kinds = _kinds(users)
    areas = {
        (user.user_id, a["area_id"]): a["modality"] for user in users for a in recommendations[user.user_id]["areas"]
    }
    items = [(user, item) for user in users for item in recommendations[user.user_id]["feed"]]
    crossmodal = [item["modality"] != areas[user.user_id, item["area_id"]] for user, item in items]
    shares = [_share(recommendations[user.user_id]["feed"], user, kinds) for user in users]
    chance = [
        statistics.fmean(
            kind in user.kinds for asset, kind in kinds.items() if not asset.startswith(f"{user.user_id}/")
        )
        for user in users
    ]
    return [
        ("encoder", encoder),
        ("users", str(len(users))),
        ("uploads", str(len(kinds))),
        ("event to recommendation, median", f"{statistics.median(seconds.values()) * 1000:.0f} ms"),
        ("event to recommendation, slowest", f"{max(seconds.values()) * 1000:.0f} ms"),
        ("recommended across modalities", f"{statistics.fmean(crossmodal or [0]):.0%} of the feeds"),
        (
            "of a kind that the user uploads",
            f"{statistics.fmean(shares):.0%}, by chance {statistics.fmean(chance):.0%}",
        ),
    ]
