"""Identity preference optimisation (Azar et al. 2023, eq. 17)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from upturn.objectives._pairs import AgainstReference, smooth


@dataclass(frozen=True)
class Ipo(AgainstReference):
    """IPO on pairs: (h - 1 / (2 beta))^2, h the log-ratio of the chosen less that of the rejected.

    Azar et al. 2023, equation 17, tau there is beta here: the gap has a target, 1 / (2 beta) nats, and is not driven
    on where people always agree. The equation has whole rows; ``length_normalised: true`` averages each row over its
    tokens first, so that the target does not depend on length: TRL does so, and says that the paper's authors did.
    """

    beta: float = 0.1  # TRL's

    def losses(self, margin: Tensor) -> Tensor:
        # the margin is beta h
        return smooth(lambda m: ((m - 0.5) / self.beta).square(), margin, self.label_smoothing)
