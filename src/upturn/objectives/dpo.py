"""Direct preference optimisation (Rafailov et al. 2023, eq. 7), for text and diffusion."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from upturn.objectives._pairs import AgainstReference, smooth


@dataclass(frozen=True)
class Dpo(AgainstReference):
    """DPO on pairs: -log sigmoid(beta [(log pi - log ref)(chosen) - (log pi - log ref)(rejected)]).

    The likelihood of the pair under Bradley–Terry with the reward beta (log pi - log ref): the reward for which pi is
    the optimum of KL-regularised maximisation. With a diffusion model it is Diffusion-DPO (Wallace et al. 2023).
    """

    beta: float = 0.1  # Rafailov et al. 2023, section 6

    def losses(self, margin: Tensor) -> Tensor:
        return smooth(lambda m: -logsigmoid(m), margin, self.label_smoothing)
