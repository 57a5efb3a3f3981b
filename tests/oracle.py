"""What must come of a set of events, written straight from the contract's one sentence: no order and no batches."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from zccr_stream.events import TEXT, AssetDeleted, AssetUploaded, InputEvent, UserDeleted
from zccr_stream.parts import Encoder


@dataclass(frozen=True)
class Truth:
    """Per asset the greatest write, and whether the asset lives."""

    writes: dict[str, AssetUploaded | AssetDeleted]
    live: dict[str, AssetUploaded]
    deleted_users: dict[str, int]


def truth_of(events: Iterable[InputEvent]) -> Truth:
    """Take each asset's greatest write; it lives unless that is a deletion or its owner was deleted at or after it."""
    deleted_users: dict[str, int] = {}
    writes: dict[str, AssetUploaded | AssetDeleted] = {}
    for event in events:
        if isinstance(event, UserDeleted):
            deleted_users[event.user_id] = max(event.occurred_at_ns, deleted_users.get(event.user_id, 0))
        elif event.asset_id not in writes or _order(event) > _order(writes[event.asset_id]):
            writes[event.asset_id] = event
    live = {
        asset_id: write
        for asset_id, write in writes.items()
        if isinstance(write, AssetUploaded) and deleted_users.get(write.user_id, -1) < write.occurred_at_ns
    }
    return Truth(writes, live, deleted_users)


def _order(write: AssetUploaded | AssetDeleted) -> tuple[int, bool, str]:
    return write.occurred_at_ns, isinstance(write, AssetDeleted), write.event_id


def vectors_of(uploads: Sequence[AssetUploaded], encoder: Encoder) -> list[npt.NDArray[np.float16]]:
    """Each upload's vector, encoded alone."""
    vectors = []
    for upload in uploads:
        content = upload.text if upload.modality == TEXT else picture_of(upload.uri or "")
        assert content is not None
        vectors.append(encoder.encode(upload.modality, [content])[0].astype(np.float16))
    return vectors


def picture_of(data_uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data_uri.split(",", 1)[1]))).convert("RGB")


def assert_same_to_a_step(
    actual: npt.NDArray[np.floating], expected: npt.NDArray[np.floating], name: str = "vectors"
) -> None:
    """Hold that both round to the same float16 or to neighbours; below a thousandth, to within a millionth."""
    ours, theirs = actual.astype(np.float16), expected.astype(np.float16)
    step = np.spacing(np.maximum(np.maximum(np.abs(ours), np.abs(theirs)), np.float16(1e-3)))
    steps = np.abs(ours.astype(np.float32) - theirs) / step
    assert steps.max(initial=0) <= 1, f"{name}: {steps.max():.1f} float16 steps apart"
