from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from zccr_stream import assemble
from zccr_stream.catalogue import Catalogue, Joint
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.interests import Profile
from zccr_stream.settings import Settings, document, explain

ROOT = Path(__file__).parent.parent

# The contract's table: a default changes only together with it.
CONTRACT = {
    "bootstrap_servers": "localhost:9092",
    "kafka_config": {},
    "database_url": "postgresql+psycopg2://zccr:zccr@localhost:5432/zccr",
    "encoder": "ViT-B-32/laion2b_s34b_b79k",
    "device": "auto",
    "metrics_port": 9100,
    "topic_prefix": "",
    "file_root": None,
    "k": 10,
    "feed_size": 50,
}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"ZCCR_{name.upper()}", raising=False)


def test_the_defaults_are_the_contracts() -> None:
    assert {name: getattr(Settings(), name) for name in CONTRACT} == CONTRACT


def test_the_page_of_settings_is_made_from_the_code() -> None:
    """Made anew by `python -m zccr_stream.settings > docs/settings.md`."""
    assert (ROOT / "docs" / "settings.md").read_text() == document()


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_setting_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZCCR_KAFKA_CONFIG", '{"security.protocol": "SSL"}')
    monkeypatch.setenv("ZCCR_BATCH_MAX", "7")

    settings = Settings()

    assert settings.kafka_config == {"security.protocol": "SSL"}
    assert settings.batch_max == 7


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ZCCR_DEVICE", "gpu"),
        ("ZCCR_BATCH_MAX", "0"),
        ("ZCCR_METRICS_PORT", "70000"),
        ("ZCCR_TOPIC_PREFIX", "with space"),
        ("ZCCR_DATABASE_URL", "mysql://localhost/zccr"),
        ("ZCCR_KAFKA_CONFIG", "not json"),
        ("ZCCR_AREA_SEED", "mean"),
        ("ZCCR_SNAPSHOT_AGE_MAX_HOURS", "500"),  # removals would be gone from the topic before the snapshot is too old
    ],
)
def test_a_wrong_value_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises((ValidationError, SettingsError)):
        Settings()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("ZCCR_AREA_CUT", "-1", "ZCCR_AREA_CUT is '-1': input should be greater than 0"),
        ("ZCCR_AREA_CUT", "inf", "ZCCR_AREA_CUT is 'inf': input should be a finite number"),
        ("ZCCR_FETCH_SCHEMES", '["ftp"]', "ZCCR_FETCH_SCHEMES.0 is 'ftp': input should be 'data'"),
        ("ZCCR_FEED_MERGED", "true", "ZCCR_FEED_MERGED is true; expected ZCCR_SCORES to be calibrated"),
        ("ZCCR_DATABASE_URL", "mysql://user:geheim@host/db", "ZCCR_DATABASE_URL: "),
        ("ZCCR_SNAPSHOT_AGE_MAX_HOURS", "999", "expected less than ZCCR_DELETE_RETENTION_HOURS (168)"),
        ("ZCCR_KAFKA_CONFIG", '{"sasl.password": "geheim"', "ZCCR_KAFKA_CONFIG is no JSON: "),
        ("ZCCR_KAFKA_CONFIG", '{"a": ' + "1" * 5000 + "}", "ZCCR_KAFKA_CONFIG cannot be read: Exceeds the limit"),
        ("ZCCR_KAFKA_CONFIG", '["geheim"]', "ZCCR_KAFKA_CONFIG: input should be a valid dictionary"),
    ],
)
def test_a_wrong_value_is_explained_by_its_variable_and_no_secret_is_told(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises((ValidationError, SettingsError)) as wrong:
        Settings()

    assert isinstance(wrong.value, ValidationError | SettingsError)
    assert said in explain(wrong.value)
    assert "geheim" not in explain(wrong.value)


@pytest.mark.parametrize("url", ["postgres://a@b/c", "postgresql://a@b/c", "postgresql+psycopg2://a@b/c"])
def test_the_common_spellings_of_a_database_url_are_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ZCCR_DATABASE_URL", url)

    assert Settings().database_url == "postgresql+psycopg2://a@b/c"


def test_secrets_stay_out_of_the_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZCCR_DATABASE_URL", "postgresql://user:geheim@host/db")
    monkeypatch.setenv("ZCCR_KAFKA_CONFIG", '{"sasl.password": "geheim"}')

    assert "geheim" not in repr(Settings())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"k": 7}, {"k": 7}),
        ({"feed_size": 7}, {"feed_size": 7}),
        ({"near_duplicate": 0.5}, {"near_duplicate": 0.5}),
        ({"feed_diversity": 0.2}, {"diversity": 0.2}),
        ({"scores": "calibrated"}, {"calibrated": True}),
        ({"scores": "calibrated", "feed_merged": True}, {"calibrated": True, "merged": True}),
    ],
)
def test_settings_of_the_feed_reach_its_rule(change: dict[str, Any], expected: dict[str, Any]) -> None:
    plain = assemble.ranking_rule(Settings())

    assert assemble.ranking_rule(Settings(**change)) == replace(plain, **expected)
    assert plain != replace(plain, **expected)


def test_settings_of_areas_reach_their_rule() -> None:
    random = np.random.default_rng(0)
    samples = {modality: random.normal(size=(100, 8)).astype(np.float32) for modality in (IMAGE, TEXT)}
    known = {modality: Catalogue.of(sample) for modality, sample in samples.items()}
    plain = assemble.area_rule(Settings(), known)
    changed = assemble.area_rule(Settings(area_seed="medoid", area_cut=0.5, area_joint=True), known)

    assert (plain.seed, plain.cut, plain.joint, plain.catalogues) == ("contrast", None, None, known)
    assert (changed.seed, changed.cut) == ("medoid", 0.5)
    assert changed.joint is not None and set(changed.joint.alignments) == {IMAGE, TEXT}
    assert assemble.area_rule(Settings(area_joint=True), {IMAGE: known[IMAGE]}).joint is None


def test_only_scores_that_are_comparable_can_be_merged() -> None:
    with pytest.raises(ValidationError, match="expected ZCCR_SCORES to be calibrated"):
        Settings(feed_merged=True)


def test_a_service_finds_its_joint_space_once_while_its_catalogue_is_nearly_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, find = [], Joint.of

    def counted(catalogues: Any) -> Joint:
        found.append(catalogues)
        return find(catalogues)

    monkeypatch.setattr(Joint, "of", counted)
    vectors = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)

    def known(first: int) -> dict[str, Catalogue]:
        revisions = [(str(number), 1) for number in range(first, first + 100)]
        return {modality: Catalogue.of(vectors, revisions) for modality in (IMAGE, TEXT)}

    catalogues = iter([known(0), known(1), known(2), known(50)])
    index: Any = SimpleNamespace(catalogues=lambda: next(catalogues))
    empty = Profile("u", 1, [], [], np.zeros(0, np.int64), np.zeros((0, 8), np.float32))
    truth: Any = SimpleNamespace(sizes=lambda users: np.zeros(len(users)), profiles=lambda users, held: [empty])
    out: Any = SimpleNamespace(publish=lambda messages: None)
    refresh = assemble.refresh(Settings(area_joint=True, encoder="mini"), truth, index, out)

    for _ in range(3):
        refresh.refresh(["u"])
    assert len(found) == 1
    refresh.refresh(["u"])
    assert len(found) == 2
