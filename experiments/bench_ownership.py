"""What the truth costs: writing and announcing batches, reading profiles, beside a plain INSERT of the same bytes.

Run `python -m experiments.bench_ownership [--json]`. It takes the PostgreSQL that `ZCCR_DATABASE_URL` names, else an
embedded one (nothing synced to disk), in a database of its own. Every figure is a median over rounds in which the cases
take turns, so that a busy machine slows all of them alike; the ratios are what to compare.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from zccr_stream.embedded import Embedded
from zccr_stream.events import AssetUploaded
from zccr_stream.ownership import PostgresOwnership, migrate
from zccr_stream.parts import Touched, Writes

MODEL = "ViT-B-32/laion2b_s34b_b79k"
DIMENSION = 512
BATCHES = (64, 256)
PROFILE_SIZE = 1000
OTHERS = 20_000  # assets that are there already
OTHER_USERS = 200


@dataclass(frozen=True)
class Figure:
    """One line of the table: microseconds per event or asset, and how many plain INSERTs of a row that is."""

    case: str
    us: float
    inserts: float


class Held:
    """Every vector at hand, or none."""

    def __init__(self, share: float) -> None:
        self._share = share

    def vectors(
        self, asset_ids: Sequence[str], revisions: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float16]]:
        """The first share of what is asked for."""
        held = np.arange(len(asset_ids)) < self._share * len(asset_ids)
        return held, np.zeros((len(asset_ids), DIMENSION), np.float16)


def uploads(asset_ids: Sequence[str], users: int, at: int) -> Writes:
    """One upload each, by some of so many users."""
    vectors = np.random.default_rng(at).standard_normal((len(asset_ids), DIMENSION)).astype(np.float16)
    events = [
        AssetUploaded(str(uuid.uuid4()), at, 0, asset_id, f"user-{n % users}", "image", uri="data:,")
        for n, asset_id in enumerate(asset_ids)
    ]
    return Writes(MODEL, events, vectors)


def names(n: int) -> list[str]:
    """Fresh ids of assets."""
    return [str(uuid.uuid4()) for _ in range(n)]


def timed_us(work: Callable[[], object], n: int) -> float:
    """Microseconds per item of n."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) / n * 1e6


plain = sa.Table(
    "plain",
    sa.MetaData(),
    sa.Column("asset_id", sa.Text, primary_key=True),
    *(sa.Column(name, sa.Text) for name in ("user_id", "modality", "model", "event_id")),
    *(sa.Column(name, sa.BigInteger) for name in ("occurred_at_ns", "revision")),
    sa.Column("deleted", sa.Boolean),
    *(sa.Column(name, sa.LargeBinary) for name in ("tie_break", "embedding")),
)


def insert_plainly(engine: sa.Engine, writes: Writes) -> None:
    """The same columns and bytes by an INSERT as SQLAlchemy makes it, in one transaction; no register, no marks."""
    rows = [
        {
            "asset_id": upload.asset_id,
            "user_id": upload.user_id,
            "modality": upload.modality,
            "model": MODEL,
            "event_id": upload.event_id,
            "occurred_at_ns": upload.occurred_at_ns,
            "tie_break": bytes(32),
            "revision": 1,
            "deleted": False,
            "embedding": vector.tobytes(),
        }
        for upload, vector in zip(writes.uploads, writes.vectors, strict=True)
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(plain), rows)


def announce(ownership: PostgresOwnership, touched: Touched) -> None:
    """Everything but the publishing itself."""
    with ownership.announcing(touched.asset_ids, touched.user_ids):
        pass


