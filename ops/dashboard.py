"""The Grafana dashboard, laid out as the journey runs; `python ops/dashboard.py` writes its JSON.

Nothing comes in but this text; out goes `ops/grafana/dashboards/zccr-stream.json`. It obeys the rules of Grafana's
dashboard-linter: every query is bound to the chosen data source, jobs and instances, every panel has a description
and a unit, and every rate spans `$__rate_interval`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PATH = Path(__file__).parent / "grafana" / "dashboards" / "zccr-stream.json"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
OLDEST = 'generation="2"'
REFRESH = "profile|areas|search|rank|publish"
PRODUCTION, RECALL, PLACES = 'feed="production"', 'measure="recall"', 'length="20"'


@dataclass(frozen=True)
class Query:
    """One line or group of lines of a panel."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """What a panel shows; `width` is in 24ths of the page."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int = 8
    stacked: bool = False


def pick(name: str, *matchers: str) -> str:
    """Select a metric of the chosen jobs and instances."""
    chosen = ", ".join(['job=~"$job"', 'instance=~"$instance"', *matchers])
    return f"{name}{{{chosen}}}"


def rate(name: str, *matchers: str) -> str:
    """Give a counter's rise per second."""
    return f"rate({pick(name, *matchers)}[$__rate_interval])"


