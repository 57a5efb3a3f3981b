"""Make `zccr_stream/encoders/mini_names.npy`, the class names that `mini` places pictures by.

    python -m experiments.mini_names

Embeds open_clip's names of the 1,000 ImageNet classes with MiniLM, "a photo of a {}" each, and centres them on their
mean: (1000, 384) float16. It is a file because embedding them would take seconds of each start of a process.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

from zccr_stream.encoders import load_encoder
from zccr_stream.encoders.mini import NAMES_FILE
from zccr_stream.events import TEXT

PROMPT = "a photo of a {}"


def main() -> None:
    """Write the file."""
    np.save(NAMES_FILE, class_names())
    print(f"wrote {NAMES_FILE}")


def class_names() -> npt.NDArray[np.float16]:
    """Embed the names, (1000, 384), in the order of the classifier's classes."""
    encoder = load_encoder("mini", "cpu", precision="fp32", batch_max=64, threads_max=1)
    names = encoder.encode(TEXT, [PROMPT.format(name) for name in IMAGENET_CLASSNAMES])
    centred: npt.NDArray[np.float16] = (names - names.mean(axis=0)).astype(np.float16)
    return centred


if __name__ == "__main__":
    main()
