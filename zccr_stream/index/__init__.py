"""One exact index per modality, kept current while it is searched.

Embeddings come in and are applied by revision; seeds come in and the nearest others go out. Knows nothing of Kafka,
PostgreSQL or what a modality means: an index appears with the first asset of its modality.

arena      vectors and their owners in segments that never move, seen by searches as frozen parts
nearest    the exact k nearest others of a batch of seeds, over frozen parts      [faiss]
snapshots  the file format: checked blocks, written and read one at a time
live       apply, search, vectors, snapshot, restore
"""

from zccr_stream.index.live import LiveIndex
from zccr_stream.index.snapshots import SnapshotError

__all__ = ["LiveIndex", "SnapshotError"]
