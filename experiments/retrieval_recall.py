"""How well an encoder finds a picture by its sentence, and a sentence by its picture.

    python -m experiments.retrieval_recall --data DIR [DIR ...] [--encoder NAME] [--json FILE]

A folder holds `captions.jsonl` with a line `{"image": NAME, "captions": [...]}` per picture (in the folder or in its
`images`), or pictures beside a `.txt` file of the same name, at any depth. A picture's first sentence counts; of
pictures with the same sentence only the first, as no encoder can tell which is meant. R@k is the share of queries whose
own counterpart is among the k nearest; ties count against it. Contents are fetched and decoded as the stream does it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from zccr_stream import assemble
from zccr_stream.events import IMAGE, TEXT, AssetUploaded
from zccr_stream.pipeline import Content, Encoder
from zccr_stream.settings import Settings

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
KS = (1, 5, 10)
Pair = tuple[Path, str]
Vectors = npt.NDArray[np.float32]


def main() -> None:
    """Encode all pairs, print recall in both directions and the encoder's pace, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of captioned pictures")
    parser.add_argument("--encoder", default="mini", help="`mini`, or <open_clip model>/<pretrained tag or file>")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--limit", type=int, help="pairs at most")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    pairs = [pair for folder in options.data for pair in captioned(folder.resolve())]
    pairs = list({sentence: (path, sentence) for path, sentence in reversed(pairs)}.values())[::-1][: options.limit]
    if not pairs:
        parser.error(f"no captioned pictures in {', '.join(map(str, options.data))}")

    report = measure(pairs, options.encoder, options.device)
    print(f"{report['model']}, {len(pairs):,} pairs")
    for direction in ("text to image", "image to text"):
        print(f"{direction}: " + ", ".join(f"R@{k} {share:.3f}" for k, share in report[direction].items()))
    for modality in (IMAGE, TEXT):
        print(f"{modality}s encoded per second: {report[f'{modality}s_per_s']:.0f}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def measure(pairs: Sequence[Pair], encoder: str, device: str) -> dict[str, Any]:
    """Encode the pairs that can be read, and count."""
    root = Path(os.path.commonpath([path.parent for path, _ in pairs]))
    settings = Settings(encoder=encoder, device=device, file_root=root)
    loaded = assemble.encoder(settings)
    contents = assemble.contents(settings)
    uploads = [_upload(path) for path, _ in pairs]
    images, texts = [], []
    spent_s = {IMAGE: 0.0, TEXT: 0.0}
    with Progress(transient=True) as progress:
        for batch in progress.track(list(_batches(len(pairs), settings.encode_batch_max)), description="encoding"):
            pictures: list[Content] = []
            for content in contents.load(uploads[batch]):
                if isinstance(content, Exception):
                    raise SystemExit(f"a picture cannot be read: {content}")
                pictures.append(content)
            images.append(_timed(loaded, IMAGE, pictures, spent_s))
            texts.append(_timed(loaded, TEXT, [sentence for _, sentence in pairs[batch]], spent_s))
    image, text = np.concatenate(images), np.concatenate(texts)
    return {
        "model": loaded.model,
        "pairs": len(pairs),
        "text to image": recall(text, image),
        "image to text": recall(image, text),
        "images_per_s": len(pairs) / spent_s[IMAGE],
        "texts_per_s": len(pairs) / spent_s[TEXT],
    }


def recall(queries: Vectors, answers: Vectors) -> dict[int, float]:
    """R@k where row i of `queries` (n, d) is answered by row i of `answers` (n, d)."""
    cosines = queries @ answers.T
    ahead = (cosines >= np.diag(cosines)[:, None]).sum(axis=1) - 1
    return {k: float((ahead < k).mean()) for k in KS}


def captioned(folder: Path) -> Iterator[Pair]:
    """Find the pictures of a folder and the first sentence of each."""
    listing = folder / "captions.jsonl"
    if listing.is_file():
        place = folder / "images" if (folder / "images").is_dir() else folder
        for line in listing.read_text("utf-8").splitlines():
            entry = json.loads(line)
            yield place / entry["image"], entry["captions"][0]
        return
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.with_suffix(".txt").is_file():
            sentence = path.with_suffix(".txt").read_text("utf-8", errors="replace").partition("\n")[0].strip()
            if sentence:
                yield path, sentence


def _timed(encoder: Encoder, modality: str, contents: Sequence[Content], spent_s: dict[str, float]) -> Vectors:
    started = time.perf_counter()
    vectors = encoder.encode(modality, contents)
    spent_s[modality] += time.perf_counter() - started
    return vectors


def _upload(path: Path) -> AssetUploaded:
    return AssetUploaded(str(path), 0, 0, str(path), "nobody", IMAGE, uri=path.as_uri())


def _batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


if __name__ == "__main__":
    main()
