"""Odds-ratio preference optimisation (Hong et al. 2024, eqs. 6, 7): likelihood and preference in one, no reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from upturn.objectives._pairs import Pairwise, smooth
from upturn.objectives._rows import lengths
from upturn.types import Outputs


@dataclass(frozen=True)
class Orpo(Pairwise):
    """ORPO on pairs: likelihood x NLL(chosen) - beta log sigmoid(log odds(chosen) - log odds(rejected)).

    Hong et al. 2024, equations 6 and 7; odds = P / (1 - P), log P a mean over the completion's tokens (equations 3 and
    4). The paper's lambda is beta here, as in TRL. The NLL is of the completion, a mean over its tokens; TRL counts
    the prompt's tokens too. Exact log-probs only: a surrogate has no odds.
    """

    beta: float = 0.1  # lambda of Hong et al. 2024; TRL's
    likelihood: float = 1.0  # the paper's L_SFT has no factor

    def rewards(self, out: Outputs) -> Tensor:
        """(N,) log odds."""
        # a completion that is certain has infinite odds: the gradient stops one rounding error before
        mean = (out.totals() / lengths(out)).clamp_max(-torch.finfo(out.log_probs.dtype).eps)
        return mean - (-torch.expm1(mean)).log()

    def losses(self, margin: Tensor) -> Tensor:
        return self.beta * smooth(lambda m: -logsigmoid(m), margin, self.label_smoothing)
