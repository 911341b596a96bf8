"""The denoiser with its text: what a forward pass calls, and the module where text encoders train too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from upturn.diffusion.denoiser import Condition, bare
from upturn.models._text_to_image.architectures.base import Family, Read
from upturn.models._text_to_image.captions import NONE, Captions

CAPTION = "caption"
_READ = "read:"  # begins the name of a condition's column that holds what a trained encoder has said already


class Joint(nn.Module):
    """A denoiser and the text encoders that train with it: one forward pass, so that a wrapper sees all gradients."""

    def __init__(self, family: Family, factor: int, denoiser: nn.Module, encoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"parts": [family.denoiser, *sorted(encoders)]}
        self.family, self.factor = family, factor
        self.denoiser = denoiser
        for name, encoder in sorted(encoders.items()):
            self.add_module(name, encoder)

    def trained(self) -> dict[str, nn.Module]:
        """The text encoders, by name."""
        return {name: getattr(self, name) for name in self.settings["parts"][1:]}

    def forward(
        self, text: Read, tokens: Mapping[str, Read], x: Tensor | None = None, time: Tensor | None = None,
        spoken: Tensor | None = None,
    ) -> Any:
        """F(x; time), or, without x, what the encoders say of the tokens alone.

        ``spoken`` (N,) is 0 where zeros stand for the text.
        """
        said: dict[str, Tensor] = {}
        for name, part in tokens.items():
            said |= self.family.read(name, getattr(self, name), part)
        if spoken is not None:
            said = {key: value * spoken.reshape(-1, *[1] * (value.ndim - 1)) for key, value in said.items()}
        if x is None or time is None:
            return said
        return self.family.denoise(self.denoiser, x, time, {**text, **said}, self.factor)


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
        """The condition with what encoders that learn say of it, where many calls follow without a gradient."""
        if not self.joint and not self.captions.learning:
            return condition
        some, back = torch.unique(condition[CAPTION], return_inverse=True)
        if not self.joint:
            text, _ = self.captions.rows(some)
            return {**condition, **{_READ + name: value[back] for name, value in text.items()}}
        said = module({}, self.captions.rows(some)[1], spoken=self._spoken(some))
        return {**condition, **{_READ + name: value[back] for name, value in said.items()}}

    def _spoken(self, keys: Tensor) -> Tensor | None:
        return (keys != NONE).float() if self.family.zeroed else None


def denoiser_of(module: nn.Module) -> Any:
    """The denoiser itself, out of wrappers and of a joint module."""
    inner: Any = bare(module)
    return inner.denoiser if isinstance(inner, Joint) else inner
