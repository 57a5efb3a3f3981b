"""Which assets stand for a modality's catalogue: those whose ids hash lowest.

Comes in: what is put and dropped. Goes out: the same assets for the same live ones, in whatever order they came, on
every replica. Knows nothing of vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from zccr_stream.events.identifiers import lot

EVERYTHING = 1 << 64


class Sample:
    """The `size` live assets of lowest hash; up to twice as many are held, so that removals seldom cost a look at all.

    `asset_ids` is a new tuple whenever what it names may have changed.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: dict[str, int] = {}  # every live asset whose hash is below `_below`
        self._below = EVERYTHING
        self.asset_ids: tuple[str, ...] = ()

    def put(self, asset_ids: Sequence[str]) -> None:
        """Note live assets, new ones or such whose vectors changed."""
        if low := self._hold(asset_ids):
            self._choose(low)

    def drop(self, asset_ids: Iterable[str], everything: Callable[[], Sequence[str]]) -> None:
        """Note that assets live here no longer; `everything` lists those that do, where too few are left."""
        gone = [asset_id for asset_id in asset_ids if self._held.pop(asset_id, None) is not None]
        if not gone:
            return
        if len(self._held) < self._size and self._below < EVERYTHING:
            self._held, self._below = {}, EVERYTHING
            self._hold(everything())
        self._choose(())

    def _hold(self, asset_ids: Sequence[str]) -> Collection[str]:
        """Hold those of low hash; which they are."""
        hashes = [lot(asset_id) for asset_id in asset_ids]
        low = {name: number for name, number in zip(asset_ids, hashes, strict=True) if number < self._below}
        self._held |= low
        if len(self._held) > 2 * self._size:
            kept = sorted(self._held.items(), key=lambda item: (item[1], item[0]))[: 2 * self._size]
            self._below = kept[-1][1]
            self._held = {name: number for name, number in kept if number < self._below}
        return low

    def _choose(self, put: Collection[str]) -> None:
        lowest = sorted(self._held.items(), key=lambda item: (item[1], item[0]))[: self._size]
        chosen = tuple(name for name, _ in lowest)
        if chosen != self.asset_ids or not set(put).isdisjoint(chosen):
            self.asset_ids = chosen
