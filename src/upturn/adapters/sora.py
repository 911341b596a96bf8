"""SoRA: gates on the ranks of a LoRA, which an L1 penalty sets to zero; ranks with a zero gate are removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from upturn.adapters._gated import Gated
from upturn.errors import RunError
from upturn.protocols import Trainable


@dataclass(frozen=True)
class Sora(Gated):
    """W + (alpha / rank) B diag(g / g0) A with gates g (rank,) that are trained, and pruned by an L1 proximal step.

    Ding et al. 2023, "Sparse low-rank adaptation of pre-trained language models" (SoRA), equations 5 to 7: after each
    step of the optimizer g ← sign(g) · max(|g| - η λ, 0), with η the step's learning rate and λ the ``sparsity``.
    A is (rank, in), B (out, rank). Every layer begins with ``rank``, its largest; ranks whose gate is zero at the end
    of a stage are not in the saved adapter, and a later stage does not bring them back. A gate begins at
    ``gate``, g0, by which it is divided: so that steps of a learning rate's size can close and open it in one stage.
    """

    learned: ClassVar[bool] = True
    rank: int = 8  # of a layer at first, and at most
    # Adam moves a gate whose gradient is noise by 0.23 η a step (√((1 - β1) / (1 + β1)), β1 = 0.9), and one whose
    # gradient keeps its sign by η: half of η between them closes the first and leaves the second
    sparsity: float = 0.5
    gate: float = 0.05  # about half the sum of the learning rates of a stage of 500 steps at 2e-4
    adapter_name: str = "sora"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity < 0 or self.gate <= 0:
            raise ValueError("sparsity must not be below 0, and gate must be above 0")

    @property
    def gates(self) -> list[float]:
        return [self.gate] * self.rank

    @property
    def scale(self) -> float:
        return (self.alpha or 2 * self.rank) / self.rank / self.gate

    @torch.no_grad()
    def after_step(self, model: Trainable, step: int, learning_rate: float) -> None:
        """The proximal step of λ |g|₁: the gates' magnitude less η λ, and zero below."""
        gates: list[torch.Tensor] = list(self.values(model.module))
        signs = list(torch._foreach_sign(gates))
        torch._foreach_abs_(gates)
        torch._foreach_sub_(gates, learning_rate * self.sparsity)
        torch._foreach_clamp_min_(gates, 0.0)
        torch._foreach_mul_(gates, signs)

    def finish(self, model: Trainable) -> None:
        if not any(bool(gates.any()) for gates in self.values(model.module)):
            raise RunError(
                "every rank's gate is zero: nothing is left of the adapter", where="adapter.sparsity",
                fix="Lower sparsity, or raise gate or the learning rate.",
            )
        self.remove(model.module)
