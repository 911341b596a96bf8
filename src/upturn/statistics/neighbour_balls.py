"""Which balls round samples hold which of other samples: what four metrics need, in one pass over all pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from upturn.statistics.memo import remembered
from upturn.statistics.neighbours import Block, Ground, balls, joined, neighbours
from upturn.types import Array

if TYPE_CHECKING:
    from torch import Tensor

# Pairs that are listed of each real row, the nearest first. A subset of three quarters loses all of them in one case of
# 10^19; candidates of one prompt are lost together: where they fill the list, intervals come out a little wide.
_LISTED = 32


@dataclass(frozen=True)
class BallPairs:
    """Real rows and the synthetic rows that lie near them: at most ``_LISTED`` of each real row."""

    real: Array  # (P,)
    synthetic: Array  # (P,)
    squared: Array  # (P,) distances


@remembered
def balls_around_real(real: Array, synthetic: Array, k: int) -> tuple[Array, Array, BallPairs]:
    """Balls of k neighbours round each of ``real`` (N, D), met with ``synthetic`` (M, D).

    (M,) int64 in how many balls each synthetic row lies, (N,) bool which balls hold one, and the pairs.
    """
    import torch

    ground = Ground.of(synthetic)
    holds = torch.zeros(len(synthetic), dtype=torch.int64, device=ground.rows.device)
    covered, listed = [], []
    for block, inside in balls(real, k, ground):
        covered.append(inside.any(dim=1))
        columns, pairs = _listed(block, inside)
        holds += torch.bincount(columns, minlength=len(synthetic))
        listed.append(pairs)
    return joined([holds]), joined(covered), _pairs(listed)


def reach(k: int, synthetic: int) -> int:
    """So many neighbours that a subset of three quarters holds k of them but for one case in 10^9."""
    return min(synthetic - 1, 3 * k + 12)


@remembered
def balls_around_synthetic(real: Array, synthetic: Array, k: int) -> tuple[Array, BallPairs]:
    """Balls of k neighbours round each of ``synthetic`` (M, D): (N,) bool which real rows lie in one.

    The pairs are those of the wider balls of :func:`reach` neighbours, as far as a radius can grow in a subset.
    """
    import torch

    ground = Ground.of(synthetic)
    found = torch.as_tensor(neighbours(synthetic, reach(k, len(synthetic)))[0], device=ground.rows.device)
    reached, listed = [], []
    for block in ground.blocks(real):
        reached.append(block.within(found[None, :, k - 1]).any(dim=1))
        listed.append(_listed(block, block.within(found[None, :, -1]))[1])
    return joined(reached), _pairs(listed)


def _listed(block: Block, inside: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """(P,) the columns of all that lies inside; and rows, columns and distances of the nearest of each row."""
    import torch

    rows, columns = every = torch.nonzero(inside, as_tuple=True)
    many = torch.nonzero(torch.bincount(rows, minlength=len(inside)) > _LISTED)[:, 0]
    for part in torch.split(many, 256):
        bounds = block.lower[part].masked_fill(~inside[part], torch.inf)
        nearest = torch.topk(bounds, min(_LISTED, bounds.shape[1]), largest=False).indices
        inside[part] = torch.zeros_like(inside[part]).scatter_(1, nearest, True)
    if len(many):
        rows, columns = torch.nonzero(inside, as_tuple=True)
    return every[1], (block.start + rows, columns, block.exact(rows, columns))


def _pairs(parts: list[tuple[Tensor, Tensor, Tensor]]) -> BallPairs:
    real, synthetic, squared = (joined(list(column)) for column in zip(*parts, strict=True))
    return BallPairs(real, synthetic, squared)
