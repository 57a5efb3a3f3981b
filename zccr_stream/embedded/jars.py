"""Apache Kafka's jars: fetched once from Maven Central, checked, kept in a cache that processes share.

Comes in: a cache folder. Goes out: the class path. `jars.lock` names each jar and its SHA-256, so every machine runs
the same code; `python -m zccr_stream.embedded.jars > FILE` makes it anew after a change of `_WANTED`.
It does not know how the jars are run.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity

from zccr_stream.embedded.process import EmbeddedError, package

# slf4j-simple writes the broker's log to standard error, where the keeper's log file takes it.
_WANTED = ("org.apache.kafka:kafka_2.13:4.4.0", "org.slf4j:slf4j-simple:1.7.36")
_REPOSITORY = "https://repo.maven.apache.org/maven2"  # Maven Central
_LOCK = Path(__file__).with_name("jars.lock")
UNFINISHED = "unfinished-"
_DOWNLOADS = 8
_ATTEMPTS = 4
_BACKOFF_S = 0.5
_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True)
class _Jar:
    sha256: str
    coordinate: str

    @property
    def file(self) -> str:
        return f"{self.sha256[:16]}-{self.coordinate.split(':')[1]}.jar"


def default_cache() -> Path:
    """`zccr-stream/jars` below the XDG cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "zccr-stream" / "jars"


def class_path(cache: Path, report: Callable[[str], None]) -> list[Path]:
    """Paths of all jars, after fetching those that the cache lacks.

    Each jar appears in the cache whole and checked, so a broken-off run costs only the jars it had not finished.

    Args:
        cache: The cache folder, made if missing.
        report: Told what happens when something is fetched.

    Raises:
        EmbeddedError: A jar cannot be had, or is not the one of the lock file.
    """
    jars = [_Jar(sha256=line.split()[0], coordinate=line.split()[1]) for line in _LOCK.read_text().splitlines()]
    paths = [cache / jar.file for jar in jars]
    if not all(path.exists() for path in paths):
        with locked(cache):  # a second process waits here and then finds what the first has fetched
            _fetch([jar for jar in jars if not (cache / jar.file).exists()], cache, report)
    return paths


def version() -> str:
    """What names this set of jars."""
    return hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]


@contextlib.contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Hold the cache alone, and clear away what a process left there that was killed while it did."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / "lock").open("ab")
    except OSError as error:
        raise EmbeddedError(f"the cache folder {cache} cannot be written: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in cache.glob(f"{UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _fetch(jars: list[_Jar], cache: Path, report: Callable[[str], None]) -> None:
    if not jars:
        return
    report(f"fetching {len(jars)} jars of Apache Kafka (about 45 MB, this once) from Maven Central to {cache}")
    with tempfile.TemporaryDirectory(dir=cache, prefix=UNFINISHED) as repository:
        context = _maven(Path(repository))
        pool = ThreadPoolExecutor(_DOWNLOADS)
        try:
            for number, _ in enumerate(pool.map(lambda jar: _fetch_one(context, jar, cache), jars), start=1):
                if number % 10 == 0:
                    report(f"fetched {number} of {len(jars)} jars")
        except (OSError, RuntimeError) as error:
            raise EmbeddedError(
                f"Apache Kafka could not be fetched from Maven Central: {error}. Check the network and its proxy "
                "settings, or name a Kafka that runs already in ZCCR_BOOTSTRAP_SERVERS"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _fetch_one(context: Any, jar: _Jar, cache: Path) -> None:
    for attempt in tenacity.Retrying(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_exponential(multiplier=_BACKOFF_S, max=10) + tenacity.wait_random(0, _BACKOFF_S),
        retry=tenacity.retry_if_exception_type((OSError, RuntimeError)),  # jgo's: requests' errors; a status but 200
        reraise=True,
    ):
        with attempt:
            artifact = context.create_dependency(jar.coordinate).artifact
            artifact.cached_path.unlink(missing_ok=True)  # jgo takes what a broken-off try has left as done
            path = artifact.resolve()
            if (found := _sha256(path)) != jar.sha256:
                raise RuntimeError(f"{jar.coordinate} has the SHA-256 {found}, expected is {jar.sha256}")
            path.replace(cache / jar.file)


def require() -> None:
    """Raise `EmbeddedError` when what fetches the jars is not installed."""
    package("jgo", server="Kafka", variable="ZCCR_BOOTSTRAP_SERVERS")


def _maven(repository: Path) -> Any:
    require()
    from jgo.maven import MavenContext  # takes 0.8 s to import, for the first run alone

    return MavenContext(repo_cache=repository, remote_repos={"central": _REPOSITORY}, timeout=_TIMEOUT_S)


def _sha256(path: Path) -> str:
    with path.open("rb") as jar:
        return hashlib.file_digest(jar, "sha256").hexdigest()


def _write_lock() -> None:
    """Resolve what is wanted with all it depends on, and print the lock file."""
    with tempfile.TemporaryDirectory() as repository:
        context = _maven(Path(repository))
        wanted = [context.create_dependency(coordinate) for coordinate in _WANTED]
        inputs, dependencies = context.resolver.resolve(wanted)
        artifacts = [dependency.artifact for dependency in inputs + dependencies]
        for artifact in artifacts:
            coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
            print(_sha256(artifact.resolve()), coordinate)


if __name__ == "__main__":
    _write_lock()
