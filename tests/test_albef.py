"""What is particular to ALBEF; what it shares with all encoders stands in test_encoders.py."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.albef_reference import Layout, Reference, checkpoint, written
from zccr_stream.encoders import EncoderError, albef, dimension_of, load_encoder, model_of, towers

CLS = 101
TEXT = "Two dogs -- a <person>, and a red/blue ball!"
NORM = "text_encoder.bert.embeddings.LayerNorm.bias"
CLEAN = "two dogs a person and a red blue ball"


def load(file: Path, precision: str = "fp32") -> towers.TowersEncoder:
    return load_encoder(f"albef/{file}", "cpu", precision=precision, batch_max=8, threads_max=2)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint for images so small that they cost little."""
    return written(tmp_path_factory.mktemp("albef"), "retrieval", 32)


@pytest.fixture(scope="module")
def encoder(file: Path) -> towers.TowersEncoder:
    return load(file)


@pytest.fixture(scope="module")
def model() -> albef.Albef:
    return albef.Albef(32)


def ids(file: Path, words: str) -> list[int]:
    """Of words that are word pieces."""
    vocabulary = file.with_name("vocab.txt").read_text("utf-8").split("\n")
    return [vocabulary.index(word) for word in words.split()]


# Vectors


@pytest.mark.parametrize(("layout", "side"), [("pretraining", 256), ("retrieval", 384)])
def test_vectors_are_those_of_albef(tmp_path: Path, layout: Layout, side: int) -> None:
    """Of both published layouts, at the resolution of each, in both modalities."""
    file = written(tmp_path, layout, side)
    encoder, reference = load(file), Reference(checkpoint(layout, side))
    picture = Image.fromarray(np.random.default_rng(side).integers(0, 256, (5, 7, 3), np.uint8)).resize((300, 200))
    texts = [TEXT, "a dog"]

    images, captions = encoder.encode("image", [picture]), encoder.encode("text", texts)

    assert encoder.dimension == 256
    np.testing.assert_allclose(images[0], reference.image(picture, side).numpy(), atol=1e-4)
    for vector, words in zip(captions, (CLEAN, "a dog"), strict=True):
        np.testing.assert_allclose(vector, reference.text([CLS, *ids(file, words)]).numpy(), atol=1e-4)


def test_texts_are_read_as_albef_reads_them(file: Path, encoder: towers.TowersEncoder) -> None:
    """Cleaned, in lower case, without accents, from [CLS] and with no [SEP], to at most 30 tokens."""
    tokens, lengths = encoder._towers.tokenize([TEXT, "Café", "?!", "dog " * 40])

    read = [row[:length].tolist() for row, length in zip(tokens, lengths.tolist(), strict=True)]
    assert read == [[CLS, *ids(file, words)] for words in (CLEAN, "cafe", "", "dog " * 29)]


def test_bf16_stays_close(file: Path, encoder: towers.TowersEncoder) -> None:
    texts, picture = ["a dog", TEXT], Image.linear_gradient("L").convert("RGB")
    lower = load(file, "bf16")

    for modality, contents in (("text", texts), ("image", [picture])):
        vectors = lower.encode(modality, contents)
        assert (vectors != encoder.encode(modality, contents)).any()
        assert (vectors * encoder.encode(modality, contents)).sum(axis=1).min() > 0.999


# Names


def test_the_space_is_known_before_anything_is_loaded(
    file: Path, encoder: towers.TowersEncoder, tmp_path: Path
) -> None:
    """Named by what the file holds, wherever it lies, without importing torch."""
    moved = tmp_path / "checkpoint"  # needs no suffix: there are no tags that it could be taken for
    moved.write_bytes(file.read_bytes())
    code = "import sys; from zccr_stream.encoders import *; from zccr_stream.encoders import dimension_of, model_of\n"
    code += "print(model_of(sys.argv[1]), dimension_of(sys.argv[1])); sys.exit('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code, f"albef/{moved}"], check=True, capture_output=True, text=True)

    assert done.stdout.split() == [model_of(f"albef/{file}"), "256"] == [encoder.model, "256"]
    assert model_of(f"albef/{file}").startswith("albef/sha256:")
    assert dimension_of(f"albef/{file}") == 256


# Files


