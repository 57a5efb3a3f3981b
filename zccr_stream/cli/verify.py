"""Holds what was published against the database, and has announced again what differs."""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from zccr_stream import assemble, oversight
from zccr_stream.audit import NOT_PUBLISHED, TO_BE_REFRESHED, WAITING, Audit, Difference, compare
from zccr_stream.cli.showing import shown
from zccr_stream.ownership import PostgresOwnership
from zccr_stream.parts import UnavailableError
from zccr_stream.settings import Settings

_SHOWN = 20
_AT_ONCE = 1000
_ANNOUNCING_S = 120


def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Have what differs announced again; the consumers must be running.")
    ] = False,
    settle_s: Annotated[
        float, typer.Option(min=0, help="Seconds after which a difference that still stands is no news on its way.")
    ] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for machines.")] = False,
) -> None:
    """Check that every live asset and every user's version in the database is what the topics say. 1: it is not.

    To be run after a restore of PostgreSQL or Kafka from a backup, or at any time: it only reads, beside running
    consumers. `--repair` raises what differs above everything that was published and notes it as still to be announced:
    first the assets, and when the ingest consumers have announced those, the users, whose recommendations should come
    from the whole index. What only waits for a consumer is reported and left to it. Takes 0.5 KB of memory an asset.
    """
    settings = Settings()
    console = Console(soft_wrap=True)
    truth = assemble.ownership(settings)
    try:
        truth.check()
        with Console(stderr=True).status("reading asset-embedded, recommendations and the database"):
            audit = _audit(settings, truth, settle_s)
        if repair and audit:
            with Console(stderr=True).status("having it announced again, assets before users"):
                _repair(truth, audit, settle_s)
    finally:
        truth.close()
    if json:
        console.print_json(data=_summary(audit, repair))
    else:
        if audit:
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
    if not audit.live_assets and truth.other_model():
        raise UnavailableError(oversight.nothing_live(settings, truth))
    if audit.users_that_differ and oversight.refresh_lag(settings):
        for user_id, difference in audit.users_that_differ.items():
            if difference.how == NOT_PUBLISHED:
                audit.users_that_differ[user_id] = difference._replace(how=TO_BE_REFRESHED)
    return audit


def _repair(truth: PostgresOwnership, audit: Audit, settle_s: float) -> None:
    """In batches; what is noted twice, as after an interruption, is announced twice and harms nobody."""
    assets = {asset_id: of.published for asset_id, of in audit.assets_that_differ.items() if of.how not in WAITING}
    users = {user_id: of.published for user_id, of in audit.users_that_differ.items() if of.how not in WAITING}
    for asset_id in assets:
        for user_id in audit.assets_that_differ[asset_id].user_ids:
            users.setdefault(user_id, 0)
    for batch in _batches(assets):
        truth.announce_again(batch, {}, _now_ms())
    if assets:
        _wait_announced(truth, frozenset(assets))
        time.sleep(settle_s)  # the recommenders apply them within moments
    for batch in _batches(users):
        truth.announce_again({}, batch, _now_ms())


def _wait_announced(truth: PostgresOwnership, asset_ids: frozenset[str]) -> None:
    """Raises `UnavailableError` where nobody announces them."""
    left = len(asset_ids)
    deadline_s = time.monotonic() + _ANNOUNCING_S
    while waiting := len(asset_ids & truth.unannounced_assets()):
        if waiting < left:
            left, deadline_s = waiting, time.monotonic() + _ANNOUNCING_S
        if time.monotonic() > deadline_s:
            raise UnavailableError(
                f"{waiting} assets wait to be announced and nobody does: start the ingest consumers, then run "
                "`zccr-stream verify --repair` again for the users"
            )
        time.sleep(0.5)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _batches(numbers: dict[str, int]) -> list[dict[str, int]]:
    ordered = sorted(numbers.items())
    return [dict(ordered[first : first + _AT_ONCE]) for first in range(0, len(ordered), _AT_ONCE)]


def _differences(audit: Audit) -> list[tuple[str, str, Difference]]:
    return [
        (kind, identifier, difference)
        for kind, differences in (("asset", audit.assets_that_differ), ("user", audit.users_that_differ))
        for identifier, difference in sorted(differences.items())
    ]


def _table(audit: Audit) -> Table:
    table = Table("what", "id", "published revision or version", "difference")
    for kind, identifier, difference in _differences(audit)[:_SHOWN]:
        table.add_row(kind, shown(identifier), str(difference.published), difference.how)
    return table


def _sentence(audit: Audit, repaired: bool) -> str:
    said = f"{audit.live_assets:,} live assets and {audit.users:,} users compared"
    if not audit:
        return f"{said}: all agree"
    kinds = Counter((kind, difference.how) for kind, _, difference in _differences(audit))
    lines = [said, *(f"  {count:,} x {kind}: {how}" for (kind, how), count in kinds.items())]
    if repaired:
        lines.append("noted: the consumers announce and refresh them now")
    elif any(how not in WAITING for _, how in kinds):
        lines.append("`zccr-stream verify --repair` has them announced again")
    else:
        lines.append("are the consumers running? `zccr-stream status` says how far they are")
    return "\n".join(lines)


def _summary(audit: Audit, repaired: bool) -> dict[str, Any]:
    return {
        "live_assets": audit.live_assets,
        "users": audit.users,
        "repaired": repaired and bool(audit),
        "differences": [
            {"what": kind, "id": identifier, "published": difference.published, "difference": difference.how}
            for kind, identifier, difference in _differences(audit)
        ],
    }
