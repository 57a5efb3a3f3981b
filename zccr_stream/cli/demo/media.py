"""Photos with a sentence each, by kind of thing: from a folder, the Tux Paint stamps, or a wheel's sample photos.

Comes in: a folder, or nothing. Goes out: kinds, each with its items. Knows nothing of users and encoders.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from zccr_stream.cli.upload import IMAGE_SUFFIXES

STAMPS_PACKAGE = "tuxpaint-stamps-default"
STAMPS_FOLDER = Path("/usr/share/tuxpaint/stamps")

_LICENCE_OF_STAMPS = "Tux Paint stamps (GPL-2+)"
_KINDS_MIN = 3
_ITEMS_PER_KIND_MIN = 6
_SIDE_MIN_PX = 48
# Drawings of letters and signs are no photos of things that people have an interest in.
_NO_PHOTOS = {"symbols", "cartoon", "roadsigns", "flags", "seasonal"}

# The photos in scikit-image's wheel have no captions; these say what is on them.
_SAMPLE_PHOTOS = {
    "space": {
        "astronaut.png": "An astronaut in her orange suit before a model of the space shuttle.",
        "rocket.jpg": "A rocket stands on the launch pad.",
        "hubble_deep_field.jpg": "Thousands of distant galaxies, seen by a space telescope.",
        "moon.png": "Craters on the surface of the moon.",
    },
    "kitchen and animals": {
        "coffee.png": "A cup of espresso with a spoon on a wooden table.",
        "chelsea.png": "A tabby cat looks into the camera.",
        "horse.png": "The outline of a horse.",
    },
    "street": {
        "motorcycle_left.png": "A motorcycle stands in a garage.",
        "motorcycle_right.png": "A motorcycle among tools and boxes.",
        "brick.png": "A wall of bricks.",
        "gravel.png": "Grey gravel on the ground.",
        "grass.png": "Short grass of a lawn.",
    },
}


class NoMediaError(Exception):
    """There are no photos to show; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Item:
    """A photo and the sentence that belongs to it."""

    name: str
    photo: Path
    sentence: str


@dataclass(frozen=True, slots=True)
class Media:
    """What there is to upload, and where it is from; `kinds` is in order, each kind's items too."""

    source: str
    kinds: Mapping[str, list[Item]]


def find_media(folder: Path | None, cache: Path, say: Callable[[str], None]) -> Media:
    """Find photos with sentences.

    Args:
        folder: any folder of images, each with a caption in a `.txt` file of the same name; None takes the Tux Paint
            stamps where Debian's package is installed or can be fetched, else a wheel's sample photos.
        cache: where fetched photos are kept.
        say: told what happens.

    Raises:
        NoMediaError: too few photos with captions.
    """
    if folder is not None:
        return Media(str(folder), _enough(_by_kind(folder, frozenset()), folder))
    if (stamps := _stamps(cache, say)) is not None:
        return Media(_LICENCE_OF_STAMPS, _enough(_by_kind(stamps, _NO_PHOTOS), stamps))
    say("no Tux Paint stamps here; taking the sample photos of scikit-image")
    return Media("sample photos of scikit-image", _sample_photos())


def _by_kind(folder: Path, left_out: set[str] | frozenset[str]) -> dict[str, list[Item]]:
    """Captioned photos by the folder they lie in, two levels deep."""
    kinds: dict[str, list[Item]] = {}
    for photo in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        parts = photo.relative_to(folder).parts[:-1]
        sentence = _sentence(photo.with_suffix(".txt"))
        if sentence and not left_out.intersection(parts) and _is_photo(photo):
            kinds.setdefault("/".join(parts[:2]) or "photos", []).append(
                Item("-".join([*parts[-1:], photo.stem]), photo, sentence)
            )
    return kinds


def _sentence(path: Path) -> str:
    """The caption: the file's first line (the stamps' further lines are translations)."""
    try:
        return path.read_text("utf-8", errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""


def _is_photo(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return min(image.size) >= _SIDE_MIN_PX
    except (UnidentifiedImageError, OSError):
        return False


def _enough(kinds: dict[str, list[Item]], folder: Path) -> dict[str, list[Item]]:
    large = {kind: items for kind, items in kinds.items() if len(items) >= _ITEMS_PER_KIND_MIN}
    if len(large) >= _KINDS_MIN:
        return dict(sorted(large.items(), key=lambda kind: (-len(kind[1]), kind[0])))
    items = [item for items in kinds.values() for item in items]
    if len(items) < _KINDS_MIN * _ITEMS_PER_KIND_MIN:
        raise NoMediaError(
            f"{folder} has {len(items)} photos with a caption in a .txt file of the same name; expected at least "
            f"{_KINDS_MIN * _ITEMS_PER_KIND_MIN}, best in folders by kind"
        )
    return {"photos": items}


def _stamps(cache: Path, say: Callable[[str], None]) -> Path | None:
    """The folder of the stamps: installed, fetched before, or fetched now; None where Debian's tools are not there."""
    fetched = cache / "stamps"
    for folder in (STAMPS_FOLDER, fetched / STAMPS_FOLDER.relative_to("/")):
        if folder.is_dir():
            return folder
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    say(f"fetching Debian's package {STAMPS_PACKAGE} (20 MB of pictures with a sentence each)")
    fetched.mkdir(parents=True, exist_ok=True)
    if not _fetch(fetched):
        return None
    (package,) = fetched.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, fetched], check=True)
    package.unlink()
    return fetched / STAMPS_FOLDER.relative_to("/")


def _fetch(folder: Path) -> bool:
    """Download the package; needs no rights beyond reading the lists of packages, which root may have to make first."""
    download = ["apt-get", "download", STAMPS_PACKAGE]
    for command in (download, ["apt-get", "update"], download):
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=300)
        if command is download and done.returncode == 0:
            return True
    return False


def _sample_photos() -> dict[str, list[Item]]:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise NoMediaError("no photos here: name a folder with --media, or install the extra: pip install '.[demo]'")
    folder = Path(spec.origin).parent / "data"
    return {
        kind: [Item(Path(name).stem, folder / name, sentence) for name, sentence in photos.items()]
        for kind, photos in _SAMPLE_PHOTOS.items()
    }