def quantile(share: float, name: str, by: str = "", *matchers: str) -> str:
    """Estimate a quantile of a histogram over all instances, per label `by`."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) ({rate(f'{name}_bucket', *matchers)}))"


def quantiles(name: str, by: str = "", *matchers: str) -> tuple[Query, ...]:
    """Show the median and the 99th percentile."""
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(Query(quantile(share, name, by, *matchers), f"{legend}p{share * 100:g}") for share in (0.5, 0.99))


def age(name: str) -> str:
    """Give the seconds since a time stamp; no line where it is 0, that is, never set."""
    return f"time() - max by (job, instance) ({pick(name)} > 0)"


def stages(names: str) -> str:
    """Match stages."""
    return f'stage=~"{names}"'


def items(names: str) -> tuple[Query, ...]:
    """Show what enters and what leaves stages, per second."""
    return (
        Query(f"sum by (stage) ({rate('zccr_stage_items_in_total', stages(names))})", "{{stage}} in"),
        Query(f"sum by (stage) ({rate('zccr_stage_items_out_total', stages(names))})", "{{stage}} out"),
    )


def failures(names: str) -> tuple[Query, ...]:
    """Show what fails in stages, per second and reason."""
    by_reason = f"sum by (stage, reason) ({rate('zccr_stage_failures_total', stages(names))})"
    return (Query(by_reason, "{{stage}} {{reason}}"),)


AT_A_GLANCE = (
    Panel(
        "Event to recommendation, median",
        "Half of the refreshes were published within this time of the arrival of the oldest event behind them.",
        "s",
        (Query(quantile(0.5, "zccr_event_to_recommendation_seconds")),),
        4,
    ),
    Panel(
        "Event to recommendation, p99",
        "All but one in a hundred refreshes were published within this time.",
        "s",
        (Query(quantile(0.99, "zccr_event_to_recommendation_seconds")),),
        4,
    ),
    Panel(
        "Ready",
        "Consumers that are ready, of all that are scraped. Ready: a recommender has caught up with its index, an "
        "ingest consumer has its encoder and its partitions.",
        "short",
        (Query(f"sum({pick('zccr_ready')})", "ready"), Query(f"count({pick('zccr_ready')})", "of")),
        4,
    ),
    Panel(
        "Lag",
        "Messages that wait in the partitions that the consumers hold.",
        "short",
        (Query(f"sum({pick('zccr_consumer_lag_messages')})"),),
        4,
    ),
    Panel(
        "Dead letters",
        "Records set aside within the time range shown.",
        "short",
        (Query(f"sum(increase({pick('zccr_dead_letters_total')}[$__range]))"),),
        4,
    ),
    Panel(
        "Refreshes",
        "Recommendations published per second.",
        "ops",
        (Query(f"sum({rate('zccr_stage_items_out_total', stages('publish'))})"),),
        4,
    ),
)

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Freshness",
        (
            Panel(
                "From an event to its recommendations",
                "Time from the arrival of the oldest event behind a refresh to the delivery of its recommendations. "
                "This is what users feel; the rows below say where it goes.",
                "s",
                quantiles("zccr_event_to_recommendation_seconds"),
                12,
            ),
            Panel(
                "Where the time goes",
                "Seconds per second spent in each stage, over all processes: the tallest band is the stage to speed "
                "up or to give more replicas.",
                "short",
                (Query(f"sum by (stage) ({rate('zccr_stage_duration_seconds_sum')})", "{{stage}}"),),
                12,
                stacked=True,
            ),
        ),
    ),
    (
        "Events in",
        (
            Panel(
                "Records consumed",
                "Records per second, by topic.",
                "ops",
                (Query(f"sum by (topic) ({rate('zccr_consumer_records_total')})", "{{topic}}"),),
            ),
            Panel(
                "Lag by topic",
                "Messages between the consumers' positions and the ends of the partitions they hold, and the partition "
                "that is furthest behind.",
                "short",
                (
                    Query(f"sum by (topic) ({pick('zccr_consumer_lag_messages')})", "{{topic}}"),
                    Query(f"max by (topic) ({pick('zccr_consumer_lag_messages')})", "{{topic}} worst partition"),
                ),
            ),
            Panel(
                "Records per batch",
                "How full the batches are: full ones mean that work arrives faster than it is done.",
                "short",
                quantiles("zccr_consumer_batch_records", "job"),
            ),
            Panel("Parsed and fetched", "Events and contents per second.", "ops", items("parse|fetch")),
            Panel(
                "Time to parse and to fetch",
                "Per batch; contents of a batch are fetched side by side, so the slowest one counts.",
                "s",
                quantiles("zccr_stage_duration_seconds", "stage", stages("parse|fetch")),
            ),
            Panel(
                "Failed by reason",
                "bad_input can never succeed; try_later is tried again; dead_letter ran out of attempts; error is a "
                "fault of ours.",
                "ops",
                failures(".+"),
            ),
            Panel(
                "Dead letters by topic and stage",
                "Records set aside per second. They stand in `<topic>.dlq`, each with what was wrong in its headers.",
                "ops",
                (Query(f"sum by (topic, stage) ({rate('zccr_dead_letters_total')})", "{{topic}} {{stage}}"),),
            ),
            Panel(
                "Tried again",
                "Events per second that failed in a way that may pass.",
                "ops",
                (Query(f"sum by (stage) ({rate('zccr_retries_total')})", "{{stage}}"),),
            ),
            Panel(
                "Rebalances",
                "Changes of the assignment per second. `lost` means that a consumer was thought dead.",
                "ops",
                (Query(f"sum by (job, kind) ({rate('zccr_consumer_rebalances_total')})", "{{job}} {{kind}}"),),
            ),
        ),
    ),
    (
        "Encode",
        (
            Panel("Encoded", "Contents per second.", "ops", items("encode"), 6),
            Panel(
                "Time to encode",
                "Per batch of one modality.",
                "s",
                quantiles("zccr_stage_duration_seconds", "", stages("encode")),
                6,
            ),
            Panel(
                "Contents per batch",
                "Small batches waste a GPU.",
                "short",
                quantiles("zccr_stage_batch_items", "", stages("encode")),
                6,
            ),
            Panel(
                "Busy encoding",
                "Share of the time that each encoder works; near 100 % it is the bottleneck.",
                "percentunit",
                (
                    Query(
                        f"sum by (instance) ({rate('zccr_stage_duration_seconds_sum', stages('encode'))})",
                        "{{instance}}",
                    ),
                ),
                6,
            ),
        ),
    ),
    (
        "Truth",
        (
            Panel(
                "Written and announced",
                "Events written to PostgreSQL, and changed assets and users announced, per second.",
                "ops",
                items("own|announce"),
            ),
            Panel(
                "Time to write and to announce",
                "Per batch: one transaction, one delivery.",
                "s",
                quantiles("zccr_stage_duration_seconds", "stage", stages("own|announce")),
            ),
            Panel(
                "Transactions tried again",
                "Per second: serialisation failures, dead-locks and lost connections.",
                "ops",
                (Query(f"sum by (job) ({rate('zccr_database_retries_total')})", "{{job}}"),),
            ),
            Panel(
                "Changes not announced",
                "Committed, but not yet published. Normally those of the batches in hand; the sweep publishes what a "
                "crash left.",
                "short",
                (Query(f"max({pick('zccr_unannounced_marks')})", "changes"),),
                12,
            ),
            Panel(
                "Age of the oldest change not announced",
                "Older than the sweep's interval means that the sweep does not get through.",
                "s",
                (Query(f"time() - min({pick('zccr_unannounced_oldest_timestamp_seconds')} > 0)", "oldest"),),
                12,
            ),
        ),
    ),
    (
        "Index",
        (
            Panel(
                "Vectors",
                "Vectors in each replica's index, by modality; replicas that have caught up agree.",
                "short",
                (Query(f"max by (modality, instance) ({pick('zccr_index_vectors')})", "{{modality}} {{instance}}"),),
            ),
            Panel(
                "Behind",
                "Messages of asset-embedded that a replica has not applied yet.",
                "short",
                (Query(f"max by (instance) ({pick('zccr_index_behind_messages')})", "{{instance}}"),),
            ),
            Panel("Applied", "Embeddings applied to the indexes per second.", "ops", items("apply")),
            Panel(
                "Time to apply",
                "Per batch.",
                "s",
                quantiles("zccr_stage_duration_seconds", "", stages("apply")),
            ),
            Panel(
                "Age of the snapshot",
                "Since the newest snapshot of each replica. A restart reads on from there.",
                "s",
                (Query(age("zccr_snapshot_timestamp_seconds"), "{{instance}}"),),
            ),
            Panel(
                "Size of the snapshot",
                "On disk.",
                "bytes",
                (Query(f"max by (instance) ({pick('zccr_snapshot_size_bytes')})", "{{instance}}"),),
            ),
        ),
    ),
    (
        "Refresh",
        (
            Panel("Refreshed", "Profiles (seeds, where searched) per second, by stage.", "ops", items(REFRESH), 12),
            Panel(
                "Time by stage",
                "Per batch of profiles.",
                "s",
                quantiles("zccr_stage_duration_seconds", "stage", stages(REFRESH)),
                12,
            ),
            Panel(
                "Messages published",
                "Deliveries confirmed per second, by topic.",
                "ops",
                (Query(f"sum by (topic) ({rate('zccr_published_messages_total')})", "{{topic}}"),),
            ),
            Panel(
                "Areas per profile",
                "Areas of interest found, by modality.",
                "short",
                quantiles("zccr_profile_areas", "modality"),
            ),
            Panel(
                "Short lists",
                "Share of the lists with fewer than k assets, by target modality: the index holds too little.",
                "percentunit",
                (
                    Query(
                        f"sum by (modality) ({rate('zccr_short_lists_total')}) "
                        f"/ sum by (modality) ({rate('zccr_lists_total')})",
                        "{{modality}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "Evaluation",
        (
            Panel(
                "Recall by length of the feed",
                "What `zccr-stream evaluate` held out of profiles and found in the first places of production's feed. "
                "Low by nature: only what a user uploaded counts as right. Compare nights, not products.",
                "percentunit",
                (
                    Query(
                        f"max by (length) ({pick('zccr_evaluation_mean', PRODUCTION, RECALL)})",
                        "first {{length}}",
                    ),
                    Query(
                        f"max by (length) ({pick('zccr_evaluation_half_width', PRODUCTION, RECALL)})",
                        "± first {{length}}",
                    ),
                ),
            ),
            Panel(
                "Recall beside other feeds",
                "In the first 20 places: production, one area a user, one area an asset, and drawn by chance.",
                "percentunit",
                (Query(f"max by (feed) ({pick('zccr_evaluation_mean', RECALL, PLACES)})", "{{feed}}"),),
            ),
            Panel(
                "Lead in recall",
                "Production's recall less that of other feeds in the first 20 places, and half of its 95 % interval. "
                "A lead below its ± tells nothing.",
                "percentunit",
                (
                    Query(f"max by (over) ({pick('zccr_evaluation_lead', PLACES)})", "over {{over}}"),
                    Query(f"max by (over) ({pick('zccr_evaluation_lead_half_width', PLACES)})", "± over {{over}}"),
                ),
            ),
            Panel(
                "What the feed shows",
                "Means over users in the first 20 places of production's feed; distinct is near 0 where all users are "
                "shown the same.",
                "percentunit",
                (
                    Query(
                        f"max by (measure) ({pick('zccr_evaluation_mean', PRODUCTION, PLACES)})",
                        "{{measure}}",
                    ),
                    Query(f"max ({pick('zccr_evaluation_distinct', PRODUCTION, PLACES)})", "distinct"),
                    Query(f"max ({pick('zccr_evaluation_repeats')})", "held-out near-duplicates"),
                ),
            ),
            Panel(
                "What was measured",
                "Users, assets held out, and assets searched. Few users mean wide intervals.",
                "short",
                (
                    Query(f"max ({pick('zccr_evaluation_users')})", "users"),
                    Query(f"max ({pick('zccr_evaluation_held_out_assets')})", "held out"),
                    Query(f"max by (modality) ({pick('zccr_evaluation_assets')})", "{{modality}} searched"),
                ),
            ),
            Panel(
                "Since the last evaluation",
                "That came to its end.",
                "s",
                (Query(age("zccr_evaluation_last_success_timestamp_seconds"), "{{job}}"),),
            ),
        ),
    ),
    (
        "Process",
        (
            Panel(
                "CPU",
                "Cores in use.",
                "short",
                (Query(f"sum by (job, instance) ({rate('process_cpu_seconds_total')})", "{{job}} {{instance}}"),),
            ),
            Panel(
                "Memory",
                "Resident.",
                "bytes",
                (
                    Query(
                        f"max by (job, instance) ({pick('process_resident_memory_bytes')})",
                        "{{job}} {{instance}}",
                    ),
                ),
            ),
            Panel(
                "Garbage collections",
                "Per second, of the oldest generation: those that walk everything.",
                "ops",
                (
                    Query(
                        f"sum by (job, instance) ({rate('python_gc_collections_total', OLDEST)})",
                        "{{job}} {{instance}}",
                    ),
                ),
            ),
            Panel(
                "Heartbeat",
                "Since the poll loop last went round; /livez fails when it is too old.",
                "s",
                (Query(age("zccr_heartbeat_timestamp_seconds"), "{{job}} {{instance}}"),),
            ),
            Panel(
                "Items in hand",
                "Inside a stage now.",
                "short",
                (Query(f"sum by (job, stage) ({pick('zccr_stage_items_in_progress')})", "{{job}} {{stage}}"),),
            ),
            Panel(
                "Since a stage last ended well",
                "A stage that stands still while there is lag is stuck.",
                "s",
                (
                    Query(
                        f"time() - max by (stage) ({pick('zccr_stage_last_processed_timestamp_seconds')} > 0)",
                        "{{stage}}",
                    ),
                ),
            ),
        ),
    ),
)

RUNNING = Panel(
    "What is running",
    "Version, model and encoder of each process, and by which settings the last evaluation went.",
    "none",
    (
        Query(pick("zccr_build_info")),
        Query(pick("zccr_model_info")),
        Query(pick("zccr_encoder_info")),
        Query(pick("zccr_evaluation_info")),
    ),
    24,
)


def _target(query: Query, ref: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref).datasource(SOURCE)


def _refs(panel: Panel) -> list[tuple[Query, str]]:
    return list(zip(panel.queries, "ABCDEFGH", strict=False))


def _stat(panel: Panel) -> stat.Panel:
    built = (
        stat.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(panel.width)
        .height(4)
        .color_mode(looks.BigValueColorMode.NONE)
        .graph_mode(looks.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .decimals({"s": 2, "ops": 1}.get(panel.unit, 0))
        .no_value("none yet")
    )
    for query, ref in _refs(panel):
        built.with_target(_target(query, ref))
    return built


def _chart(panel: Panel) -> timeseries.Panel:
    mode = looks.StackingMode.NORMAL if panel.stacked else looks.StackingMode.NONE
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(panel.width)
        .height(8)
        .min(0)
        .fill_opacity(40 if panel.stacked else 10)
        .stacking(common.StackingConfig().mode(mode))
        .show_points(looks.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(looks.LegendDisplayMode.LIST)
            .placement(looks.LegendPlacement.BOTTOM)
        )
    )
    for query, ref in _refs(panel):
        built.with_target(_target(query, ref))
    return built


def _table(panel: Panel) -> table.Panel:
    hidden = dict.fromkeys(["Time", "Value #A", "Value #B", "Value #C", "__name__"], True)
    built = (
        table.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(panel.width)
        .height(6)
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden}))
    )
    for query, ref in _refs(panel):
        built.with_target(_target(query, ref).instant().format(PromQueryFormat.TABLE))
    return built


def _choice(name: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(name.title())
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def build() -> models.Dashboard:
    """Build the dashboard from the panels above."""
    built = (
        builders.Dashboard("zccr-stream")
        .uid("zccr-stream")
        .description("From an upload event to its owner's refreshed recommendations, as the journey runs.")
        .tags(["zccr"])
        .readonly()
        .refresh("10s")
        .time("now-30m", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_choice("job", "label_values(zccr_ready, job)"))
        .with_variable(_choice("instance", 'label_values(zccr_ready{job=~"$job"}, instance)'))
        .with_row(builders.Row("At a glance"))
    )
    for panel in AT_A_GLANCE:
        built.with_panel(_stat(panel))
    for title, panels in ROWS:
        built.with_row(builders.Row(title))
        for panel in panels:
            built.with_panel(_chart(panel))
    dashboard = built.with_panel(_table(RUNNING)).build()
    for number, placed in enumerate(dashboard.panels or [], start=1):
        placed.id_val = number
    return dashboard


def dump() -> str:
    """Give the dashboard's JSON."""
    return str(JSONEncoder(sort_keys=True, indent=1).encode(build())) + "\n"


if __name__ == "__main__":
    PATH.write_text(dump())
