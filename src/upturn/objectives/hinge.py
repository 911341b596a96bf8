"""Hinge loss on pairs (SLiC, Zhao et al. 2023; against a reference: RSO, Liu et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from upturn.objectives._pairs import AgainstReference, smooth


@dataclass(frozen=True)
class Hinge(AgainstReference):
    """Hinge on pairs: max(0, 1 - beta [(log pi - log ref)(chosen) - (log pi - log ref)(rejected)]).

    Liu et al. 2024 (Statistical Rejection Sampling Improves Preference Optimization), the hinge-norm loss, gamma there
    is beta here. A pair whose margin has reached 1 teaches nothing more. ``likelihood`` is SLiC's regulariser
    (Zhao et al. 2023, eq. 1), with the chosen as its target; SLiC itself has no reference.
    """

    beta: float = 0.1  # DPO's: the implicit reward is the same

    def losses(self, margin: Tensor) -> Tensor:
        return smooth(lambda m: (1 - m).relu(), margin, self.label_smoothing)
