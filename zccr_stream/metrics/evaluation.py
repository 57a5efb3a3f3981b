"""What an evaluation exports, in a registry of its own.

It is pushed or written by a job that ends. The consumers' registry would go with it and say that a consumer is not
ready.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryFile
from urllib.error import HTTPError
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Gauge, Info, push_to_gateway, write_to_textfile

EVALUATION = CollectorRegistry(auto_describe=True)

JOB = "zccr-evaluate"
_INSTANCE = "evaluate"  # the same from every pod: another name each night would leave the old nights standing
_PUSH_TIMEOUT_S = 30


def _gauge(name: str, help_text: str, *labels: str) -> Gauge:
    return Gauge(name, help_text, labels, registry=EVALUATION)


_mean = _gauge("zccr_evaluation_mean", "Mean of a measure over the sampled users.", "feed", "length", "measure")
_half_width = _gauge(
    "zccr_evaluation_half_width", "Half of the mean's 95 % confidence interval.", "feed", "length", "measure"
)
_lead = _gauge("zccr_evaluation_lead", "Recall of production's feed less that of another.", "over", "length")
_lead_half_width = _gauge(
    "zccr_evaluation_lead_half_width", "Half of the lead's 95 % confidence interval.", "over", "length"
)
_distinct = _gauge("zccr_evaluation_distinct", "Different assets shown over the most possible.", "feed", "length")
_users = _gauge("zccr_evaluation_users", "Users measured.")
_held_out = _gauge("zccr_evaluation_held_out_assets", "Assets held out, to be found.")
_assets = _gauge("zccr_evaluation_assets", "Assets searched.", "modality")
_repeats = _gauge("zccr_evaluation_repeats", "Share of the held-out assets with a near-duplicate in their profile.")
_info = Info("zccr_evaluation", "Which space was measured, by which settings of areas and feeds.", registry=EVALUATION)
_last_success = _gauge("zccr_evaluation_last_success_timestamp_seconds", "When an evaluation last came to its end.")


class ExportError(Exception):
    """The evaluation's metrics went nowhere; the message says why and what to do."""


def set_evaluated(feed: str, length: int, measure: str, mean: float | None, half_width: float | None) -> None:
    """A measure of one feed's first places; None: it cannot be said, and shows no series."""
    _set(_mean, mean, feed, str(length), measure)
    _set(_half_width, half_width, feed, str(length), measure)


def set_lead(over: str, length: int, mean: float | None, half_width: float | None) -> None:
    """How much more recall production's feed has than another."""
    _set(_lead, mean, over, str(length))
    _set(_lead_half_width, half_width, over, str(length))


def set_distinct(feed: str, length: int, share: float | None) -> None:
    """Different assets shown over the most that so many places could show."""
    _set(_distinct, share, feed, str(length))


def set_sample(users: int, held_out: int, assets: Mapping[str, int], repeats: float | None) -> None:
    """Who was measured, what was to be found and among how much, by modality; how much of it is a near-duplicate."""
    _users.set(users)
    _held_out.set(held_out)
    _repeats.set(math.nan if repeats is None else repeats)
    for modality, size in assets.items():
        _assets.labels(modality).set(size)


def set_evaluation_info(model: str, settings: Mapping[str, object]) -> None:
    """Which space was measured, and by which settings of areas and feeds."""
    _info.info({"model": model, **{name: str(value) for name, value in settings.items()}})


def set_evaluation_success(at_s: float) -> None:
    """When it came to its end, in seconds since 1970."""
    _last_success.set(at_s)


def check_textfile(path: Path) -> None:
    """Refuse a file that node_exporter would not read, or that cannot be written there.

    Raises:
        ExportError: before the work is done and not after it.
    """
    if path.suffix != ".prom":
        raise ExportError(f"{path} does not end in .prom: node_exporter reads no other file")
    try:
        if not path.parent.is_dir():
            raise ExportError(f"{path.parent} is no folder: make it, and give it to --collector.textfile.directory")
        if path.is_dir():
            raise ExportError(f"{path} is a folder; expected a file")
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ExportError(f"cannot write to {path.parent}: {error.strerror or error}") from error


def write_evaluation(path: Path) -> None:
    """Write the metrics to a file that node_exporter's textfile collector reads, whole or not at all.

    Raises:
        ExportError: it cannot be written.
    """
    check_textfile(path)
    try:
        write_to_textfile(str(path), EVALUATION)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error


def check_pushgateway(url: str) -> None:
    """Refuse what is no address of a pushgateway: `http://host:port`, or without the scheme.

    Raises:
        ExportError: before the work is done and not after it.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known or not url.isprintable() or " " in url:
        raise ExportError(f"{url!r} is no address of a pushgateway; expected one as http://pushgateway:9091")


def push_evaluation(url: str) -> None:
    """Push the metrics to a pushgateway, in the place of what was pushed before.

    Raises:
        ExportError: it did not take them.
    """
    try:
        push_to_gateway(url, JOB, EVALUATION, grouping_key={"instance": _INSTANCE}, timeout=_PUSH_TIMEOUT_S)
    except (OSError, ValueError, HTTPException) as error:  # OSError: most of HTTP's and the network's failures as well
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise ExportError(f"the pushgateway {url} did not take the metrics: {error}") from error


def _set(gauge: Gauge, value: float | None, *labels: str) -> None:
    if value is not None:
        gauge.labels(*labels).set(value)
