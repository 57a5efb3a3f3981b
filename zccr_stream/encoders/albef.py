"""ALBEF (Li et al. 2021, arXiv:2107.07651; paper, section 3.1.2) from a checkpoint in the layout of the published ones.

ViT-B/16 and the first six layers of BERT, each with a projection to 256 numbers: what ALBEF's retrieval ranks by before
its fusion layers rank again. Fusion layers, heads, queues and momentum copies are left in the file.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import re
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.data.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.data.transforms_factory import create_transform
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from transformers.utils.hub import cached_file

from zccr_stream.encoders import ALBEF, ALBEF_DIMENSION, EncoderError, model_of, split_name, weights_file
from zccr_stream.encoders.towers import (
    LOAD_ERRORS,
    PRECISIONS,
    Towers,
    TowersEncoder,
    choose_device,
    choose_precision,
    padded,
)

PATCH = 16
"""Pixels along a side of a patch."""

WIDTH = 768
LAYERS = 6

TEXT_TOKENS_MAX = 30
"""What ALBEF's retrieval reads; its pre-training read 25."""

TAKEN = ("visual_encoder.", "text_encoder.", "vision_proj.", "text_proj.")

LEFT = re.compile(r"text_encoder\.(encoder\.layer\.([6-9]|1[01])\.|cls\.|embeddings\.(position|token_type)_ids$)")
"""Of the text encoder: the fusion layers, the head that guesses masked words, and what is no weight."""

CLEANED = str.maketrans("-/", "  ", ",.'!?\"()*#:;~")
"""What ALBEF's captions lose (its `pre_caption`); hyphens and slashes part words."""

BERT = "bert-base-uncased"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


def load(name: str, device: str, precision: str, batch_max: int, threads_max: int) -> TowersEncoder:
    """Load `albef/<file>`; see `zccr_stream.encoders.load_encoder`."""
    file = weights_file(*split_name(name))
    assert file is not None
    place = choose_device(device)
    precision = choose_precision(precision, place)
    weights = _weights(file)
    side = _side(weights, file)
    tokenizer = _tokenizer(_vocabulary(file))  # may ask the hub for a minute, so wrong weights are told before
    model = Albef(side)
    _fill(model, weights, file)
    if (dtype := PRECISIONS[precision]) is not None:
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.to(dtype)  # autocast would do it again in every pass
    model.eval().to(place)
    tokenize = padded(tokenizer, TEXT_TOKENS_MAX)
    towers = Towers(
        model=model_of(name),
        dimension=ALBEF_DIMENSION,
        prepare=create_transform(
            side, interpolation="bicubic", mean=OPENAI_CLIP_MEAN, std=OPENAI_CLIP_STD, crop_pct=1.0, crop_mode="squash"
        ),
        tokenize=lambda texts: tokenize([clean(text) for text in texts]),
        images=model.images,
        texts=model.texts,
    )
    return TowersEncoder(towers, place, precision, batch_max, threads_max)


class Albef(nn.Module):
    """Both towers, their parts named as in the checkpoints of ALBEF's retrieval.

    Args:
        side: pixels along a side of an image.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.visual_encoder = VisionTransformer(img_size=side, patch_size=PATCH, num_classes=0, weight_init="skip")
        self.text_encoder = BertModel(BertConfig(num_hidden_layers=LAYERS), add_pooling_layer=False)
        self.vision_proj = nn.Linear(WIDTH, ALBEF_DIMENSION)
        self.text_proj = nn.Linear(WIDTH, ALBEF_DIMENSION)

    def images(self, pixels: Tensor) -> Tensor:
        """Turn pixels (b, 3, side, side) into features (b, 256)."""
        features: Tensor = self.vision_proj(self.visual_encoder(pixels))
        return features

    def texts(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Turn ids (b, l) and lengths (b,) into features (b, 256)."""
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        states = self.text_encoder(tokens, attention_mask=mask).last_hidden_state
        features: Tensor = self.text_proj(states[:, 0])
        return features


