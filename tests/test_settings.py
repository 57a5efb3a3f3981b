from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from zccr_stream.settings import Settings, document

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
    assert (ROOT / "docs" / "settings.md").read_text() == document(), "run: make docs"


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


@pytest.mark.parametrize("url", ["postgres://a@b/c", "postgresql://a@b/c", "postgresql+psycopg2://a@b/c"])
def test_the_common_spellings_of_a_database_url_are_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ZCCR_DATABASE_URL", url)

    assert Settings().database_url == "postgresql+psycopg2://a@b/c"


def test_secrets_stay_out_of_the_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZCCR_DATABASE_URL", "postgresql://user:geheim@host/db")
    monkeypatch.setenv("ZCCR_KAFKA_CONFIG", '{"sasl.password": "geheim"}')

    assert "geheim" not in repr(Settings())
