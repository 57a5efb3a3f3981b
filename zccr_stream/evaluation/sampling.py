"""Who is measured, and what is held out of their profiles.

Sizes of profiles and uploads come in, a sample and splits go out. Both are drawn by hashes of identifiers: the same
night after night, and an upload or a user more changes at most one of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zccr_stream.events.identifiers import lot

HELD_OUT_MAX = 50  # so that the longest feed that is counted can show all of it, and a large profile costs no more


@dataclass(frozen=True, slots=True)
class EvaluationRule:
    """Who is measured, and what is held out.

    At most `users` users with `assets_min` assets or more, drawn with `seed`. Of each profile the share `held_out`, at
    least one asset and at most `HELD_OUT_MAX`: drawn too, or the `newest` ones.
    """

    users: int
    assets_min: int
    held_out: float
    newest: bool
    seed: int

    def __post_init__(self) -> None:
        if self.users < 1:
            raise ValueError(f"users is {self.users}; expected at least 1")
        if self.assets_min < 2:
            raise ValueError(f"assets_min is {self.assets_min}; expected at least 2: one is held out and one remains")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; expected a share above 0 and below 1")


@dataclass(frozen=True, slots=True)
class Sample:
    """Who is measured, by id; of all users how many have enough assets and how many too few, and the most of one."""

    user_ids: Sequence[str]
    enough: int
    too_few: int
    largest: int


@dataclass(frozen=True, slots=True)
class Uploads:
    """A user's n live assets without their vectors, by ascending id."""

    user_id: str
    asset_ids: Sequence[str]
    modalities: Sequence[str]
    occurred_at_ns: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """A user's uploads, and (n,) which of them are held out: at least one, and not all."""

    uploads: Uploads
    held_out: npt.NDArray[np.bool_]

    @property
    def wanted(self) -> list[str]:
        """The assets to be found."""
        return [self.uploads.asset_ids[row] for row in np.flatnonzero(self.held_out).tolist()]


def choose_users(sizes: Mapping[str, int], rule: EvaluationRule) -> Sample:
    """Draw the users that are measured; `sizes` has the live assets of every user who has any."""
    enough = [user_id for user_id, size in sizes.items() if size >= rule.assets_min]
    drawn = heapq.nsmallest(rule.users, enough, key=lambda user_id: (draw(user_id, rule.seed), user_id))
    return Sample(sorted(drawn), len(enough), len(sizes) - len(enough), max(sizes.values(), default=0))


def hold_out(uploads: Uploads, rule: EvaluationRule) -> Split:
    """Choose what is held out of a profile of at least two assets."""
    n = len(uploads.asset_ids)
    assert n >= 2, f"{uploads.user_id!r} has {n} assets"
    if rule.newest:
        order = np.argsort(-uploads.occurred_at_ns, kind="stable")
    else:
        order = np.argsort([draw(asset_id, rule.seed) for asset_id in uploads.asset_ids], kind="stable")
    held_out = np.zeros(n, np.bool_)
    held_out[order[: min(max(1, round(rule.held_out * n)), n - 1, HELD_OUT_MAX)]] = True
    return Split(uploads, held_out)


def draw(identifier: str, seed: int) -> int:
    """A number below 2 ** 63 that stands for this identifier, as good as drawn."""
    return lot(f"{seed}\n{identifier}") >> 1
