"""The demo as one self-contained page: each user's profile, areas of interest and recommendations (paper, Figure 1).

Comes in: users, their recommendations, the times. Goes out: HTML with the thumbnails inside, no script, no requests.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image

from zccr_stream.cli.demo.cast import Upload, User
from zccr_stream.events import IMAGE, MODALITIES

_THUMBNAIL_PX = 160
_FEED_SHOWN = 16


@dataclass(frozen=True, slots=True)
class Shown:
    """An asset as the page shows it: its picture or its sentence, whose it is, and how close it is."""

    owner: str
    kind: str
    sentence: str
    picture: str | None
    score: float | None = None
    loved: bool = False


def render(
    users: Sequence[User],
    recommendations: Mapping[str, dict[str, Any]],
    seconds: Mapping[str, float],
    facts: Sequence[tuple[str, str]],
) -> str:
    """Write the page."""
    uploads = {upload.asset_id: (user.user_id, upload) for user in users for upload in user.uploads}
    templates = Environment(
        loader=PackageLoader("zccr_stream.cli.demo", "."), autoescape=select_autoescape(default=True)
    )
    return templates.get_template("page.html.j2").render(
        facts=facts,
        users=[_user(user, recommendations[user.user_id], seconds.get(user.user_id), uploads) for user in users],
    )


def _user(
    user: User, recommendations: dict[str, Any], seconds: float | None, uploads: Mapping[str, tuple[str, Upload]]
) -> dict[str, Any]:
    def hit(item: Mapping[str, Any]) -> Shown:
        owner, upload = uploads[item["asset_id"]]
        return _shown(owner, upload, item["score"], upload.kind in user.kinds)

    return {
        "name": user.user_id,
        "modalities": " and ".join(f"{modality}s" for modality in user.modalities),
        "milliseconds": None if seconds is None else round(seconds * 1000),
        "version": recommendations["profile_version"],
        "profile": [_shown(user.user_id, upload) for upload in user.uploads],
        "areas": [
            {
                "modality": area["modality"],
                "size": area["size"],
                "weight": area["weight"],
                "representative": _shown(*uploads[area["representative"]]),
                "recommended": {
                    modality: [hit(item) for item in area["recommended"][modality][:6]] for modality in MODALITIES
                },
            }
            for area in recommendations["areas"]
        ],
        "feed": [hit(item) for item in recommendations["feed"][:_FEED_SHOWN]],
    }


def _shown(owner: str, upload: Upload, score: float | None = None, loved: bool = False) -> Shown:
    picture = _thumbnail(upload.item.photo) if upload.modality == IMAGE else None
    return Shown(owner, upload.kind, upload.item.sentence, picture, score, loved)


@cache
def _thumbnail(photo: Path) -> str:
    with Image.open(photo) as opened:
        image = opened.convert("RGBA")
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    white = Image.new("RGBA", image.size, "white")
    encoded = io.BytesIO()
    Image.alpha_composite(white, image).convert("RGB").save(encoded, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
