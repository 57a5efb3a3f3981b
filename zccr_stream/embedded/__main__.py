"""Keep Apache Kafka and PostgreSQL running for development: `python -m zccr_stream.embedded`, or `make up`.

Comes in: a data folder that keeps everything. Goes out: the settings to export, printed and in a file to source; then
it stays until Ctrl-C. It does not know topics or tables.
"""

import argparse
import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from zccr_stream.embedded import START_TIMEOUT_S, Embedded, EmbeddedError

_CHECK_INTERVAL_S = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_DESCRIPTION = """\
Start Apache Kafka and PostgreSQL for development and keep them running until Ctrl-C.
No Docker and no Java of the system is needed. Everything is kept in the data folder: the next start finds it again,
on the same ports if they are still free. To begin anew, delete that folder.
"""
_EXAMPLE = """\
In a second terminal, from the same folder:
  . .zccr/env                # sets ZCCR_BOOTSTRAP_SERVERS and ZCCR_DATABASE_URL
  zccr-stream migrate && zccr-stream topics
  python -m consumers.ingest
"""


def up(
    data: Path,
    *,
    kafka: bool = True,
    postgres: bool = True,
    kafka_port: int = 0,
    postgres_port: int = 0,
    say: Callable[[str], None],
) -> None:
    """Run the servers until SIGINT, SIGTERM or SIGHUP; for the main thread, since it listens for signals.

    Args:
        data: Folder that keeps everything, made if missing.
        kafka: Whether to run Kafka.
        postgres: Whether to run PostgreSQL.
        kafka_port: Port on 127.0.0.1; 0 takes the one used before, or a free one.
        postgres_port: Likewise.
        say: Told what a person should read, the settings to export among it.

    Raises:
        EmbeddedError: A server could not be started, or ended by itself.
    """
    before = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    servers = Embedded(
        kafka=kafka,
        postgres=postgres,
        data=data,
        durable=True,
        kafka_port=kafka_port,
        postgres_port=postgres_port,
        start_timeout_s=START_TIMEOUT_S,
        report=say,
    )
    try:
        say(f"starting; everything is kept in {data}")
        with servers:
            exports = _exports(servers, kafka=kafka, postgres=postgres)
            with _note(data, exports) as note:
                say(f"running until Ctrl-C; export these, or run:  . {shlex.quote(str(note))}")
                for line in exports:
                    say(line)
                while not threading.Event().wait(_CHECK_INTERVAL_S):
                    servers.check()
    except KeyboardInterrupt:
        say("stopped")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> int:
    """Run by the arguments of the command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m zccr_stream.embedded",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=Path(".zccr"), metavar="DIR", help="data folder (default: .zccr)")
    parser.add_argument("--only", choices=("kafka", "postgres"), help="start this one alone")
    same = "port on 127.0.0.1 (default: the one used before, or a free one)"
    parser.add_argument("--kafka-port", type=_port, default=0, metavar="PORT", help=same)
    parser.add_argument("--postgres-port", type=_port, default=0, metavar="PORT", help=same)
    args = parser.parse_args()
    try:
        up(
            args.data,
            kafka=args.only != "postgres",
            postgres=args.only != "kafka",
            kafka_port=args.kafka_port,
            postgres_port=args.postgres_port,
            say=lambda line: print(line, flush=True),
        )
    except EmbeddedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a stop takes seconds at most: a second Ctrl-C would only cut it short
    raise KeyboardInterrupt


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def _exports(servers: Embedded, *, kafka: bool, postgres: bool) -> list[str]:
    exports = []
    if kafka:
        exports.append(f"export ZCCR_BOOTSTRAP_SERVERS={servers.bootstrap_servers}")
    if postgres:
        exports.append(f"export ZCCR_DATABASE_URL={servers.database_url}")
    return exports


@contextlib.contextmanager
def _note(data: Path, exports: list[str]) -> Iterator[Path]:
    """A file of the exports, there while the servers run."""
    note = data / "env"
    try:
        (data / ".gitignore").write_text("*\n")
        note.unlink(missing_ok=True)
        note.touch(mode=0o600)  # it holds the database's password
        note.write_text("".join(f"{line}\n" for line in exports))
    except OSError as error:
        raise EmbeddedError(f"the data folder {data} cannot be written: {error}") from error
    try:
        yield note
    finally:
        note.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
