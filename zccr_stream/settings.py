"""Every default once, with its unit and its reason; read once, from `ZCCR_…` environment variables.

Comes in: the environment. Goes out: one frozen `Settings`, which only `assemble.py` and `cli.py` take apart into
plain values. `docs/settings.md` is made from this module (`python -m zccr_stream.settings`).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class Settings(BaseSettings):
    """The settings of a deployment; each has the environment variable `ZCCR_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="ZCCR_", frozen=True, extra="forbid", allow_inf_nan=False)

    # Where things are
    bootstrap_servers: str = Field("localhost:9092", description="Kafka")
    kafka_config: dict[str, Any] = Field(
        default_factory=dict,
        description="JSON of any librdkafka settings (SASL, TLS, …); wins over ours, but for what delivering and "
        "committing rest on (idempotence, delivery time-out, commits)",
        repr=False,
    )
    database_url: str = Field(
        "postgresql+psycopg2://zccr:zccr@localhost:5432/zccr",
        description="SQLAlchemy URL of PostgreSQL",
        repr=False,
    )
    topic_prefix: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]*$",
        max_length=100,
        description="prefix of every topic and consumer group",
    )

    # Encoder
    encoder: str = Field(
        "ViT-B-32/laion2b_s34b_b79k",
        description="`mini`, `<open_clip model>/<pretrained tag or file>`, or `albef/<file>`: a checkpoint of ALBEF as "
        "published, with `vocab.txt` of bert-base-uncased beside it where no hub can be reached",
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto`, `cpu`, `cuda`, `cuda:N`")
    encode_batch_max: Positive = Field(
        64, description="contents per forward pass; more brings little on a CPU, raise it to fill a GPU"
    )

    # Content
    file_root: Path | None = Field(None, description="folder that `file:` URIs must lie under; unset: refused")
    fetch_schemes: frozenset[Literal["data", "file", "http", "https", "s3", "gs"]] = Field(
        frozenset({"data", "file", "http", "https"}),
        description="JSON list of the URI schemes that are read; `s3` and `gs` need the extras of that name",
    )
    fetch_private_networks: tuple[str, ...] = Field(
        (), description="JSON list of networks (CIDR) that may be fetched from although their addresses are private"
    )
    fetch_ca_file: Path | None = Field(None, description="PEM file of authorities for https; unset: certifi's")
    fetch_store_prefixes: tuple[str, ...] = Field(
        (), description="JSON list; an `s3:` or `gs:` URI must start with one of them; empty: whatever may be read"
    )
    fetch_store_options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="JSON; by scheme, what fsspec's file system gets (endpoint, …)", repr=False
    )
    fetch_image_bytes_max: Positive = Field(
        20_000_000, description="bytes of one encoded image; a photo has 2 to 10 MB"
    )
    fetch_text_bytes_max: Positive = Field(1_000_000, description="bytes of one text")
    fetch_redirects_max: int = Field(5, ge=0, description="redirects followed per fetch, each checked anew")
    fetch_connect_timeout_s: float = Field(3, gt=0, description="seconds for one connection attempt")
    fetch_timeout_s: float = Field(10, gt=0, description="seconds for one fetch as a whole, redirects included")
    fetch_batch_timeout_s: float = Field(15, gt=0, description="seconds for a batch; what is not there is tried again")
    fetch_concurrency: Positive = Field(16, description="contents of all batches fetched and decoded side by side")
    image_pixels_max: Positive = Field(50_000_000, description="width x height of one image, checked before decoding")
    image_pixels_in_flight_max: Positive = Field(
        100_000_000, description="pixels decoded at any time over all threads; up to 16 bytes each"
    )
    image_pixels_kept_max: Positive = Field(
        1_048_576, description="pixels kept of one image until it is encoded; encoders take 224 to 384 a side"
    )
    image_side_min_px: Positive = Field(
        448, description="shorter side that JPEGs are decoded to at least; twice what most encoders take"
    )
    text_chars_max: Positive = Field(100_000, description="characters of one text; encoders read its beginning")

    encode_precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="`auto` is fp16 on a GPU, bf16 on a CPU that multiplies it in hardware, else fp32"
    )
    encode_threads_max: Positive = Field(
        8, description="images prepared for the encoder side by side; a GPU needs some 15 cores for that"
    )

    # Processes
    metrics_port: int = Field(9100, ge=0, le=65535, description="port of /metrics, /livez, /readyz; 0 picks a free one")
    metrics_address: str = Field("0.0.0.0", description="address that port is bound to")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe lines to log")
    stop_timeout_s: float = Field(
        20,
        gt=0,
        le=20,
        description="how long a stop may take: four fifths for the batches in hand, the rest for the broker's answers; "
        "the contract gives 25 s to the whole process",
    )

    # Topics, as `zccr-stream topics` makes them
    partitions: Positive = Field(12, description="partitions of each topic: the most processes that share the work")
    replication_factor: int = Field(-1, ge=-1, description="replicas of each topic; -1 takes the broker's default")
    retention_hours: Positive = Field(168, description="hours the input topics and profile-changed keep a record")
    delete_retention_hours: Positive = Field(
        168,
        description="hours a removal stays in asset-embedded; must outlive the oldest snapshot that is used",
    )

    # Batches
    batch_max: Positive = Field(64, description="events per batch of the ingest consumer")
    refresh_batch_max: Positive = Field(64, description="changed profiles per batch of the recommend consumer")
    follow_batch_max: Positive = Field(4096, description="messages of asset-embedded applied to the index at once")
    batch_wait_ms: int = Field(
        10,
        ge=0,
        description="milliseconds a batch that is not full waits for more; bursts fill batches by themselves",
    )
    batches_in_flight: Positive = Field(
        2,
        description="batches worked on at once by ingest: one is fetched and decoded while another is encoded",
    )
    queue_max: Positive = Field(256, description="records read ahead before the partitions are paused")
    waiting_bytes_max: Positive = Field(
        128_000_000, description="bytes of records read ahead or waiting for another try before everything is paused"
    )
    batch_stuck_after_s: Positive = Field(
        120, description="seconds of work on one batch after which the process counts as not ready"
    )

    # Failure
    retry_attempts: Positive = Field(
        5, description="tries of an event that may succeed later, then it is a dead letter"
    )
    retry_backoff_ms: Positive = Field(500, description="milliseconds before the second try; doubles with each")
    retry_backoff_max_ms: Positive = Field(30_000, description="most milliseconds between two tries")
    retries_waiting_max: Positive = Field(
        1000,
        description="events of a partition that may wait for another try before that partition is paused",
    )
    dead_letters_in_a_row_max: Positive = Field(
        1000,
        description="dead letters without a success between them that stop the consumer: a bad deployment "
        "must not drain a topic",
    )
    outage_timeout_s: Positive = Field(
        600, description="seconds that PostgreSQL or Kafka may be away before the consumer stops uncommitted"
    )
    sweep_interval_s: float = Field(5, gt=0, description="seconds between looks for announcements that a crash left")
    sweep_older_than_s: float = Field(
        10, ge=0, description="age in seconds from which an announcement counts as left behind"
    )

    # Kafka group
    group_protocol: Literal["classic", "consumer"] = Field(
        "classic", description="`classic` works with every Kafka; `consumer` is KIP-848 (Kafka 4)"
    )
    session_timeout_ms: Positive = Field(
        45_000,
        description="milliseconds without a heartbeat after which the group gives a process's partitions away",
    )
    max_poll_interval_ms: Positive = Field(
        300_000,
        description="milliseconds without a poll after which a process leaves its group; polls go on during work",
    )
    statistics_interval_ms: Positive = Field(5_000, description="milliseconds between updates of the lag metrics")

    # Database
    database_pool_size: Positive = Field(
        4, description="connections per process: one per batch in flight, sweep, metrics"
    )
    database_statement_timeout_ms: Positive = Field(30_000, description="milliseconds after which a statement is cut")
    database_lock_timeout_ms: Positive = Field(10_000, description="milliseconds a statement waits for a lock")
    database_connect_timeout_s: Positive = Field(5, description="seconds that one attempt to connect may take")
    database_idle_timeout_ms: Positive = Field(
        60_000,
        description="milliseconds that an announcement may hold its locks while it waits for Kafka; longer than the "
        "delivery of a batch, short enough that a process that hangs does not stop the others for long",
    )
    database_attempts_max: Positive = Field(
        10, description="tries of a batch whose rows others wrote meanwhile, before PostgreSQL counts as away"
    )

    # Areas of interest
    area_variance: Share = Field(0.99, description="share of variance that PCA keeps before clustering (paper, 3.2)")
    area_cut: float | None = Field(
        None,
        gt=0,
        description="Ward distance up to which two single assets are one area; unset: calibrated by each modality's "
        "catalogue, so that it needs no choice per encoder; areas that are as close as one are then joined, and assets "
        "settle in the one that is closest (1.1 until the catalogue has 100 assets)",
    )
    area_growth: float = Field(
        0.2,
        ge=0,
        le=0.5,
        description="how an absolute distance grows with n assets, (n / 2) to this power, as Ward's do with size",
    )
    areas_max: Positive = Field(100, description="most areas per modality of one profile, which bounds the message")
    area_sample_size: Positive = Field(
        1000,
        description="assets clustered in full; of larger profiles a sample, the rest joins the nearest area",
    )
    area_seed: Literal["contrast", "centroid", "medoid"] = Field(
        "contrast",
        description="what an area searches with. contrast: what tells its centroid from all assets of the modality, "
        "their linear discriminant (the plain centroid until 256 of these are known); centroid, medoid: as the paper "
        "has them (5.2)",
    )
    area_joint: bool = Field(
        False,
        description="true: areas hold images and texts together, once each modality has 100 assets; an area's "
        "`modality` is that of its representative",
    )

    # Rankings
    k: Positive = Field(10, le=1000, description="recommended assets per area and modality")
    feed_size: Positive = Field(50, description="most items in the feed over all areas")
    near_duplicate: Share = Field(0.97, description="cosine from which two assets count once in the feed")
    scores: Literal["cosine", "calibrated"] = Field(
        "cosine",
        description="what ranks an area's hits. cosine: with its seed; calibrated: that less what is usual for the "
        "seed and for the hit, which can be compared across modalities (the cosine until each modality has 100 assets)",
    )
    feed_merged: bool = Field(
        False,
        description="true: an area's turn in the feed is its best hit's of either modality, not each modality's next; "
        "only with calibrated scores",
    )
    feed_diversity: float = Field(
        0,
        ge=0,
        lt=1,
        description="from 0 to below 1, how much being unlike what the feed shows already counts against the score: .1 "
        "shows a tenth to a third fewer near-duplicates, and somewhat more that is of none of the user's areas",
    )

    profile_assets_max: Positive = Field(
        200_000, description="assets of all profiles read at once; one asset takes about 8 bytes x the dimension"
    )

    # Index
    index_segment_rows: Positive = Field(
        16_384, description="vectors per segment of the index: memory comes and goes in such steps, 32 MB at d = 512"
    )
    index_dead_share_max: Share = Field(
        0.25, description="share of a segment that may be dead before what lives in it moves and the rest is freed"
    )
    snapshot_dir: Path | None = Field(
        None, description="folder of index snapshots; unset: rebuilt from the topic at start"
    )
    snapshot_interval_s: Positive = Field(300, description="seconds between snapshots")
    snapshot_age_max_hours: Positive = Field(
        144,
        description="oldest snapshot that is used; below ZCCR_DELETE_RETENTION_HOURS, so that no removal is missed",
    )

    @field_validator("database_url")
    @classmethod
    def _psycopg2_url(cls, value: str) -> str:
        """Take the common spellings of a PostgreSQL URL."""
        for spelling in ("postgres://", "postgresql://"):
            if value.startswith(spelling):
                return "postgresql+psycopg2://" + value.removeprefix(spelling)
        if not value.startswith("postgresql+psycopg2://"):
            raise ValueError("expected postgresql+psycopg2://user:password@host:port/database")
        return value

    @model_validator(mode="after")
    def _what_is_merged_is_comparable(self) -> Settings:
        if self.feed_merged and self.scores != "calibrated":
            raise ValueError(
                "ZCCR_FEED_MERGED is true; expected ZCCR_SCORES to be calibrated, or texts never stand beside images"
            )
        return self

    @model_validator(mode="after")
    def _snapshots_see_every_removal(self) -> Settings:
        if self.snapshot_age_max_hours >= self.delete_retention_hours:
            raise ValueError(
                f"ZCCR_SNAPSHOT_AGE_MAX_HOURS is {self.snapshot_age_max_hours}; expected less than "
                f"ZCCR_DELETE_RETENTION_HOURS ({self.delete_retention_hours}), or a removal may be missed"
            )
        return self


