"""Where metrics are registered: one registry, with the process's own metrics in it."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

# A start time per series would double their number and no panel needs it.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


def counter(name: str, help_text: str, *labels: str) -> Counter:
    """Declare what only grows."""
    return Counter(name, help_text, labels, registry=REGISTRY)


def gauge(name: str, help_text: str, *labels: str) -> Gauge:
    """Declare what goes up and down."""
    return Gauge(name, help_text, labels, registry=REGISTRY)


def histogram(name: str, help_text: str, buckets: Sequence[float], *labels: str) -> Histogram:
    """Declare what is spread; `buckets` are upper bounds in the unit of the name."""
    return Histogram(name, help_text, labels, buckets=buckets, registry=REGISTRY)
