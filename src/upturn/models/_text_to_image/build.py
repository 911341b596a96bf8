"""Assembles a text-to-image model on the device from the parts of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from upturn.diffusion.denoiser import Formulation
from upturn.diffusion.joint import Joint
from upturn.models._diffusion.normalization import Frame
from upturn.models._text_to_image import resolutions
from upturn.models._text_to_image.cache import Cache
from upturn.models._text_to_image.caption_cache import Captions
from upturn.models._text_to_image.conditioning import TextCaller
from upturn.models._text_to_image.latents import Latents
from upturn.models._text_to_image.pipeline import Pipeline


@dataclass(frozen=True, eq=False)
class Parts:
    """``module`` is the trained part: the denoiser, with the trained text encoders."""

    pipeline: Pipeline
    latents: Latents
    sizes: resolutions.ImageSizes
    frame: Frame
    form: Formulation
    module: nn.Module
    captions: Captions
    caller: TextCaller
    disk_cache: Cache | None


def assemble(
    pipeline: Pipeline, size: int, where: str, *, trains_text: bool, cache: bool | str, gradient_checkpointing: bool
) -> Parts:
    """Of squares of ``size`` pixels, 0 for the pipeline's own. Raises UserError where the size does not fit."""
    family = pipeline.family
    device = "cuda" if torch.cuda.is_available() else "cpu"
    latents = Latents(pipeline.vae.to(device), family.shifts)
    side = resolutions.side(size, latents.factor, family, pipeline.denoiser.config)
    frame = Frame((latents.channels, side, side), (0.0,) * latents.channels, 1.0, 1.0)
    form = resolutions.formulation(pipeline, where, side, side)
    if gradient_checkpointing:
        pipeline.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    trained = {name: encoder for name, encoder in pipeline.encoders.items() if trains_text and name in family.trains}
    for encoder in trained.values():
        encoder.requires_grad_(True)
    module = Joint(family, latents.factor, pipeline.denoiser, trained) if trained else pipeline.denoiser
    absent: dict[str, Tensor] = {}
    for name in family.encoders:
        if name not in pipeline.encoders:
            absent |= family.absent(name, pipeline.denoiser, 1)
    frozen = {name: encoder.to(device) for name, encoder in pipeline.encoders.items() if name not in trained}
    disk_cache = Cache(Path(cache).expanduser()) if isinstance(cache, str) else None
    captions = Captions(family, pipeline.tokenizers, frozen, frozenset(trained), absent, bool(cache), disk_cache)
    return Parts(
        pipeline, latents, resolutions.sizes_of(pipeline, latents, frame.shape), frame, form, module, captions,
        TextCaller(family, captions, latents.factor, bool(trained)), disk_cache,
    )
