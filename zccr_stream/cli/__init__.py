"""`zccr-stream`: the commands for people.

commands  migrate, topics, status, up
upload    files become asset-uploaded events
watch     follows recommendations, as tables
dlq       dead letters, shown and given another try
verify    holds what was published against the database, and mends it
evaluate  how good are the recommendations, on what users uploaded?
demo      a dozen users, streamed; what was recommended, as a table and a page

Every command reads the same settings as the consumers, from `ZCCR_…` variables.
"""

from zccr_stream.cli.commands import app, main

__all__ = ["app", "main"]
