"""Simple preference optimisation (Meng et al. 2024, eq. 6): no reference, the reward is a mean a token."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from upturn.objectives._pairs import Pairwise, smooth
from upturn.objectives._rows import lengths
from upturn.types import Outputs


@dataclass(frozen=True)
class Simpo(Pairwise):
    """SimPO on pairs: -log sigmoid(beta [log pi(chosen) / |chosen| - log pi(rejected) / |rejected|] - gamma).

    Meng et al. 2024, equation 6; lengths in tokens. Exact log-probs only: a surrogate is a log-prob up to terms that
    only a reference takes away. ``gamma`` is the target margin, in the reward's own unit (gamma / beta in some
    tools). ``label_smoothing`` as in the authors' code: on the margin less gamma.
    """

    beta: float = 2.0  # Meng et al. 2024: 2.0 to 2.5
    gamma: float = 0.5  # TRL's

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma < 0:
            raise ValueError(f"gamma cannot be negative, got {self.gamma}")

    def rewards(self, out: Outputs) -> Tensor:
        return self.beta * out.totals() / lengths(out)

    def losses(self, margin: Tensor) -> Tensor:
        return smooth(lambda m: -logsigmoid(m), margin - self.gamma, self.label_smoothing)
