"""Apache Kafka and PostgreSQL as child processes, from package registries alone, for demo, tests and development.

Comes in: which of the two, and a data folder or none. Goes out: `bootstrap_servers` and `database_url` of servers that
answer, on free loopback ports. Nothing of them outlives the process that started them, whatever ends it.
It does not know topics or tables.
"""

import tempfile
from pathlib import Path

from zccr_stream.embedded.postgres import Postgres
from zccr_stream.embedded.process import EmbeddedError

__all__ = ["EmbeddedError", "Postgres"]


def temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="zccr-embedded-"))
    folder.chmod(0o711)
    return folder
