"""Holds what was published against the database, and has announced again what differs."""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zccr_stream import assemble, oversight
from zccr_stream.audit import NOT_PUBLISHED, Audit, compare
from zccr_stream.ownership import PostgresOwnership
from zccr_stream.settings import Settings

_SHOWN = 20
_REPAIRED_AT_ONCE = 1000


def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Have everything that differs announced again by the ingest consumers.")
    ] = False,
    settle_s: Annotated[
        float, typer.Option(min=0, help="Seconds after which a difference that still stands is no news on its way.")
    ] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for machines.")] = False,
) -> None:
    """Check that every live asset and every user's version in the database is what the topics say. 1: it is not.

    To be run after a restore of PostgreSQL or Kafka from a backup, or at any time: it only reads, beside running
    consumers. `--repair` raises what differs above everything that was published, and notes it as still to be
    announced: the ingest consumers publish it within `ZCCR_SWEEP_INTERVAL_S`. Takes about 0.5 KB of memory an asset.
    """
    settings = Settings()
    console = Console(soft_wrap=True)
    truth = assemble.ownership(settings)
    try:
        truth.check()
        with Console(stderr=True).status("reading asset-embedded, recommendations and the database"):
            audit = _audit(settings, truth, settle_s)
        if repair and audit:
            _announce_again(truth, audit)
    finally:
        truth.close()
    if json:
        console.print_json(data=_summary(audit, repair))
    else:
        console.print(_table(audit))
        console.print(_sentence(audit, repair), highlight=False)
    if audit and not repair:
        raise typer.Exit(1)


def _audit(settings: Settings, truth: PostgresOwnership, settle_s: float) -> Audit:
    """What differs, and still does after a while."""
    reader = oversight.PublishedReader(settings)

    def look() -> Audit:
        published = reader.read()
        with truth.auditing() as snapshot:
            return compare(snapshot, published)

    audit = look()
    if audit:
        time.sleep(settle_s)
        audit = look().standing_since(audit)
    if audit.user_differences and oversight.refresh_lag(settings):
        waiting = [user for user, (_, how) in audit.user_differences.items() if how == NOT_PUBLISHED]
        for user_id in waiting:  # their turn is still to come
            del audit.user_differences[user_id]
    return audit


def _announce_again(truth: PostgresOwnership, audit: Audit) -> None:
    """In batches; what is noted twice, as after an interruption, is announced twice and harms nobody."""
    now_ms = int(time.time() * 1000)
    users = {user_id: version for user_id, (version, _) in audit.user_differences.items()}
    assets = {asset_id: revision for asset_id, (revision, _) in audit.asset_differences.items()}
    for batch in _batches(users):
        truth.announce_again({}, batch, now_ms)
    for batch in _batches(assets):
        truth.announce_again(batch, {}, now_ms)


def _batches(numbers: dict[str, int]) -> list[dict[str, int]]:
    ordered = sorted(numbers.items())
    return [dict(ordered[first : first + _REPAIRED_AT_ONCE]) for first in range(0, len(ordered), _REPAIRED_AT_ONCE)]


def _differences(audit: Audit) -> list[tuple[str, str, int, str]]:
    return [
        (kind, identifier, number, how)
        for kind, differences in (("asset", audit.asset_differences), ("user", audit.user_differences))
        for identifier, (number, how) in sorted(differences.items())
    ]


def _table(audit: Audit) -> Table:
    table = Table("what", "id", "published revision or version", "difference")
    for kind, identifier, number, how in _differences(audit)[:_SHOWN]:
        table.add_row(kind, escape(identifier), str(number), how)
    return table


def _sentence(audit: Audit, repaired: bool) -> str:
    said = (
        f"{audit.live_assets:,} live assets and {audit.users:,} users compared, {audit.unannounced:,} being announced"
    )
    if not audit:
        return f"{said}: all agree"
    kinds = Counter(f"{kind}: {how}" for kind, _, _, how in _differences(audit))
    counts = "\n".join(f"  {count:,} x {kind}" for kind, count in kinds.items())
    end = (
        "noted: the ingest consumers announce them now"
        if repaired
        else "`zccr-stream verify --repair` has them announced again"
    )
    return f"{said}\n{counts}\n{end}"


def _summary(audit: Audit, repaired: bool) -> dict[str, Any]:
    return {
        "live_assets": audit.live_assets,
        "users": audit.users,
        "being_announced": audit.unannounced,
        "repaired": repaired and bool(audit),
        "differences": [
            {"what": kind, "id": identifier, "published": number, "difference": how}
            for kind, identifier, number, how in _differences(audit)
        ],
    }
