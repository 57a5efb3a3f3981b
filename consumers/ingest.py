"""Input topics -> encode -> PostgreSQL -> `asset-embedded`, `profile-changed`. Any number of these may run."""

from __future__ import annotations

import sys

from zccr_stream import assemble
from zccr_stream.pipeline import Ingest
from zccr_stream.settings import Settings
from zccr_stream.stream.topics import INPUT_TOPICS


def main(settings: Settings) -> None:
    """Ingest until told to stop."""
    with assemble.process(settings, INPUT_TOPICS) as process:
        encoder = assemble.encoder(settings)
        ownership = assemble.ownership(settings)
        ownership.check()
        publisher = assemble.publisher(settings)
        ingest = Ingest(assemble.contents(settings), encoder, ownership, publisher, settings.topic_prefix)
        assemble.keep_announcing(settings, ingest, ownership, process)
        assemble.ingest_consumer(settings, ingest, publisher, process).run(process.stop, process.background.check)


if __name__ == "__main__":
    sys.exit(assemble.run(main))
