"""The truth in PostgreSQL: who owns which asset, its vector, each user's version, and what is still to be announced.

Batches of writes, questions about profiles and marks come in; registers, profiles and announcements go out. Beside the
truth stands which dead letters were dealt with.
It does not know Kafka, content or encoders, nor what an area of interest is.

registers   what a batch of writes changes: pure
postgres    READ FIRST: the tables as the pipeline sees them
everything  all that is live, in one snapshot
binary      PostgreSQL's binary COPY format
sessions    connections, retries of conflicts, errors translated
migrating   bring a database to the newest schema
"""

from zccr_stream.ownership.migrating import NotMigratedError, check_migrated, migrate
from zccr_stream.ownership.postgres import Backlog, PostgresOwnership, Statistics

__all__ = ["Backlog", "NotMigratedError", "PostgresOwnership", "Statistics", "check_migrated", "migrate"]
