"""How a text-to-image model calls its denoiser: captions are read, cached readings are reused."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from upturn.diffusion.denoiser import Condition
from upturn.models._text_to_image.architectures.architecture import Family
from upturn.models._text_to_image.caption_cache import NONE, Captions

CAPTION = "caption"
_READ = "read:"  # begins the name of a condition's column that holds outputs of a trained encoder


@dataclass(frozen=True)
class TextCaller:
    """``diffusion.denoiser.Caller`` of a text-to-image model: the condition's column "caption" holds keys."""

    family: Family
    captions: Captions
    factor: int  # pixels a side of one latent
    joint: bool

    def call(self, module: nn.Module, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        keys = condition[CAPTION]
        time = noise.expand(len(x)) if noise.ndim == 0 else noise
        known = {name.removeprefix(_READ): value for name, value in condition.items() if name.startswith(_READ)}
        out: Tensor
        if known and not self.joint:
            return self.family.denoise(module, x, time, known, self.factor)
        text, tokens = self.captions.rows(keys)
        text = {**text, **known}
        if not self.joint:
            out = self.family.denoise(module, x, time, text, self.factor)
        else:
            out = module(text, {} if known else tokens, x, time, self._spoken(keys))
        return out

    def read(self, module: nn.Module, condition: Condition) -> Condition:
        """The condition with the outputs of trained encoders, for many calls without a gradient."""
        if not self.joint and not self.captions.learning:
            return condition
        some, back = torch.unique(condition[CAPTION], return_inverse=True)
        if not self.joint:
            text, _ = self.captions.rows(some)
            return {**condition, **{_READ + name: value[back] for name, value in text.items()}}
        outputs = module({}, self.captions.rows(some)[1], spoken=self._spoken(some))
        return {**condition, **{_READ + name: value[back] for name, value in outputs.items()}}

    def _spoken(self, keys: Tensor) -> Tensor | None:
        return (keys != NONE).float() if self.family.zeroed else None
