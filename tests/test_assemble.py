import time
from pathlib import Path
from typing import cast

import pytest

from zccr_stream import assemble
from zccr_stream.settings import Settings
from zccr_stream.stream.follower import Follower

SOURCE = "cluster/topic/model"


class AnyPositions:
    """A topic that goes on after every snapshot."""

    def valid(self, positions: object) -> bool:
        return True


@pytest.mark.parametrize(("age_hours", "used"), [(1, True), (200, False)])
def test_a_snapshot_is_as_old_as_its_content_and_not_as_its_file(tmp_path: Path, age_hours: int, used: bool) -> None:
    """A file that was just copied may hold positions of last week: removals after them may be gone from the topic."""
    settings = Settings(encoder="mini")
    path = tmp_path / "copied"
    assemble.empty_index(settings).snapshot(path, {0: 5}, SOURCE, time.time() - age_hours * 3600)

    _, positions = assemble._restored(settings, cast(Follower, AnyPositions()), path, SOURCE)

    assert positions == ({0: 5} if used else {})
