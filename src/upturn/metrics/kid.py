"""Kernel distance between the features of samples and of real data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from upturn.metrics._embedded import Real, metric_key, real_features, sample_features
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import subsample_masks
from upturn.statistics.memo import remembered
from upturn.types import Array, Measurement

if TYPE_CHECKING:
    from torch import Tensor

_CELLS = 2**24  # values of the kernel held at a time: 64 MB
_LEAST = 8


@dataclass(frozen=True)
class Kid(Metric):
    """Squared maximum mean discrepancy with the kernel (x.y / d + 1)^3: unbiased, so it may fall below 0.

    Binkowski et al. 2018 ("Demystifying MMD GANs"), section 4 and equation 4. It means the same at any n, where the
    Fréchet distance falls with n. Not multiplied by 1,000, as some report it. ``floor`` in the details is the value for
    training data against the same real data. All rows are compared with all, a block at a time, in the features'
    own precision (in float32 it moved by 1e-10 at 3,000 rows of 2,048).

    The interval is by subsampling the samples in blocks without replacement, the real ones as they are.
    """

    against: Real = "held_out"

    title: ClassVar[str] = "Kernel distance"
    meaning: ClassVar[str] = (
        "Distance between the distributions of generated and real samples, without bias at small numbers: 0 is "
        "equal."
    )
    better: ClassVar[Better] = "lower"
    by_features: ClassVar[bool] = True

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        generated = sample_features(evidence)
        n = len(generated)
        if n < _LEAST:
            raise UndefinedMetric(f"{n} samples; at least {_LEAST} are needed")
        real = real_features(evidence.tools, self.against, _LEAST)
        within, across, fixed = _own_sums(generated), _mean_kernel(generated, real), _mean_within(real)

        def at(masks: Array) -> Array:
            chosen = masks.astype(np.float32)
            pairs = np.array([within.sum()]) if masks.all() else _masked_sums(generated, chosen)
            count = masks.sum(axis=1).astype(np.float64)
            found: Array = pairs / (count * (count - 1)) + fixed - 2 * (masks @ across) / count
            return found

        low, high = subsample_masks(at, n, metric_key(evidence, "kid"), clusters=evidence.samples.group)
        details: dict[str, float | int] = {"real": len(real)}
        other: Real = "train" if self.against == "held_out" else "held_out"
        with suppress(UndefinedMetric):
            rest = real_features(evidence.tools, other, _LEAST)
            details["floor"] = _mean_within(rest) + fixed - 2 * float(_mean_kernel(rest, real).mean())
        return Measurement(float(at(np.ones((1, n), dtype=bool))[0]), low, high, n, details=details)


def blocks(a: Array, b: Array) -> Iterator[tuple[int, Tensor]]:
    """(first row, (rows, M) values of the kernel) of ``a`` (N, D) and ``b`` (M, D), of the precision of both."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    shared = np.result_type(a, b)
    every = torch.as_tensor(b.astype(shared, copy=False), device=device).T
    step = max(1, _CELLS // max(1, len(b)))
    for start in range(0, len(a), step):
        part = torch.as_tensor(a[start : start + step].astype(shared, copy=False), device=device)
        yield start, (part @ every).div_(a.shape[1]).add_(1).pow_(3)


@remembered
def _own_sums(features: Array) -> Array:
    """(N,) float64 sums of the kernel of each row with all others."""
    return np.concatenate([_off_diagonal(start, block).double().sum(dim=1).cpu().numpy()
                           for start, block in blocks(features, features)])


@remembered
def _mean_kernel(a: Array, b: Array) -> Array:
    """(N,) float64 means of the kernel of each row of ``a`` with all of ``b``."""
    return np.concatenate([block.double().mean(dim=1).cpu().numpy() for _, block in blocks(a, b)])


def _mean_within(features: Array) -> float:
    n = len(features)
    return float(_own_sums(features).sum()) / (n * (n - 1))


def _masked_sums(features: Array, chosen: Array) -> Array:
    """(R,) sums of the kernel over the pairs of different rows within each of (R, N) subsets."""
    import torch

    total = np.zeros(len(chosen))
    for start, block in blocks(features, features):
        masks = torch.as_tensor(chosen, device=block.device, dtype=block.dtype)
        sums = masks @ _off_diagonal(start, block).T
        total += (sums * masks[:, start : start + len(block)]).double().sum(dim=1).cpu().numpy()
    return total


def _off_diagonal(start: int, block: Tensor) -> Tensor:
    block.diagonal(offset=start).zero_()
    return block
