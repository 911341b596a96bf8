"""Guidance: a denoiser extrapolated away from a weaker one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from upturn.diffusion.denoiser import spread

if TYPE_CHECKING:
    from torch import Tensor

    from upturn.diffusion.denoiser import Denoise


def guided(denoise: Denoise, weaker: Denoise, scale: float, low: float = 0.0, high: float = math.inf) -> Denoise:
    """``weaker + scale (denoise - weaker)`` where ``low <= sigma <= high``, elsewhere ``denoise`` alone.

    - ``weaker`` = the same network without its condition: classifier-free guidance (Ho & Salimans 2022, equation 6,
      whose w is scale - 1).
    - ``weaker`` = a smaller or less trained model with the same condition: autoguidance (Karras et al. 2024, "Guiding a
      diffusion model with a bad version of itself", equation 3).
    - ``low``, ``high``: guidance in an interval of noise levels (Kynkäänniemi et al. 2024, section 3).

    scale = 1 is no guidance. sigma may be one level or one per row.
    """

    def both(x: Tensor, sigma: Tensor) -> Tensor:
        inside = (sigma >= low) & (sigma <= high)
        strong = denoise(x, sigma)
        if not inside.any():
            return strong
        weak = weaker(x, sigma)
        return strong + (scale - 1) * spread(inside.to(x.dtype), x) * (strong - weak)

    return both
