"""Every metric once: name, labels, help. And /metrics, /livez, /readyz on one port.

registry    where metrics are registered
stages      the one timing seam of each step: items in, out and failed, time, batch size
series      every other metric, and the functions that feed them
evaluation  what a nightly evaluation exports, in a registry of its own
probes      what the probes answer, and the server

In come counts, seconds and sizes from every other module; out goes the Prometheus exposition. Knows nothing of events,
users or assets: no label is unbounded, since topics, partitions, modalities and models come from configuration. One
process is one consumer: no multi-process mode.
"""

from zccr_stream.metrics.evaluation import (
    EVALUATION,
    ExportError,
    check_pushgateway,
    check_textfile,
    push_evaluation,
    set_distinct,
    set_evaluated,
    set_evaluation_info,
    set_evaluation_success,
    set_lead,
    set_sample,
    write_evaluation,
)
from zccr_stream.metrics.probes import Health, ServeError, Server, serve
from zccr_stream.metrics.registry import REGISTRY
from zccr_stream.metrics.series import (
    DEAD_LETTER_STAGES,
    REBALANCES,
    clear_lag,
    consumed,
    count_lists,
    database_retried,
    dead_lettered,
    expect,
    observe_areas,
    observe_batch,
    observe_event_to_recommendation,
    published,
    rebalanced,
    set_build_info,
    set_encoder_info,
    set_index_behind,
    set_index_size,
    set_lag,
    set_marks,
    set_model_info,
    set_snapshot,
)
from zccr_stream.metrics.stages import REASONS, STAGES, failed, retried, stage

__all__ = [
    "DEAD_LETTER_STAGES",
    "EVALUATION",
    "REASONS",
    "REBALANCES",
    "REGISTRY",
    "STAGES",
    "ExportError",
    "Health",
    "ServeError",
    "Server",
    "check_pushgateway",
    "check_textfile",
    "clear_lag",
    "consumed",
    "count_lists",
    "database_retried",
    "dead_lettered",
    "expect",
    "failed",
    "observe_areas",
    "observe_batch",
    "observe_event_to_recommendation",
    "published",
    "push_evaluation",
    "rebalanced",
    "retried",
    "serve",
    "set_build_info",
    "set_distinct",
    "set_encoder_info",
    "set_evaluated",
    "set_evaluation_info",
    "set_evaluation_success",
    "set_index_behind",
    "set_index_size",
    "set_lag",
    "set_lead",
    "set_marks",
    "set_model_info",
    "set_sample",
    "set_snapshot",
    "stage",
    "write_evaluation",
]
