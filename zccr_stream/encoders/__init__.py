"""Contents of one modality come in, unit vectors of one space of images and texts go out (paper, section 3.1).

`open_clip` encodes with any model of open_clip, `albef` with a checkpoint of ALBEF, `mini` is small, offline and
weaker. All are a pair of towers that `towers` runs in bounded batches. Importing this package loads neither torch nor a
model; `load_encoder` does.
Knows nothing of where contents come from and where vectors go.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zccr_stream.encoders.towers import TowersEncoder

MINI = "mini"
"""Its name is its space's too: whatever moves its vectors needs another name."""

MINI_DIMENSION = 384

ALBEF = "albef"
ALBEF_DIMENSION = 256

EXTRAS = {"open_clip": "", "timm": "[albef]", "transformers": "[albef]"}
"""That bring a package; all others come with `[demo]`."""


class EncoderError(Exception):
    """The encoder cannot be had as it was asked for; the message says what to do."""


def load_encoder(name: str, device: str, *, precision: str, batch_max: int, threads_max: int) -> TowersEncoder:
    """Load an encoder by its name.

    Args:
        name: `mini`, `albef/<file>`, or `<open_clip model>/<pretrained tag or file>`. A file is told from a tag by a
            slash or a suffix, so an absolute path gives two slashes: `ViT-B-32//models/weights.pt`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `auto`, `fp32`, `bf16` or `fp16`. `auto` is fp16 on a GPU, bf16 on a CPU that multiplies it in
            hardware, else fp32. `mini` is always fp32.
        batch_max: most contents per forward pass.
        threads_max: most images prepared side by side.

    Raises:
        EncoderError: no such model, tag, file or device, or weights that do not fit or cannot be fetched.
    """
    # Read by OpenMP when torch is loaded. Threads that wait actively burn what others need: on 2 cores that were busy
    # otherwise, the same texts took 14 s of CPU instead of 4.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if name == MINI:
        from zccr_stream.encoders import mini

        return mini.load(device, precision, batch_max, threads_max)
    if split_name(name)[0] == ALBEF:
        for package in ("timm", "transformers"):
            package_folder(package)
        from zccr_stream.encoders import albef

        return albef.load(name, device, precision, batch_max, threads_max)
    from zccr_stream.encoders import open_clip

    return open_clip.load(name, device, precision, batch_max, threads_max)


def model_of(name: str) -> str:
    """Name the space of an encoder without loading it: what `load_encoder(name, …).model` will be.

    Weights in a file are named by what they hold, `ViT-B-32/sha256:1f0c…`: a renamed or moved file is the same
    space, other weights under the same name are another, and no folder is told to anyone.

    Raises:
        EncoderError: not a name of an encoder, or the file is not there.
    """
    if name == MINI:
        return MINI
    architecture, weights = split_name(name)
    path = weights_file(architecture, weights)
    return name if path is None else f"{architecture}/sha256:{_digest(path)[:16]}"


def dimension_of(name: str) -> int:
    """Tell the length of an encoder's vectors without loading it: what `load_encoder(name, …).dimension` will be.

    Raises:
        EncoderError: not a name of an encoder.
    """
    if name == MINI:
        return MINI_DIMENSION
    architecture, _ = split_name(name)
    if architecture == ALBEF:
        return ALBEF_DIMENSION
    config = package_folder("open_clip") / "model_configs" / f"{architecture}.json"
    if config.is_file():  # read as it is: importing open_clip takes seconds, and not every process encodes
        return int(json.loads(config.read_bytes())["embed_dim"])
    from zccr_stream.encoders import open_clip

    return open_clip.dimension_of(architecture)


def split_name(name: str) -> tuple[str, str]:
    """Split `<model>/<pretrained tag or file>`."""
    architecture, _, weights = name.partition("/")
    if not architecture or not weights:
        raise EncoderError(
            f"encoder {name!r}: expected {MINI!r}, {ALBEF}/<file> or <open_clip model>/<pretrained tag or file>, "
            "such as ViT-B-32/laion2b_s34b_b79k or ViT-B-32//models/weights.pt"
        )
    return architecture, weights


def weights_file(architecture: str, weights: str) -> Path | None:
    """Return the file that `weights` names, or None where it is a tag of open_clip (no slash, no suffix)."""
    path = Path(weights)
    if architecture != ALBEF and "/" not in weights and not path.suffix:
        return None
    if not path.is_file():
        raise EncoderError(f"no weights file {weights!r}: give the path of a file that this process can read")
    return path


def package_folder(package: str) -> Path:
    """Find the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        extra = EXTRAS.get(package, "[demo]")
        raise EncoderError(f"the package {package} is not installed: install zccr-stream{extra}")
    return Path(spec.origin).parent


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(f"weights file {path} cannot be read: {error}") from error
