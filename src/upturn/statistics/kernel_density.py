"""A kernel density estimate: one isotropic Gaussian at each sample, its width fitted to other data."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from upturn.statistics.neighbours import Block, Ground
from upturn.types import Array

if TYPE_CHECKING:
    from torch import Tensor

_STEPS = 200  # at most: on a plane it takes so many, in 64 dimensions twenty
_SETTLED = 1e-6  # nats a dimension a step: below, the fit ends
_FLOOR, _CEILING = -40.0, 20.0  # of log variances: the reference's, so that a copy of a data point gives no infinity
_START = 1e-3  # added to the squared distance that a width starts from: the reference's
_PULL = 0.9**2  # the floor's squared distances are these times those to the data's mean: the reference's
_UNUSED = 1e-12  # data points that a Gaussian answers for, below which its width stays as it is
_KEPT = 10**8  # distances that are kept from step to step: 400 MB
_EXACT = 4  # nearest centres of each point whose distances are exact


@dataclass(frozen=True)
class KernelMixture:
    """p(x) = (1/M) sum_j N(x; mu_j, s_j I): ``centres`` (M, D) and ``log_variances`` (M,) float32.

    Jiralerspong et al., NeurIPS 2023 ("Feature Likelihood Divergence"), section 3: the centres are samples, the widths
    maximise the likelihood of training data, so that a sample that copies a training point becomes narrow and says
    nothing of others. As in their code (marcojira/fld, 245ac7c) a floor is part of the fit and not of the density: a
    wide Gaussian round the data's mean, of weight 1, whose width is fitted, too, and which answers for points that no
    sample is near. Departs from it: widths are fitted by expectation-maximisation, which needs no learning rate and
    never lowers the likelihood, where they take 50 steps of Adam.
    """

    centres: Array
    log_variances: Array

    @staticmethod
    def fitted(centres: Array, data: Array) -> KernelMixture:
        """Widths for ``centres`` (M, D) from ``data`` (N, D), in passes over their distances, one a step.

        Up to 10^8 distances are kept (400 MB); of more, blocks are measured again in every pass.
        """
        import torch

        apart = _Apart.of(data, centres)
        dims = data.shape[1]
        wide = torch.as_tensor(data, device=apart.ground.rows.device)
        middle = _PULL * (wide - wide.mean(dim=0)).square().sum(dim=1).float()
        nearest = functools.reduce(torch.minimum, (part.amin(dim=0) for _, part in apart.parts()))
        logs = ((nearest + _START) / dims).log().clamp(_FLOOR, _CEILING)
        floor, last = torch.zeros((), device=logs.device), -math.inf
        for _ in range(_STEPS):
            logs, floor, density = _step(apart, middle, logs, floor, dims)
            if density - last < _SETTLED * dims:
                break
            last = density
        return KernelMixture(centres, logs.cpu().numpy())

    def terms(self, points: Array) -> Iterator[tuple[int, Tensor]]:
        """(first row, (rows, M)) log of each Gaussian's part of p(x), for blocks of ``points`` (N, D): nats."""
        import torch

        ground = Ground.of(self.centres)
        logs = torch.as_tensor(self.log_variances, device=ground.rows.device)
        for block in ground.blocks(points):
            yield block.start, _parts(_measured(block), logs, points.shape[1])

    def log_density(self, points: Array) -> Array:
        """(N,) float64 nats."""
        return np.concatenate([part.double().logsumexp(dim=1).cpu().numpy() for _, part in self.terms(points)])


def distances(a: Array, b: Array) -> Tensor:
    """(N, M) float32 squared distances; those to the nearest of ``b`` are exact, so that copies are at 0."""
    import torch

    return torch.cat([_measured(block) for block in Ground.of(b).blocks(a)])


def _measured(block: Block) -> Tensor:
    found = block.middle()
    exact, columns = block.smallest(min(_EXACT, found.shape[1]))
    return found.scatter_(1, columns, exact.float())


def _parts(squared: Tensor, logs: Tensor, dims: int) -> Tensor:
    constant = 0.5 * dims * (logs + math.log(2 * math.pi)) + math.log(len(logs))
    return squared * (-0.5 / logs.exp()) - constant


@dataclass(frozen=True)
class _Apart:
    """(N, M) squared distances of data to centres: kept, or computed again in each pass where they are too many."""

    data: Array
    ground: Ground
    kept: Tensor | None

    @staticmethod
    def of(data: Array, centres: Array) -> _Apart:
        few = len(data) * len(centres) <= _KEPT
        return _Apart(data, Ground.of(centres), distances(data, centres) if few else None)

    def parts(self) -> Iterator[tuple[int, Tensor]]:
        """(first row, (rows, M))."""
        import torch

        if self.kept is None:
            yield from ((block.start, _measured(block)) for block in self.ground.blocks(self.data))
            return
        rows = max(1, 2**22 // len(self.ground))
        for place, part in enumerate(torch.split(self.kept, rows)):
            yield place * rows, part


def _step(
    apart: _Apart, middle: Tensor, logs: Tensor, floor: Tensor, dims: int
) -> tuple[Tensor, Tensor, float]:
    """One step of EM: the new log variances, the floor's, and the mean log density before it, nats."""
    import torch

    answered, spread = torch.zeros_like(logs, dtype=torch.float64), torch.zeros_like(logs, dtype=torch.float64)
    own, own_spread, total = 0.0, 0.0, 0.0
    for start, part in apart.parts():
        far = middle[start : start + len(part)]
        inner = _parts(part, logs, dims)
        outer = far * (-0.5 / floor.exp()) - 0.5 * dims * (floor + math.log(2 * math.pi))
        density = torch.logaddexp(inner.logsumexp(dim=1), outer)
        shares = (inner - density[:, None]).exp_()
        answered += shares.sum(dim=0)
        spread += (shares.mul_(part)).sum(dim=0)
        rest = (outer - density).exp().double()
        own += float(rest.sum())
        own_spread += float((rest * far).sum())
        total += float(density.double().sum())
    used = answered > _UNUSED
    found = torch.where(used, spread / (dims * answered.clamp(min=_UNUSED)), logs.double().exp())
    logs = found.clamp(min=math.exp(_FLOOR)).log().clamp(_FLOOR, _CEILING).float()
    if own > _UNUSED:
        floor = floor.new_tensor(math.log(max(own_spread / (dims * own), math.exp(_FLOOR))))
    return logs, floor, total / len(middle)
