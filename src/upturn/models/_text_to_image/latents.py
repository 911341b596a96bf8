"""Conversion between images and latents, by a frozen autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from upturn.types import Array

if TYPE_CHECKING:
    from diffusers.configuration_utils import FrozenDict

_HALF = 127.5  # 8-bit values 0 to 255 are -1 to 1, as diffusers has them
_CHUNK = 8  # images at once through the autoencoder: 512 x 512 of Stable Diffusion's take about 2 GB


@dataclass(frozen=True, eq=False)
class Latents:
    """latent = (code - shift) * scale. A code is drawn from the autoencoder's Gaussian, or is deterministic."""

    vae: nn.Module
    shifts: bool

    @property
    def _config(self) -> FrozenDict:
        return self.vae.config

    @property
    def sampled(self) -> bool:
        """Whether an image has a distribution of latents."""
        return type(self.vae).__name__ == "AutoencoderKL"

    @property
    def factor(self) -> int:
        """Pixels a side of one latent."""
        return int(2 ** (len(self._config.block_out_channels) - 1))

    @property
    def channels(self) -> int:
        return int(self._config.latent_channels)

    @property
    def scale(self) -> float:
        return float(self._config.scaling_factor)

    @property
    def shift(self) -> float:
        return float(getattr(self._config, "shift_factor", None) or 0.0) if self.shifts else 0.0

    def pixels(self, content: Array) -> Tensor:
        """(N, H, W, 3) uint8 as (N, 3, H, W) uint8."""
        return torch.from_numpy(np.ascontiguousarray(content.transpose(0, 3, 1, 2)))

    @torch.no_grad()
    def moments(self, pixels: Tensor, at_once: int = _CHUNK) -> Tensor:
        """(N, 2 C, h, w) mean and standard deviation of the latents, or (N, C, h, w) of an autoencoder without any.

        ``at_once`` 1: the result for an image does not depend on its batch, to the last bit.
        """
        at = next(self.vae.parameters()).device
        parts = [self._moments(part.to(at).float() / _HALF - 1.0) for part in torch.split(pixels, at_once)]
        return torch.cat(parts).to(pixels.device)

    def _moments(self, x: Tensor) -> Tensor:
        coder: Any = self.vae
        scale, encoded = self.scale, coder.encode(x)
        if not self.sampled:
            code: Tensor = encoded.latents
            return (code - self.shift) * scale
        spread = encoded.latent_dist
        return torch.cat([(spread.mean - self.shift) * scale, spread.std * scale], dim=1)

    def drawn(self, moments: Tensor, noise: Tensor | None) -> Tensor:
        """(N, C, h, w) latents: the mean where there is no noise."""
        if not self.sampled:
            return moments
        mean, std = moments.chunk(2, dim=1)
        return mean if noise is None else torch.addcmul(mean, std, noise.to(mean.device))

    @torch.no_grad()
    def images(self, latents: Tensor) -> Tensor:
        """(N, 3, H, W) float32 of about -1 to 1."""
        coder: Any = self.vae
        at = next(self.vae.parameters()).device
        parts = [coder.decode(part.to(at) / self.scale + self.shift).sample for part in torch.split(latents, _CHUNK)]
        found: Tensor = torch.cat(parts) if parts else latents.new_zeros(0, 3, 1, 1)
        return found

    def content(self, latents: Tensor) -> Array:
        """(N, H, W, 3) uint8."""
        values = ((self.images(latents).clamp(-1, 1) + 1) * _HALF).round().to(torch.uint8)
        return np.ascontiguousarray(values.permute(0, 2, 3, 1).cpu().numpy())
