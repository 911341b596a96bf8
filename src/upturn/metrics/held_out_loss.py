"""The policy's loss on held-out real data, with fixed noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.data.groups import preferred
from upturn.embeddings.inference import learned_rows
from upturn.metrics._embedded import metric_key
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.seeds import fold
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Array, Measurement, Samples

_ROWS = 256  # samples in one forward pass


@dataclass(frozen=True)
class HeldOutLoss(Metric):
    """Minus the log-probability of held-out samples under the policy, in nats a dimension (a token, a pixel channel).

    Each sample's sum over its mask is divided by mask and dimensions, then samples are averaged, so that rounds can be
    paired by sample; ``pooled`` in the details weighs every token equally instead. Diffusion models draw times and
    noise from keys without the round: the same for every checkpoint. What a log-probability means is the model's
    ``likelihood``, in the details: a surrogate compares checkpoints of one model, never models. Of preferences
    the chosen candidates are measured, which are what likelihood learns.
    """

    draws: int = 4  # of time and noise a sample, where the model needs any: halves their part of the error against 1
    model: str = "policy"

    title: ClassVar[str] = "Held-out loss"
    meaning: ClassVar[str] = "The training loss on real samples that were never trained on: lower is better."
    better: ClassVar[Better] = "lower"
    several_sizes: ClassVar[bool] = True
    rows_at_once: ClassVar[int] = _ROWS
    held_out_only: ClassVar[bool] = True  # the samples of the evaluation are not used

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws is {self.draws}: it must be at least 1")

    @property
    def models_used(self) -> tuple[str, ...]:
        return (self.model,)

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        held_out = evidence.tools.held_out
        held_out = held_out.take(preferred(held_out))
        if not len(held_out):
            raise UndefinedMetric("there are no held-out samples")
        key = metric_key(evidence, "held_out_loss")
        losses, weights = self._losses(evidence, held_out, key)
        seen = weights > 0
        known, broken = int(seen.sum()), int((~np.isfinite(losses)).sum())
        if broken:
            raise UndefinedMetric(f"{broken} of {len(losses)} held-out losses are not finite")
        if not known:
            raise UndefinedMetric("every held-out sample is all masked")
        values = np.where(seen, losses / np.where(seen, weights, 1.0), np.nan)
        low, high = bootstrap_mean(values, key)
        note = "" if known == len(values) else f"{len(values) - known} of {len(values)} samples are all masked"
        details = {
            "pooled": float(losses.sum() / weights.sum()), "likelihood": evidence.tools.model(self.model).likelihood,
        }
        return Measurement(float(np.nanmean(values)), low, high, known, values, note, details)

    def _losses(self, evidence: Evidence, held_out: Samples, key: int) -> tuple[Array, Array]:
        """(M,) summed losses and (M,) summed weights (mask times dimensions) over all draws."""
        import torch

        model = evidence.tools.model(self.model)
        batch = model.encode(held_out)
        losses, weights = np.zeros(len(batch)), np.zeros(len(batch))
        learned = learned_rows(batch)
        training = model.module.training
        model.module.eval()
        try:
            with torch.no_grad():
                for start, every in batch.parts(_ROWS):
                    chosen = every[learned[every]]
                    if not len(chosen):
                        continue
                    part, rows = batch.take(chosen), chosen.numpy()
                    for number in fold(key, range(self.draws)):
                        draw = model.draw(part, int(number), start)
                        out = model.forward(part, draw)
                        mask = out.mask.double()
                        log_probs = torch.where(mask > 0, out.log_probs.double(), 0.0)
                        losses[rows] -= (log_probs * mask).sum(dim=1).numpy(force=True)
                        weights[rows] += mask.sum(dim=1).numpy(force=True) * out.dims
                        if draw is None:
                            break
        finally:
            model.module.train(training)
        return losses, weights