def explain(error: ValidationError | SettingsError) -> str:
    """Say of settings that cannot be read which environment variable is wrong, a line each; secrets stay unsaid."""
    if isinstance(error, SettingsError):
        field = re.search(r'field "(\w+)"', str(error))
        if field is None:
            return str(error)
        said = "is no JSON" if isinstance(error.__cause__, json.JSONDecodeError) else "cannot be read"
        return f"{_variable(field[1])} {said}: {error.__cause__ or error}"
    return "\n".join(_explain(wrong) for wrong in error.errors(include_url=False))


def _explain(wrong: ErrorDetails) -> str:
    expected = wrong["msg"].removeprefix("Value error, ")
    if not wrong["loc"]:
        return expected
    name, *within = map(str, wrong["loc"])
    variable = ".".join([_variable(name), *within])
    field = Settings.model_fields.get(name)
    given = f" is {str(wrong['input'])[:60]!r}" if field is not None and field.repr else ""
    return f"{variable}{given}: {expected[0].lower()}{expected[1:]}"


def _variable(field: str) -> str:
    return f"ZCCR_{field.upper()}"


def document() -> str:
    """Every setting as the Markdown page docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Every setting is an environment variable. This page is made by `python -m zccr_stream.settings`.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "unset" if default is None else "empty" if default == "" else f"`{_plain(default)}`"
        lines.append(f"| `{_variable(name)}` | {shown} | {(field.description or '').replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _plain(default: object) -> str:
    match default:
        case frozenset():
            return json.dumps(sorted(default))
        case dict() | tuple() | bool():
            return json.dumps(default)
        case _:
            return str(default)


if __name__ == "__main__":
    sys.stdout.write(document())
