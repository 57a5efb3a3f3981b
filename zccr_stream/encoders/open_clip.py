"""The encoder of production: any model of open_clip with a pretrained tag or a file of weights.

Loads the model once, chooses its precision, and gives its text tower as few positions as the texts need. Knows
nothing of batches and threads, which are `towers`' part.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from zccr_stream.encoders import ALBEF, MINI, EncoderError, model_of, split_name, weights_file
from zccr_stream.encoders.towers import LOAD_ERRORS, Towers, TowersEncoder, choose_device, choose_precision

CONTEXT_STEP = 8
"""Texts are cut to a multiple of this many tokens: fewer shapes to compile kernels for, and whole tiles on a GPU."""


def load(name: str, device: str, precision: str, batch_max: int, threads_max: int) -> TowersEncoder:
    """Load `<open_clip model>/<pretrained tag or file>`; see `zccr_stream.encoders.load_encoder`."""
    architecture, weights = split_name(name)
    dimension = dimension_of(architecture)
    file = weights_file(architecture, weights)
    if file is None:
        _check_tag(architecture, weights)
    place = choose_device(device)
    precision = choose_precision(precision, place)
    model, prepare = _create(architecture, weights, file, precision, place)
    towers = Towers(
        model=model_of(name),
        dimension=dimension,
        prepare=prepare,
        tokenize=_tokenizer(architecture, model),
        images=model.encode_image,
        texts=_text_tower(model),
    )
    return TowersEncoder(towers, place, precision, batch_max, threads_max)


def dimension_of(architecture: str) -> int:
    """Tell the length of a model's vectors."""
    return int(_config(architecture)["embed_dim"])


def _config(architecture: str) -> dict[str, Any]:
    config: dict[str, Any] | None = None
    known = open_clip.list_models()
    if architecture in known:
        config = open_clip.get_model_config(architecture)
    if config is None:
        spelled = {model.lower(): model for model in [MINI, ALBEF, *known]}
        near = [spelled[match] for match in difflib.get_close_matches(architecture.lower(), spelled, n=3)]
        hint = f"did you mean {' or '.join(near)}?" if near else "see open_clip.list_models()"
        raise EncoderError(f"open_clip has no model {architecture!r}: {hint}")
    return config


def _check_tag(architecture: str, tag: str) -> None:
    known = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in known:
        raise EncoderError(
            f"open_clip has no pretrained weights {tag!r} for {architecture}: "
            f"it has {', '.join(known) or 'none'}; for a file give its path, such as {architecture}//models/weights.pt"
        )


def _create(
    architecture: str, weights: str, file: Path | None, precision: str, device: torch.device
) -> tuple[Any, Callable[..., Tensor]]:
    """Build the model with its weights and its transform of images."""
    pretrained = open_clip.get_pretrained_cfg(architecture, weights) if file is None else {}
    try:
        model, _, prepare = open_clip.create_model_and_transforms(
            architecture,
            pretrained=str(file) if file else weights,
            precision=precision,
            device=device,
            force_quick_gelu=bool(pretrained.get("quick_gelu")),  # open_clip only warns where tag and model differ
            force_custom_text=True,  # a text tower of its own, which takes fewer positions than the whole context
        )
    except LOAD_ERRORS as error:
        raise _load_error(architecture, weights, file, error) from error
    return model.eval(), prepare


def _load_error(architecture: str, weights: str, file: Path | None, error: Exception) -> EncoderError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if file is not None:
        return EncoderError(f"{file} does not hold weights of {architecture}: {reason}")
    return EncoderError(
        f"the weights {architecture}/{weights} cannot be fetched: {reason}. Without a network, put them in a file "
        f"and name it ({architecture}//models/weights.safetensors), or use the encoder {MINI!r}"
    )


def _tokenizer(architecture: str, model: Any) -> Callable[[list[str]], tuple[Tensor, Tensor]]:
    """Tokenize to ids and lengths; the length is the whole context where the tower needs all of it."""
    try:
        tokenizer = open_clip.get_tokenizer(architecture)
    except (OSError, ImportError, ValueError) as error:
        raise EncoderError(
            f"the tokenizer of {architecture} cannot be fetched: {error}. Without a network use a model with "
            f"CLIP's own tokenizer, such as ViT-B-32, or the encoder {MINI!r}"
        ) from error
    cuts = _cuts(model.text)

    def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
        tokens: Tensor = tokenizer(texts)
        context = tokens.shape[1]
        if not cuts:
            return tokens, torch.full((len(texts),), context)
        steps = _end(model.text, tokens) // CONTEXT_STEP + 1
        return tokens, (steps * CONTEXT_STEP).clamp(max=context)

    return tokenize


def _cuts(tower: nn.Module) -> bool:
    """Whether positions after a text's end change nothing: no token looks ahead, and the end's state is the text's."""
    return (
        isinstance(tower, open_clip.transformer.TextTransformer)
        and tower.attn_mask is not None
        and tower.cls_emb is None
        and tower.pool_type in ("argmax", "eos")
    )


def _end(tower: Any, tokens: Tensor) -> Tensor:
    """(n,): where each text ends, as the tower itself finds it."""
    return tokens.argmax(dim=1) if tower.pool_type == "argmax" else (tokens == tower.eos_id).int().argmax(dim=1)


def _text_tower(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    tower, cuts = model.text, _cuts(model.text)

    def features(tokens: Tensor, lengths: Tensor) -> Tensor:
        length = tokens.shape[1]
        if not cuts or length == tower.context_length:
            whole: Tensor = model.encode_text(tokens)
            return whole
        mask = {"attn_mask": tower.attn_mask[:length, :length]}
        cut: Tensor = torch.func.functional_call(tower, mask, (tokens,))
        return cut

    return features
