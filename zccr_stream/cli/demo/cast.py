"""Who uploads what: about a dozen users with two or three interests each, in photos, sentences or both.

Comes in: media by kind. Goes out: users with their uploads. Each kind is shared by several users and its items are
dealt among them, so that everybody has something that the others do not. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, cycle

from zccr_stream.cli.demo.media import Item, Media
from zccr_stream.events import IMAGE, MODALITIES, TEXT

NAMES = ("Ada", "Ben", "Cleo", "Dilan", "Emre", "Fee", "Gus", "Hana", "Ivo", "Jun", "Kaya", "Lia")
KINDS_MAX = 7
UPLOADS_PER_INTEREST_MAX = 8


@dataclass(frozen=True, slots=True)
class Upload:
    """One item, uploaded as a photo or as its sentence; `kind` is what only the demo knows."""

    asset_id: str
    modality: str
    kind: str
    item: Item


@dataclass(slots=True)
class User:
    """Somebody with interests, in some modalities."""

    user_id: str
    kinds: Sequence[str]
    modalities: Sequence[str]
    uploads: list[Upload] = field(default_factory=list)


def cast(media: Media) -> list[User]:
    """Deal the media among a dozen users, the same way each time."""
    kinds = list(media.kinds)[:KINDS_MAX]
    modalities = cycle([(IMAGE,), (TEXT,), MODALITIES])
    users = [User(name, _interests(kinds, number), next(modalities)) for number, name in enumerate(NAMES)]
    for kind in kinds:
        _deal(kind, media.kinds[kind], [user for user in users if kind in user.kinds])
    return [user for user in users if user.uploads]


def _interests(kinds: Sequence[str], number: int) -> Sequence[str]:
    """Two or three kinds, in another combination for each user."""
    choices = list(combinations(kinds, min(len(kinds), 2 + number % 2)))
    return choices[number * len(choices) // len(NAMES)]


def _deal(kind: str, items: Sequence[Item], users: Sequence[User]) -> None:
    """Deal in turns; who uploads both gives the photo of one item and the sentence of the next."""
    if not users:
        return
    for number, item in enumerate(items[: len(users) * UPLOADS_PER_INTEREST_MAX]):
        user = users[number % len(users)]
        modality = user.modalities[len(user.uploads) % len(user.modalities)]
        user.uploads.append(Upload(f"{user.user_id}/{modality}/{item.name}", modality, kind, item))
