"""Maximum likelihood, each sample with a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upturn.errors import UserError
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs


@dataclass(frozen=True)
class Likelihood(Objective):
    """Weighted negative log-likelihood in nats a dimension (text: a token).

    ``sum_i w_i sum_t m_it (-log p_it) / sum_i w_i sum_t m_it d``: for text the usual cross-entropy, for diffusion the
    weighted denoising loss, for a classifier -log p(label). ``given["weights"]`` (E,) is 1 where absent.
    """

    example: ClassVar[str] = "sample"
    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs"})
    maximum_likelihood: ClassVar[bool] = True
    accepts: ClassVar[frozenset[str]] = frozenset({"exact", "elbo", "surrogate"})

    def prepare(self, batch: Batch) -> Batch:
        if batch.candidates != 1:
            raise UserError(f"likelihood trains on single samples, got groups of {batch.candidates}")
        return batch

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        weighted = out.mask
        if "weights" in batch.given:
            weighted = out.mask * batch.given["weights"][:, None]
        total = -(weighted * out.log_probs).sum()
        return Loss(total, weighted.sum() * out.dims)
