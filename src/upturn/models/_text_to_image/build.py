"""A text-to-image model's live parts, from a pipeline's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from upturn.diffusion.joint import Joint
from upturn.models._diffusion.normalization import Frame
from upturn.models._text_to_image import resolutions
from upturn.models._text_to_image.cache import Cache
from upturn.models._text_to_image.caption_cache import Captions
from upturn.models._text_to_image.conditioning import TextCaller
from upturn.models._text_to_image.latents import Latents
from upturn.models._text_to_image.pipeline import Pipeline


def settle(model: Any, pipeline: Pipeline, size: int) -> None:
    """Into a ``TextToImage``; ``size`` 0 is the pipeline's own. Raises UserError where the size does not fit."""
    family, model.pipeline, model.words = pipeline.family, pipeline, ()
    model.inverts, model.pipeline_class = family.inverts, str(family.index["_class_name"])
    at = "cuda" if torch.cuda.is_available() else "cpu"
    model.latents = Latents(pipeline.vae.to(at), family.shifts)
    factor = model.latents.factor
    side = resolutions.side(size, factor, family, pipeline.denoiser.config)
    channels = model.latents.channels
    model.frame = Frame((channels, side, side), (0.0,) * channels, 1.0, 1.0)
    model.form = resolutions.formulation(pipeline, model._where, side, side)
    model._operations, model._forms = {}, {}
    if model.gradient_checkpointing:
        pipeline.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    trained = {
        name: encoder for name, encoder in pipeline.encoders.items() if model.trains_text and name in family.trains
    }
    for encoder in trained.values():
        encoder.requires_grad_(True)
    model.module = Joint(family, factor, pipeline.denoiser, trained) if trained else pipeline.denoiser
    silent: dict[str, Tensor] = {}
    for name in family.encoders:
        if name not in pipeline.encoders:
            silent |= family.silent(name, pipeline.denoiser, 1)
    frozen = {name: encoder.to(at) for name, encoder in pipeline.encoders.items() if name not in trained}
    model.shelf = Cache(Path(model.cache).expanduser()) if isinstance(model.cache, str) else None
    model.captions = Captions(
        family, pipeline.tokenizers, frozen, frozenset(trained), silent, bool(model.cache), model.shelf
    )
    model.caller = TextCaller(family, model.captions, factor, bool(trained))
