"""The network predicts v, a blend of noise and data that stays of one size (Salimans & Ho 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from upturn.diffusion.denoiser import Coefficients
from upturn.diffusion.formulations._discrete import Discrete

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Velocity(Discrete):
    """v-prediction: ``v = sqrt(abar) noise - sqrt(1 - abar) x0`` at 1,000 discrete times, plain mean squared error.

    Salimans & Ho 2022, "Progressive distillation for fast sampling of diffusion models", section 4 and appendix D:
    ``x0 = sqrt(abar) x_k - sqrt(1 - abar) v``. The error of x0 stays finite at every noise level.
    """

    prediction: ClassVar[str] = "v_prediction"

    def coefficients(self, sigma: Tensor) -> Coefficients:
        root = (1 + sigma.square()).rsqrt()
        return Coefficients(root.square(), -sigma * root, root, self.time(sigma))

    def weight(self, sigma: Tensor) -> Tensor:
        return 1 + sigma.square().reciprocal()
