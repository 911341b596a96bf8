"""A stack of diffusion models guided by a weaker stack (autoguidance)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upturn.diffusion.guidance import guided
from upturn.lab.stacked_diffusion import Stack

if TYPE_CHECKING:
    from torch import Tensor


class GuidedStack(Stack):
    """``strong``, each model guided away from its model of ``weak``: weak + scale (strong - weak), see
    :func:`upturn.diffusion.guidance.guided`; scale 1 is ``strong`` alone.

    Each stack standardizes by its own training data: the weak one is evaluated at the same point and noise level in the
    units of the data.
    """

    def __init__(self, strong: Stack, weak: Stack, scale: float) -> None:
        self.__dict__.update(vars(strong))
        self._guided = guided(strong._denoised, self._weaker, scale) if scale != 1 else strong._denoised
        self._weak = weak

    def _denoised(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._guided(x, sigma)

    def _weaker(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The weak models' estimate, in the strong ones' frames."""
        own, weak = x.reshape(len(self), -1, self.dimensions), self._weak
        raw = self.mean + self.scale * own
        level = (sigma.reshape(-1, 1, 1) if sigma.ndim == 0 else sigma.reshape(len(self), -1, 1))
        levels = (level * self.scale / weak.scale).expand(*own.shape[:2], 1)
        inner = (raw - weak.mean) / weak.scale
        found = weak._denoised(inner.reshape(x.shape), levels.reshape(-1)).reshape(own.shape)
        return ((weak.mean + weak.scale * found - self.mean) / self.scale).reshape(x.shape)
