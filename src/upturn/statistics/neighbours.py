"""Nearest neighbours by blocks of a distance matrix that is never held whole. Distances are squared and Euclidean.

The matrix products are of float32, nearly three times as fast as float64. Each block therefore comes as lower and upper
bounds of the distances (:class:`Ground`), and what the bounds leave open is measured again, pair by pair, in float64:
answers are those of float64, and a copy is at distance 0. Where torch finds a GPU, all of it runs there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from upturn.statistics.memo import remembered
from upturn.types import Array

if TYPE_CHECKING:
    from torch import Tensor

_CELLS = 2**24  # distances held at a time: 64 MB
_PAIRS = 2**17  # numbers gathered at a time to measure single pairs: they stay in the cache, 4 times as fast as 2**21
_ROUNDING = {"highest": 2.0**-24}  # of one operation, by torch's setting of how precise products of float32 are
_COARSE = 2.0**-8  # under any other setting: bfloat16's
# Error of a dot product of D terms: 8 sqrt(D) roundings, exceeded with probability below D e^-32 (Higham & Mary 2019,
# SIAM J. Sci. Comput. 41). Ten more for centring, squares and sums.
_DEVIATIONS, _OTHERS = 8.0, 10.0
_TIE = 1e-12  # equal distances count as equal in whatever order their terms were added
_SPARE = 8  # candidates beyond those requested, so that the bounds nearly always determine which they are
_DENSE = 64  # open pairs a row from which on the whole row is measured
_STRIP = 4096  # columns of such a row at a time


@dataclass(frozen=True)
class Ground:
    """The rows (M, D) that distances are measured to, ready for products: ``near`` is centred float32."""

    rows: Tensor
    centre: Tensor
    near: Tensor
    squares: Tensor  # (M,) float32
    slack: float  # |bound - distance| <= slack (|a|^2 + |b|^2), both centred

    @staticmethod
    def of(b: Array) -> Ground:
        import torch

        rows = torch.as_tensor(np.ascontiguousarray(b), device="cuda" if torch.cuda.is_available() else "cpu")
        # features far from the origin would lose digits in |a|^2 - 2ab + |b|^2
        centre = rows.mean(dim=0, dtype=torch.float64).to(rows.dtype)
        near = (rows - centre).float()
        rounding = _ROUNDING.get(torch.get_float32_matmul_precision(), _COARSE)
        slack = rounding * (_DEVIATIONS * math.sqrt(b.shape[1]) + _OTHERS)
        return Ground(rows, centre, near, near.square().sum(dim=1), slack)

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, a: Array) -> Iterator[Block]:
        """Blocks of the rows of ``a`` (N, D) against all of these."""
        import torch

        given = torch.as_tensor(np.ascontiguousarray(a), device=self.rows.device)
        step = max(1, _CELLS // max(1, len(self)))
        for start in range(0, len(given), step):
            part = given[start : start + step]
            near = (part - self.centre).float()
            squares = near.square().sum(dim=1)
            lower = torch.addmm(self.squares * (1 - self.slack), near, self.near.T, alpha=-2)
            lower += (squares * (1 - self.slack))[:, None]
            yield Block(self, start, part, squares, lower)


@dataclass(frozen=True)
class Block:
    """(R, M) squared distances of some rows to all of the ground, as lower bounds; upper ones are ``width`` above."""

    ground: Ground
    start: int
    part: Tensor  # (R, D) as given
    squares: Tensor  # (R,)
    lower: Tensor

    def middle(self) -> Tensor:
        """(R, M) float32 between the bounds, at least 0; inf where the bound is."""
        width = self.ground.slack * self.squares[:, None] + self.ground.slack * self.ground.squares
        return width.add_(self.lower).clamp_(min=0)

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(P,) float64 distances of the pairs."""
        import torch

        step, parts = max(1, _PAIRS // max(1, self.part.shape[1])), []
        for at in range(0, len(rows), step):
            apart = self.part.index_select(0, rows[at : at + step]).double()
            apart -= self.ground.rows.index_select(0, columns[at : at + step])
            parts.append(torch.linalg.vector_norm(apart, dim=1).square())
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=self.part.device)

    def width(self, rows: Tensor, columns: Tensor) -> Tensor:
        """What the upper bounds of the pairs are above the lower."""
        return 2 * self.ground.slack * (self.squares[rows] + self.ground.squares[columns])

    def measured(self, rows: Tensor) -> Tensor:
        """(len(rows), M) float64 distances of whole rows, difference by difference; inf where the bound is."""
        import torch

        part = self.part[rows].double()
        strips = [
            torch.cdist(part, self.ground.rows[at : at + _STRIP].double(), compute_mode="donot_use_mm_for_euclid_dist")
            for at in range(0, len(self.ground), _STRIP)
        ]
        return torch.cat(strips, dim=1).square_().masked_fill_(torch.isinf(self.lower[rows]), math.inf)

    def smallest(self, count: int) -> tuple[Tensor, Tensor]:
        """(R, count) float64 distances, ascending, and the columns (of equal ones the first)."""
        import torch

        taken = min(count + _SPARE, self.lower.shape[1])
        bounds, columns = torch.topk(self.lower, taken, largest=False)
        columns = columns.sort(dim=1).values
        own = torch.arange(len(self.part), device=self.part.device)
        exact = self.exact(own.repeat_interleave(taken), columns.reshape(-1)).reshape(-1, taken)
        exact = torch.where(torch.isinf(self.lower.gather(1, columns)), math.inf, exact)
        exact, order = exact.sort(dim=1, stable=True)
        columns = columns.gather(1, order)
        # a column that was not taken may be nearer than the last that is kept, unless its bound excludes it
        last = exact[:, count - 1]
        settled = (bounds.max(dim=1).values.double() >= last) | (last == 0)
        exact, columns = exact[:, :count].clone(), columns[:, :count].clone()
        if taken < self.lower.shape[1]:
            for row in torch.nonzero(~settled)[:, 0]:
                exact[row], columns[row] = self._settled(row, last[row], count)
        return exact, columns

    def _settled(self, row: Tensor, limit: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The nearest of one row among all columns whose bound is within ``limit``."""
        import torch

        columns = torch.nonzero(self.lower[row].double() <= limit)[:, 0]
        if len(columns) > _DENSE * count:
            columns = torch.arange(len(self.ground), device=columns.device)
            exact = self.measured(row[None])[0]
        else:
            exact = self.exact(row.expand(len(columns)), columns)
        exact, order = exact.sort(stable=True)
        return exact[:count], columns[order][:count]

    def within(self, limits: Tensor) -> Tensor:
        """(R, M) bool: no farther than ``limits`` float64, (R, 1) or (1, M), by more than 1 part in 10^12."""
        import torch

        limits = limits * (1 + _TIE)
        # the bounds are float32, and so must be the limits that they are held against: rounded outwards
        reach = limits.float()
        outer = torch.where(reach.double() < limits, torch.nextafter(reach, reach.new_tensor(math.inf)), reach)
        found = self.lower <= outer
        rows, columns = torch.nonzero(found, as_tuple=True)
        if len(rows) > _DENSE * max(1, len(found)) and len(rows) > 2**16:
            return self._within_many(found, limits)
        limit = limits.expand(found.shape)[rows, columns]
        unsure = self.lower[rows, columns].double() + self.width(rows, columns).double() > limit
        rows, columns = rows[unsure], columns[unsure]
        found[rows, columns] = self._decided(rows, columns, limit[unsure])
        return found

    def _within_many(self, found: Tensor, limits: Tensor) -> Tensor:
        """The same where many are within, so that they cannot be listed."""
        import torch

        width = (2 * self.ground.slack) * (self.squares[:, None] + self.ground.squares)
        unsure = found & ((self.lower + width).double() > limits)
        many = unsure.sum(dim=1) > _DENSE
        if many.any():
            worst = torch.nonzero(many)[:, 0]
            for part in torch.split(worst, max(1, _STRIP * _DENSE // found.shape[1])):
                at = limits[part] if limits.shape[1] == 1 else limits
                found[part] = self.measured(part) <= at
            unsure[worst] = False
        rows, columns = torch.nonzero(unsure, as_tuple=True)
        found[rows, columns] = self._decided(rows, columns, limits.expand(found.shape)[rows, columns])
        return found

    def _decided(self, rows: Tensor, columns: Tensor, limit: Tensor) -> Tensor:
        return self.exact(rows, columns) <= limit


def nearest(a: Array, b: Array) -> tuple[Array, Array]:
    """(N,) distances (not squared, exact: a copy is at 0) and (N,) rows of ``b`` nearest to each row of ``a``."""
    squared, rows = _nearest(a, b)
    return np.sqrt(squared), rows


@remembered
def _nearest(a: Array, b: Array) -> tuple[Array, Array]:
    found = [block.smallest(1) for block in Ground.of(b).blocks(a)]
    return joined([squared[:, 0] for squared, _ in found]), joined([rows[:, 0] for _, rows in found])


@remembered
def neighbours(a: Array, count: int) -> tuple[Array, Array]:
    """(N, count) squared distances, ascending, and rows of the nearest others of ``a`` itself."""
    import torch

    squared, rows = [], []
    for block in Ground.of(a).blocks(a):
        own = torch.arange(len(block.part), device=block.part.device)
        block.lower[own, block.start + own] = math.inf
        near, which = block.smallest(count)
        squared.append(near)
        rows.append(which)
    return joined(squared), joined(rows)


_USUAL = 5  # neighbours of the usual metrics: requested together, so that they are found once


def radii(a: Array, k: int) -> Array:
    """(N,) squared distance to the k-th nearest other row of ``a``."""
    found: Array = neighbours(a, min(max(k, _USUAL), len(a) - 1))[0][:, k - 1]
    return found


def balls(a: Array, k: int, ground: Ground) -> Iterator[tuple[Block, Tensor]]:
    """Blocks of the balls that reach to the k-th nearest other row of ``a``, and (R, M) bool: what of the ground lies
    in each."""
    import torch

    limits = torch.as_tensor(radii(a, k), device=ground.rows.device)[:, None]
    for block in ground.blocks(a):
        yield block, block.within(limits[block.start : block.start + len(block.part)])


def joined(parts: list[Tensor]) -> Array:
    """One array of tensors of rows."""
    return np.concatenate([part.cpu().numpy() for part in parts])