def test_weights_are_read_in_the_forms_they_come_in(file: Path, tmp_path: Path) -> None:
    weights = {name: value.contiguous() for name, value in checkpoint("pretraining", 32).items() if value.ndim == 1}
    torch.save(weights, tmp_path / "bare.pth")
    torch.save({"model": weights}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({name: value.clone() for name, value in weights.items()}, tmp_path / "weights.safetensors")

    for name in ("bare.pth", "old.pth", "weights.safetensors"):
        read = albef._weights(tmp_path / name)
        assert len(read) == len(weights)
        assert torch.equal(read["text_encoder.embeddings.LayerNorm.bias"], weights[NORM])


LAYER = "text_encoder.encoder.layer.5.crossattention.self.query.bias"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vision_proj.weight", None, 'Missing key.*"vision_proj.weight"'),
        ("text_encoder.encoder.layer.5.output.dense.bias", None, "Missing key.*layer.5.output.dense.bias"),
        ("visual_encoder.blocks.3.attn.qkv.weight", torch.zeros(3, 3), r"size mismatch.*qkv.weight.*\[2304, 768\]"),
        ("visual_encoder.blocks.12.norm1.bias", torch.zeros(768), "Unexpected key.*blocks.12"),
        (LAYER, torch.zeros(768), "Unexpected key.*layer.5.crossattention"),
    ],
    ids=["no projection", "a layer short", "another shape", "more blocks", "fusion too early"],
)
def test_weights_of_another_architecture_are_refused(
    model: albef.Albef, name: str, value: torch.Tensor | None, message: str
) -> None:
    weights = checkpoint("retrieval", 32)
    if value is None:
        del weights[name]
    else:
        weights[name] = value

    with pytest.raises(
        EncoderError, match=rf"x.pth does not hold weights of albef: .*{message}.* Expected .*ALBEF.pth"
    ):
        albef._fill(model, weights, Path("x.pth"))


@pytest.mark.parametrize("shape", [None, (1, 5), (1, 0, 768), (1, 1, 768), (1, 4, 768)])
def test_positions_that_are_no_square_are_refused(shape: tuple[int, ...] | None) -> None:
    weights = {} if shape is None else {"visual_encoder.pos_embed": torch.zeros(shape)}

    with pytest.raises(EncoderError, match=r"pos_embed is .*, expected \(1, 1 \+ n \* n, 768\)"):
        albef._side(weights, Path("x.pth"))


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x02}q\x00.", b"PK\x03\x04"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_holds_no_weights_is_named(file: Path, tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    (tmp_path / "vocab.txt").symlink_to(file.with_name("vocab.txt"))

    with pytest.raises(EncoderError, match=rf"weights\{suffix} does not hold weights of albef: "):
        load(path)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._folder),)


def test_what_a_pickle_holds_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the message says how to keep the weights alone."""
    path, folder = tmp_path / "trap.pth", tmp_path / "folder"
    torch.save({"model": checkpoint("retrieval", 32), "args": Trap(folder)}, path)

    with pytest.raises(EncoderError, match=r"holds more than weights \(\w+\.mkdir\).*weights_only=False") as caught:
        albef._weights(path)

    assert not folder.exists()
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).partition("python -c ")[2].strip('"'), {})
    assert len(albef._weights(tmp_path / "weights.pth")) == len(checkpoint("retrieval", 32))


# The vocabulary


def test_another_vocabulary_is_refused(file: Path, tmp_path: Path) -> None:
    """The space's name tells the weights alone."""
    (tmp_path / "vocab.txt").write_text(file.with_name("vocab.txt").read_text("utf-8").replace("\ndog\n", "\ngod\n"))

    with pytest.raises(EncoderError, match=r"vocab.txt is not the vocabulary of bert-base-uncased"):
        albef._vocabulary(tmp_path / "x.pth")


def test_line_ends_of_the_vocabulary_do_not_matter(file: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(file.with_name("vocab.txt").read_bytes().replace(b"\n", b"\r\n"))

    assert albef._vocabulary(tmp_path / "x.pth")["[CLS]"] == CLS


def test_a_vocabulary_that_cannot_be_had_says_where_to_put_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(EncoderError, match=r"put its vocab.txt beside .*x.pth"):
        albef._vocabulary(tmp_path / "x.pth")


@pytest.mark.parametrize("package", ["timm", "transformers"])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, file: Path, package: str) -> None:
    find = importlib.util.find_spec

    def found(name: str) -> ModuleSpec | None:
        return None if name == package else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", found)

    with pytest.raises(EncoderError, match=rf"{package} is not installed: install zccr-stream\[albef\]"):
        load(file)
