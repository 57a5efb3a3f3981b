"""`asset-embedded` -> FAISS; `profile-changed` -> `recommendations`. Any number of these may run."""

from __future__ import annotations

import sys

from zccr_stream import assemble
from zccr_stream.events import PROFILE_CHANGED
from zccr_stream.settings import Settings


def main(settings: Settings) -> None:
    """Keep the index current and refresh the users whose profiles change, until told to stop."""
    with assemble.process(settings, [PROFILE_CHANGED]) as process:
        index = assemble.followed_index(settings, process)
        ownership = assemble.ownership(settings)
        ownership.check()
        publisher = assemble.publisher(settings)
        refresh = assemble.refresh(settings, ownership, index, publisher)
        assemble.recommend_consumer(settings, refresh, publisher, process).run(process.stop, process.background.check)


if __name__ == "__main__":
    sys.exit(assemble.run(main))
