"""Both servers for real: usable, durable, killable, and gone with whoever started them."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from tests.waiting import wait_until
from zccr_stream.embedded import Embedded, EmbeddedError, require
from zccr_stream.embedded.folder import DataFolder

START_TIMEOUT_S = 90.0
OWNER = """
import json, sys, threading
from zccr_stream.embedded import Embedded
servers = Embedded(kafka={kafka}, start_timeout_s=90)
starter = threading.Thread(target=servers.start)
starter.start()
starter.join()
print(json.dumps([servers.postgres.pid] + ([servers.kafka.pid] if {kafka} else [])), flush=True)
sys.stdin.read()
"""


def processes_below(folder: Path) -> dict[int, str]:
    """Command line by process id of what works in a folder or names it."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            directory = str((entry / "cwd").readlink())
            if command and (f"{folder}/" in command or directory.startswith(f"{folder}/")):
                found[int(entry.name)] = command
    return found


@contextlib.contextmanager
def owner(temporary: Path, *, kafka: bool = False, before: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has started servers in a temporary folder below the given one."""
    command = [*before, sys.executable, "-c", OWNER.format(kafka=kafka)]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline() or "[]"), "the owner could not start its servers"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def execute(url: str, statement: str) -> Any:
    """The first value of the statement's result, or None."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sa.text(statement))
        return result.scalar() if result.returns_rows else None


def produce(servers: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": servers, "message.max.bytes": 8 * 1024 * 1024, "log_level": 0})
    failed = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _message: failed.append(error) if error else None)
    assert producer.flush(60) == 0
    assert failed == []


def values_of(servers: str, topic: str, count: int) -> list[bytes]:
    """The first values of a topic of one partition."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": uuid.uuid4().hex, "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes] = []

    def enough() -> bool:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            values.append(message.value() or b"")
        return len(values) >= count

    wait_until(enough, 60, f"{count} records of {topic}")
    consumer.close()
    return values


def make_topic(servers: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    for made in admin.create_topics([NewTopic(topic, 1)]).values():
        made.result(timeout=30)


def test_each_test_has_a_database_that_no_other_sees(database: str, database_url: str) -> None:
    execute(database, "CREATE TABLE only_here (n int)")
    assert execute(database, "SELECT count(*) FROM only_here") == 0
    assert execute(database_url, "SELECT to_regclass('only_here')") is None


def test_broker_takes_large_records_and_makes_no_topic_unasked(bootstrap_servers: str, topic_prefix: str) -> None:
    topic = f"{topic_prefix}large"
    make_topic(bootstrap_servers, topic)
    large = os.urandom(7 * 1024 * 1024)
    produce(bootstrap_servers, topic, [b"small", large])
    assert values_of(bootstrap_servers, topic, 2) == [b"small", large]
    broker = ConfigResource(ConfigResource.Type.BROKER, "1")
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    settings = admin.describe_configs([broker])[broker].result(timeout=30)
    assert settings["auto.create.topics.enable"].value == "false"


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_groups_of_both_protocols_are_assigned(bootstrap_servers: str, topic_prefix: str, protocol: str) -> None:
    make_topic(bootstrap_servers, f"{topic_prefix}a")
    group = {"group.id": f"{topic_prefix}g", "group.protocol": protocol, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, **group})
    consumer.subscribe([f"{topic_prefix}a"])

    def assigned() -> bool:
        consumer.poll(0.05)
        return bool(consumer.assignment())

    wait_until(assigned, 30, "the assignment of the only member")
    consumer.close()


def test_broker_keeps_port_and_records_over_kill_stop_and_start(tmp_path: Path) -> None:
    data = tmp_path / "Jörg's files, ∀x"
    with Embedded(postgres=False, data=data, start_timeout_s=START_TIMEOUT_S) as servers:
        address = servers.bootstrap_servers
        known = AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=30).topics
        assert "__consumer_offsets" in known, "else the first group of all would wait for it"
        make_topic(address, "kept")
        produce(address, "kept", [b"before the kill"])
        pid = servers.kafka.pid
        servers.kafka.kill()
        assert pid not in processes_below(tmp_path)
        assert not servers.kafka.running
        servers.kafka.start()
        assert servers.kafka.pid != pid
        assert servers.bootstrap_servers == address
        produce(address, "kept", [b"after the kill"])
    assert processes_below(tmp_path) == {}
    with Embedded(postgres=False, data=data, start_timeout_s=START_TIMEOUT_S) as servers:
        assert servers.bootstrap_servers == address
        assert values_of(address, "kept", 2) == [b"before the kill", b"after the kill"]


def test_database_keeps_port_and_rows_over_kill_stop_and_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")  # the caller's settings of libpq are not the embedded server's
    monkeypatch.setenv("PGPORT", "1")
    with Embedded(kafka=False, data=tmp_path, start_timeout_s=START_TIMEOUT_S) as servers:
        url = f"{servers.database_url}?sslmode=disable"
        assert execute(url, "SHOW fsync") == "off"
        execute(url, "CREATE TABLE kept AS SELECT 7 AS n")
        writer = next(pid for pid, command in processes_below(tmp_path).items() if "checkpointer" in command)
        os.kill(writer, signal.SIGSTOP)  # a process that hangs would not notice the end of its server
        servers.postgres.kill()
        assert processes_below(tmp_path) == {}
        assert not servers.postgres.running
        servers.postgres.start()
        assert execute(url, "INSERT INTO kept VALUES (8) RETURNING n") == 8
    with Embedded(kafka=False, data=tmp_path, durable=True, start_timeout_s=START_TIMEOUT_S):
        assert execute(url, "SELECT sum(n) FROM kept") == 15
        assert execute(url, "SHOW fsync") == "on"
        assert execute(url, "SHOW synchronous_commit") == "on"


def test_database_wants_its_password(database_url: str) -> None:
    if "ZCCR_DATABASE_URL" in os.environ:
        pytest.skip("says nothing about a database that is not embedded")
    guess = sa.make_url(database_url).set(password="guess").render_as_string(hide_password=False)
    with pytest.raises(sa.exc.OperationalError, match="password authentication failed"):
        execute(guess, "SELECT 1")


def test_two_at_once_do_not_meet(database_url: str) -> None:
    with Embedded(kafka=False, start_timeout_s=START_TIMEOUT_S) as second:
        assert sa.make_url(second.database_url).port != sa.make_url(database_url).port
        execute(second.database_url, "CREATE TABLE of_the_second (n int)")
        assert execute(database_url, "SELECT to_regclass('of_the_second')") is None
    assert execute(database_url, "SELECT 1") == 1


def test_a_data_folder_in_use_is_refused(tmp_path: Path) -> None:
    held = DataFolder(tmp_path, timeout_s=0)
    with pytest.raises(EmbeddedError, match="used by another process"):
        DataFolder(tmp_path, timeout_s=0.1)
    held.release()
    DataFolder(tmp_path, timeout_s=0).release()


def test_nothing_outlives_an_owner_that_is_killed(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        assert len(processes_below(tmp_path)) > 4  # the keeper, the database and its helpers
        os.kill(process.pid, signal.SIGKILL)
        wait_until(lambda: processes_below(tmp_path) == {}, 30, "the end of all servers")
        wait_until(lambda: list(tmp_path.iterdir()) == [], 10, "the end of the temporary folder")


def test_nothing_outlives_an_owner_killed_together_with_the_keepers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with owner(tmp_path, kafka=True) as process:
        keepers = [pid for pid, command in processes_below(tmp_path).items() if "keeper.py" in command]
        assert len(keepers) == 2
        for pid in (process.pid, *keepers):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: processes_below(tmp_path) == {}, 30, "the end of all servers")
    assert len(list(tmp_path.iterdir())) == 1  # nobody was left to remove it, so
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    next_one = DataFolder(None, timeout_s=0)  # the next start does
    assert list(tmp_path.iterdir()) == [next_one.path]
    next_one.release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_owner_lives_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = DataFolder(None, timeout_s=0), DataFolder(None, timeout_s=0)
    assert first.path.exists()
    second.release()
    first.release()
    assert list(tmp_path.iterdir()) == []


def test_an_ordinary_user_can_start_it(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("every other test has shown it")
    temporary = Path(tempfile.mkdtemp())
    temporary.chmod(0o777)
    reach = [f"--{kind}=-all,+dac_override" for kind in ("inh-caps", "ambient-caps")]  # for a Python below /root
    as_nobody = ("setpriv", "--reuid=nobody", "--regid=65534", "--clear-groups", *reach)
    with owner(temporary, before=as_nobody):
        assert {Path(f"/proc/{pid}").owner() for pid in processes_below(temporary)} == {"nobody"}
    wait_until(lambda: list(temporary.iterdir()) == [], 30, "the end of the servers and their folder")
    temporary.rmdir()


def test_a_file_in_place_of_the_data_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EmbeddedError, match=r"data folder .*file cannot be used"):
        Embedded(data=tmp_path / "file").start()


def test_a_broken_database_folder_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Embedded(kafka=False, data=tmp_path, start_timeout_s=START_TIMEOUT_S):
        pass
    (tmp_path / "postgres" / "data" / "global" / "pg_control").write_bytes(b"broken")
    with pytest.raises(EmbeddedError, match=r"(?s)PostgreSQL ended with status .* while starting; .*pg_control"):
        Embedded(kafka=False, data=tmp_path, start_timeout_s=START_TIMEOUT_S).start()
    assert processes_below(tmp_path) == {}


def test_a_database_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    foreign = tmp_path / "postgres" / "data" / "letter.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("dear reader")
    with pytest.raises(EmbeddedError, match=r"PostgreSQL's data folder .* cannot be used: .*not empty"):
        Embedded(kafka=False, data=tmp_path).start()
    assert foreign.read_text() == "dear reader"


def test_a_broken_broker_folder_stops_the_database_too(tmp_path: Path) -> None:
    notes = tmp_path / "kafka" / "data" / "meta.properties"
    notes.parent.mkdir(parents=True)
    notes.write_text("version=1\nnode.id=99\ncluster.id=another\n")
    with pytest.raises(EmbeddedError, match=r"(?s)Apache Kafka ended with status .* while starting; .*node"):
        Embedded(data=tmp_path, start_timeout_s=START_TIMEOUT_S).start()
    assert processes_below(tmp_path) == {}


def test_a_server_that_does_not_answer_in_time_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"Apache Kafka did not answer within 0\.2 s; .*log"):
        Embedded(postgres=False, data=tmp_path, start_timeout_s=0.2).start()
    assert processes_below(tmp_path) == {}


def test_a_taken_port_is_refused(tmp_path: Path, database_url: str) -> None:
    port = sa.make_url(database_url).port
    assert port is not None
    if "ZCCR_DATABASE_URL" in os.environ:
        pytest.skip("that database may be on another machine")
    with pytest.raises(EmbeddedError, match=f"port {port} is taken"):
        Embedded(kafka=False, data=tmp_path, postgres_port=port).start()


def test_a_server_that_ends_by_itself_is_noticed() -> None:
    with Embedded(kafka=False, start_timeout_s=START_TIMEOUT_S) as servers:
        servers.check()
        os.kill(servers.postgres.pid, signal.SIGKILL)
        wait_until(lambda: not servers.postgres.running, 10, "the end of the keeper")
        with pytest.raises(EmbeddedError, match="PostgreSQL ended by itself with status 137"):
            servers.check()
        servers.postgres.start()
        servers.check()


def test_what_is_not_installed_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    require()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedError, match=r"pip install 'zccr-stream\[demo\]'.* ZCCR_BOOTSTRAP_SERVERS"):
        require(postgres=False)
    with pytest.raises(EmbeddedError, match=r"pip install 'zccr-stream\[demo\]'.* ZCCR_DATABASE_URL"):
        require(kafka=False)


@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_what_to_export_and_stays_until_told(tmp_path: Path, order: signal.Signals) -> None:
    data = tmp_path / "a folder"
    command = [sys.executable, "-m", "zccr_stream.embedded", "--only", "postgres", "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        exported = next(line for line in process.stdout if line.startswith("export "))
        sourced = ["sh", "-c", f". '{data}/env' && echo $ZCCR_DATABASE_URL"]
        url = subprocess.run(sourced, check=True, capture_output=True, text=True).stdout.strip()
        assert exported.strip() == f"export ZCCR_DATABASE_URL={url}"
        assert execute(url, "SELECT 1") == 1
        process.send_signal(order)
        assert process.wait(30) == 0
    assert processes_below(data) == {}
    assert not (data / "env").exists()


def test_the_command_says_what_went_wrong_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "zccr_stream.embedded", "--data", str(tmp_path / "file")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the data folder")
    assert len(done.stderr.splitlines()) == 1
