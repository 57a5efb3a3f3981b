"""Apache Kafka's jars from a repository over HTTP that fails in every way a network does."""

import hashlib
import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from zccr_stream.embedded import EmbeddedError, jars

CONTENT = {f"/org/example/{name}/1.0/{name}-1.0.jar": name.encode() * 5000 for name in ("one", "two", "three")}


class Repository(http.server.ThreadingHTTPServer):
    """Serves CONTENT; the first answers to a path may be broken ones."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.broken: dict[str, list[str]] = {}
        self.served: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        content = CONTENT.get(self.path)
        if content is None:
            self.send_error(404)
            return
        breaks = self.server.broken.get(self.path)
        fault = breaks.pop(0) if breaks else ""
        if fault == "unavailable":
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        sent = {"cut": content[:9000], "swapped": bytes(len(content))}.get(fault, content)
        self.wfile.write(sent)
        if not fault:
            self.server.served[self.path] += 1

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    lines = [
        f"{hashlib.sha256(content).hexdigest()} org.example:{path.split('/')[3]}:1.0"
        for path, content in CONTENT.items()
    ]
    lock = tmp_path / "jars.lock"
    lock.write_text("".join(f"{line}\n" for line in lines))
    with Repository() as server:
        monkeypatch.setattr(jars, "_LOCK", lock)
        monkeypatch.setattr(jars, "_REPOSITORY", server.url)
        monkeypatch.setattr(jars, "_BACKOFF_S", 0.01)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_jars_are_fetched_once_and_said(repository: Repository, tmp_path: Path) -> None:
    said: list[str] = []
    paths = jars.class_path(tmp_path / "cache", said.append)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert "fetching 3 jars of Apache Kafka" in said[0]
    assert jars.class_path(tmp_path / "cache", said.append) == paths
    assert len(said) == 1
    assert set(repository.served.values()) == {1}


def test_a_cut_swapped_or_refused_download_is_repeated(repository: Repository, tmp_path: Path) -> None:
    one, two, three = CONTENT
    repository.broken = {one: ["cut", "cut"], two: ["swapped"], three: ["unavailable", "cut", "swapped"]}
    paths = jars.class_path(tmp_path / "cache", lambda _line: None)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())


def test_a_jar_that_is_not_the_locked_one_never_enters_the_cache(repository: Repository, tmp_path: Path) -> None:
    one, two, three = CONTENT
    repository.broken = {two: ["swapped"] * 9}
    with pytest.raises(EmbeddedError, match=r"org.example:two:1.0 has the SHA-256 .*ZCCR_BOOTSTRAP_SERVERS"):
        jars.class_path(tmp_path / "cache", lambda _line: None)
    repository.broken = {}
    paths = jars.class_path(tmp_path / "cache", lambda _line: None)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert repository.served[two] == 1
    assert repository.served[one] == repository.served[three] == 1, "what was fetched whole is not fetched again"


def test_two_at_once_fetch_each_jar_once(repository: Repository, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: jars.class_path(tmp_path / "cache", lambda _line: None), range(2)))
    assert both[0] == both[1]
    assert set(repository.served.values()) == {1}


def test_what_a_killed_fetch_left_is_cleared_away(repository: Repository, tmp_path: Path) -> None:
    leftover = tmp_path / "cache" / "unfinished-by-a-killed-process"
    leftover.mkdir(parents=True)
    jars.class_path(tmp_path / "cache", lambda _line: None)
    assert not leftover.exists()


def test_the_cache_follows_the_xdg_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert jars.default_cache() == tmp_path / "zccr-stream" / "jars"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/invalid")
    assert jars.default_cache() == Path.home() / ".cache" / "zccr-stream" / "jars"


def test_a_cache_that_cannot_be_written_is_named(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"cache folder .*file/cache cannot be written"):
        jars.class_path(tmp_path / "file" / "cache", lambda _line: None)
