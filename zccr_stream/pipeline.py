"""READ FIRST: the two use cases, from an upload to its owner's refreshed recommendations.

`Ingest` takes a batch of input records to the truth and announces what changed. `Refresh` takes a batch of changed
profiles to published recommendations. Only this module calls more than one step; the parts it needs are the
Protocols at its top. Every effect may be repeated: the state is a function of the set of events alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from zccr_stream.events import (
    AssetDeleted,
    AssetUploaded,
    BadInputError,
    Embeddings,
    InputEvent,
    Message,
    ProfileChanged,
    TryLaterError,
    UserDeleted,
)
from zccr_stream.interests import Profile
from zccr_stream.ranking import Hits

Content = Image | str
Failure = BadInputError | TryLaterError


class Contents(Protocol):
    """Where the content of uploads comes from."""

    def load(self, uploads: Sequence[AssetUploaded]) -> list[Content | Failure]:
        """Fetch and decode a batch side by side; one outcome per upload, failures as values."""


class Encoder(Protocol):
    """One space of images and texts."""

    @property
    def model(self) -> str:
        """The name of the space; vectors of different models are never compared."""

    @property
    def dimension(self) -> int:
        """Length of the vectors, d."""

    def encode(self, modality: str, contents: Sequence[Content]) -> npt.NDArray[np.float32]:
        """Encode n contents of one modality to (n, d) unit vectors (paper, eq. 1)."""


@dataclass(frozen=True, slots=True)
class Writes:
    """A batch of valid writes: `vectors` (n, d) float16 belong to `uploads`, row by row."""

    model: str
    uploads: Sequence[AssetUploaded]
    vectors: npt.NDArray[np.float16]
    deletions: Sequence[AssetDeleted] = ()
    user_deletions: Sequence[UserDeleted] = ()


@dataclass(frozen=True, slots=True)
class Touched:
    """What a batch of writes changed: assets, and users whose profile changed (former owners included)."""

    asset_ids: Sequence[str]
    user_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Announcement:
    """What changed and is still to be published, in its newest state."""

    embeddings: Embeddings
    changes: Sequence[ProfileChanged]


class Ownership(Protocol):
    """The truth: one last-writer-wins register per asset, and each user's profile version."""

    def standing(self, events: Sequence[InputEvent]) -> npt.NDArray[np.bool_]:
        """(n,): True where the truth already holds this write or a greater one, so that it need not be encoded."""

    def write(self, writes: Writes) -> Touched:
        """Apply a batch in one transaction and note in it what is to be announced."""

    def announcing(
        self, asset_ids: Sequence[str], user_ids: Sequence[str]
    ) -> AbstractContextManager[Announcement]:
        """Lock what is noted for these assets and users and give its newest state.

        The notes are cleared when the block ends well and kept when it raises.
        """

    def leftovers(self, older_than_s: float, limit: int) -> AbstractContextManager[Announcement]:
        """The same for notes that a crash left behind, skipping what another process is announcing."""

    def profiles(self, user_ids: Sequence[str], held: HeldVectors) -> list[Profile]:
        """These users' live assets, all in one snapshot; vectors that `held` has are not read again."""


class HeldVectors(Protocol):
    """Vectors at hand, by asset and revision."""

    def vectors(
        self, asset_ids: Sequence[str], revisions: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float16]]:
        """(n,) which are held at exactly this revision, and their vectors, (n, d), zero where not held."""


class Index(HeldVectors, Protocol):
    """One index per modality."""

    def search(self, modality: str, seeds: npt.NDArray[np.float32], user_ids: Sequence[str], k: int) -> Hits:
        """The k nearest assets to each of s seeds, (s, d), that are not of that seed's user, exact."""


class Publisher(Protocol):
    """Where messages go."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish a batch and wait until all of it is delivered."""