def clean(text: str) -> str:
    """Clean a text as ALBEF cleans captions; its cut after 30 words comes later than that after 30 tokens."""
    return text.lower().translate(CLEANED).replace("<person>", "person")


def _weights(file: Path) -> dict[str, Any]:
    """Read `{"model": weights, …}` or weights alone, without running what a pickle may hold."""
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:  # mapped: a published file is three fourths of what is left in it
            mapped = zipfile.is_zipfile(file)
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except LOAD_ERRORS as error:
        raise _load_error(file, error) from error
    weights = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise EncoderError(f'{file} does not hold weights of {ALBEF}: expected a dict {{"model": weights}} or weights')
    return {str(name).replace("text_encoder.bert.", "text_encoder."): value for name, value in weights.items()}


def _load_error(file: Path, error: Exception) -> EncoderError:
    if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(file):
        names = ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file)))
        return EncoderError(
            f"{file} holds more than weights ({names}), and to load that may run what it likes. Where you trust it, "
            f"keep its weights alone: python -c \"import torch; torch.save({{'model': torch.load('{file}', "
            f"map_location='cpu', weights_only=False)['model']}}, 'weights.pth')\""
        )
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return EncoderError(f"{file} does not hold weights of {ALBEF}: {reason}")


def _side(weights: dict[str, Any], file: Path) -> int:
    """Pixels along a side of the images that the checkpoint's positions are for: 256, or 384 after fine-tuning."""
    positions = weights.get("visual_encoder.pos_embed")
    patches = positions.shape[1] - 1 if isinstance(positions, Tensor) and positions.ndim == 3 else 0
    along = math.isqrt(max(patches, 0))
    if not along or along * along != patches:
        found = tuple(positions.shape) if isinstance(positions, Tensor) else "missing"
        raise EncoderError(
            f"{file} does not hold weights of {ALBEF}: visual_encoder.pos_embed is {found}, expected "
            f"(1, 1 + n * n, {WIDTH}), with n = 16 in ALBEF.pth and 24 in mscoco.pth and flickr30k.pth"
        )
    return along * PATCH


def _fill(model: Albef, weights: dict[str, Any], file: Path) -> None:
    """Copy the weights of both towers into the model, in its float32."""
    taken = {name: value for name, value in weights.items() if name.startswith(TAKEN) and not LEFT.match(name)}
    try:
        model.load_state_dict(taken)
    except RuntimeError as error:
        _, _, reasons = str(error).partition("\n")
        raise EncoderError(
            f"{file} does not hold weights of {ALBEF}: {textwrap.shorten(reasons, 400)} Expected the names and shapes "
            "of ALBEF.pth, mscoco.pth or flickr30k.pth, as Salesforce published them"
        ) from error


def _vocabulary(file: Path) -> dict[str, int]:
    """Ids by word piece, from `vocab.txt` beside the checkpoint, else from transformers' cache or the hub."""
    path = file.with_name("vocab.txt")
    try:
        if not path.is_file():
            path = Path(cached_file(BERT, "vocab.txt") or path)
        pieces = path.read_text("utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"the word pieces of {BERT} cannot be had: put its vocab.txt beside {file} ({str(error).splitlines()[0]})"
        ) from error
    found = hashlib.sha256("".join(f"{piece}\n" for piece in pieces).encode()).hexdigest()
    if found != VOCABULARY_SHA256:  # the space's name tells the weights alone
        raise EncoderError(f"{path} is not the vocabulary of {BERT} (sha256 {found}, expected {VOCABULARY_SHA256})")
    return {piece: number for number, piece in enumerate(pieces)}


def _tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    """BERT's tokenizer as ALBEF changed it: a text begins with [CLS] and ends without [SEP]."""
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", vocabulary["[CLS]"])])
    return tokenizer
