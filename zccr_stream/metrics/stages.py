"""The one timing seam of each step: what enters a stage leaves it well or fails, and how long that took."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from zccr_stream.metrics.registry import counter, gauge, histogram

STAGES = (
    "parse",  # records to events
    "fetch",  # fetch and decode content
    "encode",  # content to vectors
    "own",  # write to Postgres
    "announce",  # publish what changed
    "profile",  # read profiles from Postgres
    "areas",  # profiles to areas of interest
    "search",  # seeds to neighbours
    "rank",  # neighbours to rankings and a feed
    "publish",  # publish recommendations
    "apply",  # embeddings into the index
)
REASONS = (
    "bad_input",  # can never succeed
    "try_later",  # may succeed later
    "dead_letter",  # could have succeeded, but the attempts ran out
    "error",  # our own fault
    "stopped",  # the process was asked to stop meanwhile
)

# The stage an error names may be finer than the seam it happened in.
_SEAMS = {**{name: name for name in STAGES}, "decode": "fetch"}
# The events stand above this module, so their errors are known here by name only.
_REASONS_BY_ERROR = {"BadInputError": "bad_input", "TryLaterError": "try_later"}

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)

_in = counter("zccr_stage_items_in_total", "Items that entered a stage.", "stage")
_out = counter("zccr_stage_items_out_total", "Items that left a stage well.", "stage")
_failures = counter("zccr_stage_failures_total", "Items that failed in a stage.", "stage", "reason")
_progress = gauge("zccr_stage_items_in_progress", "Items inside a stage now.", "stage")
_last = gauge("zccr_stage_last_processed_timestamp_seconds", "When a stage last ended well; 0 before.", "stage")
_duration = histogram("zccr_stage_duration_seconds", "Time that one batch spent in a stage.", _SECONDS, "stage")
_batch = histogram("zccr_stage_batch_items", "Items in one batch of a stage.", _ITEMS, "stage")
_retries = counter("zccr_retries_total", "Items tried again after a failure that may pass.", "stage")

for _name in STAGES:
    for _family in (_in, _out, _progress, _last, _duration, _batch, _retries):
        _family.labels(_name)
    for _reason in REASONS:
        _failures.labels(_name, _reason)

_inside = threading.local()  # the stages that this thread is in, innermost last


class _Stage:
    """A batch inside a stage, and what was reported of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures = 0


def _stack() -> list[_Stage]:
    if not hasattr(_inside, "stack"):
        _inside.stack = []
    return _inside.stack  # type: ignore[no-any-return]


@contextlib.contextmanager
def stage(name: str, items: int) -> Iterator[None]:
    """Time one step for a batch of `items`.

    What enters leaves well or fails. Items reported with `failed` inside the block, in the same thread,
    failed; the rest of them left well when the block ends, and failed too when it raises.

    Args:
        name: one of `STAGES`.
        items: how many enter.
    """
    if name not in STAGES:
        raise ValueError(f"no stage {name!r}; the stages are {', '.join(STAGES)}")
    batch = _Stage(name)
    _in.labels(name).inc(items)
    _progress.labels(name).inc(items)
    _stack().append(batch)
    started_s = time.perf_counter()
    try:
        yield
    except BaseException as error:
        left = items - batch.failures
        if left > 0:
            failed(name, _reason_of(error), left)
        raise
    else:
        _out.labels(name).inc(max(0, items - batch.failures))
        _last.labels(name).set_to_current_time()
    finally:
        if items:  # batches of nothing would make every quantile look good
            _batch.labels(name).observe(items)
            _duration.labels(name).observe(time.perf_counter() - started_s)
        _progress.labels(name).dec(items)
        _stack().remove(batch)


def _reason_of(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return "stopped"
    for cls in type(error).__mro__:
        if cls.__name__ in _REASONS_BY_ERROR:
            return _REASONS_BY_ERROR[cls.__name__]
    return "error"


def failed(stage: str, reason: str, items: int = 1) -> None:
    """Count items that failed in a stage (one of `STAGES`, or `decode`) for one of `REASONS`."""
    if stage not in _SEAMS or reason not in REASONS:
        raise ValueError(f"no stage {stage!r} or no reason {reason!r}; the reasons are {', '.join(REASONS)}")
    seam = _SEAMS[stage]
    _failures.labels(seam, reason).inc(items)
    for batch in reversed(_stack()):
        if batch.name == seam:
            batch.failures += items
            return


def retried(stage: str, items: int = 1) -> None:
    """Count items that are tried again."""
    if stage not in _SEAMS:
        raise ValueError(f"no stage {stage!r}; the stages are {', '.join(STAGES)}")
    _retries.labels(_SEAMS[stage]).inc(items)
