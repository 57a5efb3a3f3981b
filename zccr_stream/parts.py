"""The parts that the pipeline is put together from: what each promises, what goes between them, and how they fail.

The doors keep these promises and know nothing of the pipeline.
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
Outcome = Failure | None


class UnavailableError(Exception):
    """PostgreSQL or Kafka is away or too slow: the whole batch is tried again with back-off, nothing is lost."""


class MessageTooLargeError(Exception):
    """A message is larger than its topic takes; publishing it again cannot help."""


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
        """Encode n contents of one modality to (n, d) unit vectors (paper, eq. 1).

        Raises:
            BadInputError: one of them cannot be encoded.
        """


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

    def announcing(self, asset_ids: Sequence[str], user_ids: Sequence[str]) -> AbstractContextManager[Announcement]:
        """Lock what is noted for these assets and users and give its newest state.

        The notes are cleared when the block ends well and kept when it raises.
        """

    def leftovers(self, older_than_s: float, limit: int) -> AbstractContextManager[Announcement]:
        """The same for notes that a crash left behind, skipping what another process is announcing."""

    def sizes(self, user_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """(n,): how many live assets each of n users has."""

    def profiles(self, user_ids: Sequence[str], held: HeldVectors) -> list[Profile]:
        """These users' live assets, all in one snapshot; vectors that `held` has are not read again."""


class HeldVectors(Protocol):
    """Vectors at hand, by asset and revision."""

    def vectors(
        self, asset_ids: Sequence[str], revisions: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float16]]:
        """(n,) which are held at exactly this revision, and their vectors, (n, d), zero where not held."""


class Follows(Protocol):
    """What is kept in step with `asset-embedded`."""

    def apply(self, embeddings: Embeddings) -> None:
        """Take the states of a batch, in order."""


class Index(Follows, HeldVectors, Protocol):
    """One index per modality; a state is applied only where its revision is newer than the one held."""

    def search(self, modality: str, seeds: npt.NDArray[np.float32], user_ids: Sequence[str], k: int) -> Hits:
        """The k nearest assets to each of s seeds, (s, d), that are not of that seed's user, exact."""


class Publisher(Protocol):
    """Where messages go."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish a batch and wait until all of it is delivered.

        Raises:
            UnavailableError: not all of it was delivered in time; it may be published again.
            MessageTooLargeError: one of it cannot be delivered; the others may have been.
        """
