"""The image sizes that a text-to-image model trains on and samples: its own square, or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from upturn.diffusion import scheduled
from upturn.diffusion.denoiser import Formulation
from upturn.errors import UserError
from upturn.models._text_to_image.architectures.architecture import Family
from upturn.models._text_to_image.cache import Cache, size_of
from upturn.models._text_to_image.latents import Latents
from upturn.models._text_to_image.pipeline import Pipeline
from upturn.models._text_to_image.sampling import TextToImageSampling
from upturn.types import Array, Batch, Stacks, by_size

if TYPE_CHECKING:
    from diffusers.configuration_utils import FrozenDict

_DEFAULT_LATENTS = 128  # a side, where the denoiser's config does not say: Flux's pipeline


def patch_of(family: Family, config: FrozenDict) -> int:
    """Latents a side of one token of the denoiser."""
    return int(getattr(config, "patch_size", None) or 1) if family.patch == 1 else family.patch


def side(size: int, factor: int, family: Family, config: FrozenDict) -> int:
    """Latents a side of squares of ``size`` pixels, 0 for the denoiser's own.

    Raises UserError where the size does not fit.
    """
    patch = patch_of(family, config)
    if not size:
        own = getattr(config, "sample_size", None) or _DEFAULT_LATENTS
        return int(own if isinstance(own, int) else own[0])
    unit = factor if size % factor else patch * factor  # the one of the two that does not divide the size
    if size % unit:
        raise UserError(
            f"images of {size} pixels do not fit: the size must be a multiple of {unit}", where="model.size",
            fix="Change 'size:'.",
        )
    return size // factor


@dataclass(frozen=True)
class ImageSizes:
    """What sizes a model takes: multiples of ``unit`` pixels, up to ``most`` (0: any)."""

    shape: tuple[int, ...]  # (C, h, w) of the latents of its own square
    factor: int  # pixels a side of one latent
    unit: int
    most: int

    def refusal(self, height: int, width: int) -> str:
        """Why the model cannot have images of this size; empty where it can."""
        if height % self.unit or width % self.unit:
            return f"images of {width}x{height} pixels do not fit: both sides must be multiples of {self.unit}"
        if self.most and max(height, width) > self.most:
            return f"images of {width}x{height} pixels do not fit: the transformer has places for {self.most} a side"
        return ""

    def check(self, content: Array) -> None:
        """Raises UserError for images that the model cannot train on; a square must be the model's own."""
        pixels = self.shape[1] * self.factor
        wanted = (pixels, pixels, 3)
        for _, same in by_size(content):
            height, width, channels = same.shape[1:] if same.ndim == 4 else (0, 0, 0)
            right = same.shape[1:] == wanted or (content.dtype == object or height != width)
            if same.dtype != np.uint8 or channels != 3 or not right:
                raise UserError(
                    f"the examples are {same.dtype} of shape {'x'.join(map(str, same.shape[1:]))}, the model takes "
                    f"uint8 images of {'x'.join(map(str, wanted))}", where="model.size",
                    fix=f"Write 'size: {pixels}' for the data, or another 'size:' for the model.",
                )
            refusal = self.refusal(height, width)
            if refusal:
                raise UserError(
                    refusal, where="data.buckets",
                    fix="Change 'step:' of the buckets, or the 'size:' of data and model.",
                )

    def sampled_shape(self, settings: object) -> tuple[int, ...]:
        """Of the latents that these settings request. Raises UserError for a size that the model cannot have."""
        if not isinstance(settings, TextToImageSampling) or settings.height is None or settings.width is None:
            return self.shape
        refusal = self.refusal(settings.height, settings.width)
        if refusal:
            raise UserError(refusal, where="settings.width, settings.height", fix="Request other sides.")
        return (self.shape[0], settings.height // self.factor, settings.width // self.factor)

    def row_shape(self, batch: Batch, *, latents: bool) -> tuple[int, ...]:
        """Of the latents of a batch, whose rows are ``latents`` or pixels."""
        factor = 1 if latents else self.factor
        high, wide = batch["x"].shape[-2:]
        return (self.shape[0], high // factor, wide // factor)


def sizes_of(pipeline: Pipeline, latents: Latents, shape: tuple[int, ...]) -> ImageSizes:
    """Of a pipeline whose own square has latents of ``shape``."""
    family, config = pipeline.family, pipeline.denoiser.config
    unit = patch_of(family, config) * latents.factor
    return ImageSizes(shape, latents.factor, unit, family.most(config) * latents.factor)


def own_size(content: Array) -> int:
    """Pixels a side of the examples' squares. Raises UserError where they have several sizes."""
    if content.dtype == object:
        raise UserError(
            "the examples have several sizes, and a model trained from scratch needs one", where="model.size",
            fix="Write the 'size:' of the data for the model, too.",
        )
    return int(content.shape[1])


def formulation(pipeline: Pipeline, where: str, high: int, wide: int) -> Formulation:
    """Of latents of this size: some schedulers shift their noise levels by the number of tokens."""
    family, patch = pipeline.family, patch_of(pipeline.family, pipeline.denoiser.config)
    return scheduled.formulation(
        pipeline.scheduler, where, tokens=(high // patch) * (wide // patch), time=family.time, last=family.last
    )


def encoded(
    latents: Latents, content: Array, *, cached: bool, disk_cache: Cache | None = None
) -> Tensor | Stacks:
    """(N, …) the latents' moments of images, or their pixels where nothing is cached."""
    parts = list(by_size(content))
    sizes = frozenset(size_of(same) for _, same in parts)

    def one_size(same: Array) -> Tensor | Stacks:
        if disk_cache is not None and len(same):
            return disk_cache.latents(latents, same, sizes)
        pixels = latents.pixels(same)
        return latents.moments(pixels, at_once=1) if cached else pixels

    found = [one_size(same) for _, same in parts]
    if content.dtype != object:
        return found[0]
    back = torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable"))
    return Stacks.joined([part if isinstance(part, Stacks) else Stacks.of(part) for part in found], back)
