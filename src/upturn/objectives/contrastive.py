"""Pictures and captions drawn together where they belong together, and apart elsewhere (CLIP's objective)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from upturn.errors import UserError
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs

_SILENT = -1  # the number of an empty caption
_PULL, _OWN, _RIGHT, _BEFORE = "pull", "own_loss", "own_first", "before_values"


@dataclass(frozen=True)
class Contrastive(Objective):
    """InfoNCE over all pairs of the global batch, both ways, in nats (Radford et al. 2021, CLIP, figure 3).

    Of row i, with s_ij = picture_i . caption_j (scaled): half of -log softmax_j(s_ij) at its own caption and half of
    -log softmax_j(s_ji) at its own picture. Rows with one caption are each other's positives, in equal shares (Yang
    et al. 2022, UniCL, equation 3): they are no errors. Empty captions take no part, and are counted ("silent").
    log(batch_size) is what chance gives, so losses compare at one batch size alone.

    All pairs count, yet micro-batches and processes change nothing: vectors of the whole batch are precomputed
    without gradient, the loss's derivative in each is taken from them, and a micro-batch adds its own rows' part of the
    chain rule (Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup", section 3).
    A pass without gradient more a step is the price. The model must be without dropout.
    """

    example: ClassVar[str] = "sample"
    inputs: ClassVar[frozenset[str]] = frozenset({"rewards"})
    accepts: ClassVar[frozenset[str]] = frozenset({"reward"})
    before: ClassVar[frozenset[str]] = frozenset({"values"})

    def prepare(self, batch: Batch) -> Batch:
        if batch.candidates != 1:
            raise UserError(f"'contrastive' trains on single samples, got groups of {batch.candidates}",
                            where="objective")
        if _BEFORE not in batch.columns or "caption" not in batch.columns:
            raise UserError("'contrastive' compares pictures with captions, and the model reads no captions",
                            where="objective", fix="Train a 'dual_encoder' with it.")
        with torch.enable_grad():
            vectors = batch[_BEFORE].detach().requires_grad_()
            loss, right, weight = _pairs(vectors, batch)
            (pull,) = torch.autograd.grad((loss * weight).sum(), vectors)
        return batch.with_columns(**{_PULL: pull, _OWN: loss.detach(), _RIGHT: right, "weight": weight})

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        """A prepared batch; of one that was not (held-out data) its own pairs, directly."""
        if out.values is None:
            raise UserError("'contrastive' needs a picture's and a caption's vector", where="objective",
                            fix="Train a 'dual_encoder' with it.")
        if _PULL in batch.columns:
            moved = (batch[_PULL] * (out.values - batch[_BEFORE])).sum()  # 0, with the gradient of the whole batch
            weight, right = batch["weight"], batch[_RIGHT]
            total = (weight * batch[_OWN]).sum() + moved
        else:
            loss, right, weight = _pairs(out.values, batch)
            total = (weight * loss).sum()
        with torch.no_grad():
            metrics = {"accuracy": (weight * right).sum(), "silent": (batch["caption"] == _SILENT).sum().to(weight)}
        return Loss(total, weight.sum(), metrics)


def _pairs(vectors: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """(E,) loss, (E,) 1 where its own caption is a picture's nearest, (E,) weight; ``vectors`` (E, 2 D) both sides."""
    captions = batch["caption"]
    spoken = captions != _SILENT
    weight = spoken.to(vectors)
    if "weights" in batch.given:
        weight = weight * batch.given["weights"].to(vectors)
    pictures, texts = vectors.chunk(2, dim=1)
    scores = (pictures @ texts.T).float()
    both = spoken[:, None] & spoken[None, :]
    same = both & (captions[:, None] == captions[None, :])
    share = same / same.sum(dim=1, keepdim=True).clamp_min(1)
    low = torch.finfo(scores.dtype).min
    masked = torch.where(both | ~spoken[:, None], scores, low)
    across = torch.where(same, masked.log_softmax(dim=1), 0.0)
    down = torch.where(same, torch.where(both | ~spoken[None, :], scores, low).log_softmax(dim=0), 0.0)
    loss = -0.5 * ((share * across).sum(dim=1) + (share * down).sum(dim=0))
    right = same.gather(1, masked.argmax(dim=1, keepdim=True))[:, 0].to(vectors)
    return loss, right.detach(), weight.detach()
