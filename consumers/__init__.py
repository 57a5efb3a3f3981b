"""The two processes of the stream: `python -m consumers.ingest` and `python -m consumers.recommend`."""