def write_costs(ownership: PostgresOwnership, engine: sa.Engine, size: int) -> dict[str, float]:
    """One round: what an event costs in batches of this size."""
    asset_ids = names(size)
    new, newer = uploads(asset_ids, OTHER_USERS, at=1), uploads(asset_ids, OTHER_USERS, at=2)
    touched: list[Touched] = []
    return {
        "plain INSERT": timed_us(lambda: insert_plainly(engine, new), size),
        "write, new": timed_us(lambda: touched.append(ownership.write(new)), size),
        "announce": timed_us(lambda: announce(ownership, touched[0]), size),
        "write, replaced": timed_us(lambda: touched.append(ownership.write(newer)), size),
        "announce, replaced": timed_us(lambda: announce(ownership, touched[1]), size),
        "write, delivered again": timed_us(lambda: ownership.write(newer), size),
        "standing": timed_us(lambda: ownership.standing(newer.uploads), size),
    }


def read_costs(ownership: PostgresOwnership, engine: sa.Engine) -> dict[str, float]:
    """One round: what an asset costs when profiles are read."""
    ten = [f"reader-{n}" for n in range(10)]
    written = uploads(names(PROFILE_SIZE), 1, at=1)
    costs = {"plain INSERT": timed_us(lambda: insert_plainly(engine, written), PROFILE_SIZE)}
    for users in (1, 10):
        for label, share in (("none", 0.0), ("99 %", 0.99), ("all", 1.0)):
            read = functools.partial(ownership.profiles, ten[:users], Held(share))
            costs[f"{users} x {PROFILE_SIZE}, {label} held"] = timed_us(read, users * PROFILE_SIZE)
    return costs


def measure(rounds: int, work: Callable[[], dict[str, float]], label: str) -> list[Figure]:
    """Medians over rounds, after one that warms up."""
    work()
    results = [work() for _ in range(rounds)]
    medians = {case: statistics.median(result[case] for result in results) for case in results[0]}
    insert_us = medians["plain INSERT"]
    return [Figure(f"{label}: {case}", us, us / insert_us) for case, us in medians.items()]


def benchmark(database_url: str, rounds: int) -> list[Figure]:
    """All figures, in a database that is empty."""
    migrate(database_url)
    engine = sa.create_engine(database_url)
    plain.create(engine)
    ownership = PostgresOwnership(
        database_url,
        model=MODEL,
        dimension=DIMENSION,
        pool_size=1,
        connect_timeout_s=10,
        statement_timeout_ms=60_000,
        lock_timeout_ms=60_000,
        idle_timeout_ms=60_000,
        attempts_max=1,
    )
    for n in range(10):
        reader = uploads(names(PROFILE_SIZE), 1, at=1)
        owned = [AssetUploaded(u.event_id, 1, 0, u.asset_id, f"reader-{n}", "image", uri="") for u in reader.uploads]
        announce(ownership, ownership.write(Writes(MODEL, owned, reader.vectors)))
        announce(ownership, ownership.write(uploads(names(OTHERS // 10), OTHER_USERS, at=1)))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    figures: list[Figure] = []
    for size in BATCHES:
        figures += measure(rounds, functools.partial(write_costs, ownership, engine, size), f"batches of {size}")
    figures += measure(rounds, functools.partial(read_costs, ownership, engine), "profiles")
    ownership.close()
    engine.dispose()
    return figures


@contextlib.contextmanager
def empty_database() -> Iterator[str]:
    """A database of the benchmark's own."""
    with contextlib.ExitStack() as stack:
        server = os.environ.get("ZCCR_DATABASE_URL") or stack.enter_context(Embedded(kafka=False)).database_url
        name = f"zccr_bench_{uuid.uuid4().hex[:12]}"
        outside = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with outside.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template0")
        yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
        with outside.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    arguments = parser.parse_args()
    with empty_database() as database_url:
        figures = benchmark(database_url, arguments.rounds)
    if arguments.json:
        print(json.dumps({figure.case: {"us": figure.us, "inserts": figure.inserts} for figure in figures}))
        return
    print(f"{'case':<44}{'us an event or asset':>22}{'x plain INSERT':>16}")
    for figure in figures:
        print(f"{figure.case:<44}{figure.us:>22.1f}{figure.inserts:>16.2f}")


if __name__ == "__main__":
    main()
