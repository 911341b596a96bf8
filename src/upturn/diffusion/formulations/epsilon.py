"""DDPM: the network predicts the noise (Ho et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from upturn.diffusion.denoiser import Coefficients
from upturn.diffusion.formulations._discrete import Discrete

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Epsilon(Discrete):
    """DDPM: 1,000 discrete times, the network predicts the noise, plain mean squared error (Ho et al. 2020, eq. 14).

    Departs from the paper in sampling: it starts at the greatest level up to ``sigma_max``. The tables end at sigma 158
    (linear) and beyond 10^4 (cosine), where the smallest error of the noise is a large one of the data; others clip.
    """

    prediction: ClassVar[str] = "epsilon"

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return Coefficients(sigma.new_ones(sigma.shape), -sigma, (1 + sigma.square()).rsqrt(), self.time(sigma))

    def weight(self, sigma: Tensor) -> Tensor:
        return sigma.square().reciprocal()
