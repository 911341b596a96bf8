"""The sizes of pictures that a text-to-image model learns from and draws: its own square, or several."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from upturn.diffusion import scheduled
from upturn.diffusion.denoiser import Formulation
from upturn.errors import UserError
from upturn.models._text_to_image.architectures.architecture import Family
from upturn.models._text_to_image.cache import size_of
from upturn.types import Array, Batch, Stacks, by_size

_DEFAULT_LATENTS = 128  # a side, where the denoiser's config does not say: Flux's pipeline


def patch_of(family: Family, config: Any) -> int:
    """Latents a side that the denoiser takes at once."""
    return int(getattr(config, "patch_size", None) or 1) if family.patch == 1 else family.patch


def side(size: int, factor: int, family: Family, config: Any) -> int:
    """Latents a side of squares of ``size`` pixels, 0 for the denoiser's own. UserError where they do not fit."""
    patch = patch_of(family, config)
    if not size:
        own = getattr(config, "sample_size", None) or _DEFAULT_LATENTS
        return int(own if isinstance(own, int) else own[0])
    unit = factor if size % factor else patch * factor  # of the two, the one that is missed
    if size % unit:
        raise UserError(
            f"pictures of {size} pixels do not fit: the size must be a multiple of {unit}", where="model.size",
            fix="Change 'size:'.",
        )
    return size // factor


def odd(model: Any, height: int, width: int) -> str:
    """Why this model cannot have pictures of this size; empty where it can."""
    family, config, factor = model.pipeline.family, model.pipeline.denoiser.config, model.latents.factor
    unit = patch_of(family, config) * factor
    most = family.most(config)
    if height % unit or width % unit:
        return f"pictures of {width}x{height} pixels do not fit: both sides must be multiples of {unit}"
    if most and max(height, width) > most * factor:
        return f"pictures of {width}x{height} pixels do not fit: the transformer has places for {most * factor} a side"
    return ""


def check(model: Any, content: Array) -> None:
    """Raises UserError for pictures that the model cannot learn from: of a square it is sure that its own was meant."""
    wanted = (model.pixels, model.pixels, 3)
    for _, alike in by_size(content):
        height, width, channels = alike.shape[1:] if alike.ndim == 4 else (0, 0, 0)
        right = alike.shape[1:] == wanted or (content.dtype == object or height != width)
        if alike.dtype != np.uint8 or channels != 3 or not right:
            raise UserError(
                f"the examples are {alike.dtype} of shape {'x'.join(map(str, alike.shape[1:]))}, the model takes "
                f"uint8 pictures of {'x'.join(map(str, wanted))}", where="model.size",
                fix=f"Write 'size: {model.pixels}' for the data, or another 'size:' for the model.",
            )
        why = odd(model, height, width)
        if why:
            raise UserError(
                why, where="data.buckets", fix="Change 'step:' of the buckets, or the 'size:' of data and model."
            )


def own_size(content: Array) -> int:
    """Pixels a side of the examples' squares. Raises UserError where they are of several sizes."""
    if content.dtype == object:
        raise UserError(
            "the examples have several sizes, and a model from nothing must be told its own", where="model.size",
            fix="Write the 'size:' of the data for the model, too.",
        )
    return int(content.shape[1])


def drawn_shape(model: Any, settings: Any) -> tuple[int, ...]:
    """Of the latents that these settings ask for. Raises UserError for a size that the model cannot have."""
    height, width = settings.height, settings.width
    shape: tuple[int, ...] = model.frame.shape
    if height is None or width is None:
        return shape
    why = odd(model, height, width)
    if why:
        raise UserError(why, where="settings.width, settings.height", fix="Ask for other sides.")
    return (shape[0], height // model.latents.factor, width // model.latents.factor)


def row_shape(model: Any, batch: Batch) -> tuple[int, ...]:
    """Of the latents of a taken batch, whose rows are latents or pixels."""
    factor = 1 if model.cache else model.latents.factor
    high, wide = batch["x"].shape[-2:]
    return (model.frame.shape[0], high // factor, wide // factor)


def formulation(pipeline: Any, where: str, high: int, wide: int) -> Formulation:
    """Of latents of this size: some schedulers shift their noise levels by the number of tokens."""
    family, patch = pipeline.family, patch_of(pipeline.family, pipeline.denoiser.config)
    return scheduled.formulation(
        pipeline.scheduler, where, tokens=(high // patch) * (wide // patch), time=family.time, last=family.last
    )


def seen(model: Any, content: Array) -> Tensor | Stacks:
    """(N, …) what the autoencoder says of pictures, or their pixels where nothing is cached."""
    parts = list(by_size(content))
    sizes = frozenset(size_of(alike) for _, alike in parts)
    found = [_seen(model, alike, sizes) for _, alike in parts]
    if content.dtype != object:
        return found[0]
    back = torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable"))
    return Stacks.joined([part if isinstance(part, Stacks) else Stacks.of(part) for part in found], back)


def _seen(model: Any, content: Array, sizes: frozenset[str]) -> Tensor | Stacks:
    if model.shelf is not None and len(content):
        kept: Stacks = model.shelf.latents(model.latents, content, sizes)
        return kept
    pixels: Tensor = model.latents.pixels(content)
    said: Tensor = model.latents.moments(pixels, at_once=1) if model.cache else pixels
    return said
