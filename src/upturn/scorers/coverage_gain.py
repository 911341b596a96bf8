"""A sample's contribution to the coverage of real training data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.protocols import Scorer, Tools
from upturn.scorers._contributions import real_features, sample_features, spread_out
from upturn.statistics.neighbours import Ground, balls, joined
from upturn.types import Array, Samples, Scores


@dataclass
class CoverageGain(Scorer):
    """A sample's share of the coverage of real training samples by all that are scored together.

    A real sample whose k-neighbourhood holds c of the scored ones gives each of them 1/c, over the number of real ones.
    That is the Shapley value (1953) of coverage (Naeem et al., ICML 2020, equation 4): the mean, over all orders of
    the samples, of what this one adds when it is appended. The scores sum to the coverage of the
    training part. Distances are between the recipe's ``features:``.
    """

    k: int = 5  # as in the metric 'coverage'
    scale: float = 1.0  # multiplies

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k is {self.k}: it must be at least 1")

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and the scale, in order."""
        return min(0.0, self.scale), max(0.0, self.scale)

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) from 0 (it covers nothing) to ``scale``; unscored where features are not finite."""
        if len(samples) == 0:
            return Scores("coverage_gain", np.zeros(0))
        real = real_features(tools, self.k + 1, "coverage_gain")
        features, finite = sample_features(samples, tools)
        credit, covers, alone = shapley(real, features, self.k)
        words = [f"covers {n} real samples, {lonely} of them alone" if n else "covers no real sample"
                 for n, lonely in zip(covers.tolist(), alone.tolist(), strict=True)]
        return spread_out("coverage_gain", finite, self.scale * credit, words, "its features are not finite")


def shapley(real: Array, samples: Array, k: int) -> tuple[Array, Array, Array]:
    """(M,) Shapley values of ``samples``, how many of ``real`` each covers, and how many of those no other covers."""
    import torch

    if len(samples) == 0:
        return np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    ground = Ground.of(samples)
    credit = torch.zeros(len(samples), dtype=torch.float64, device=ground.rows.device)
    covers, alone = torch.zeros_like(credit), torch.zeros_like(credit)
    for _, inside in balls(real, k, ground):
        sharing = inside.sum(dim=1)
        rows, columns = torch.nonzero(inside, as_tuple=True)
        each = 1 / sharing[rows].double()
        credit.index_add_(0, columns, each)
        covers.index_add_(0, columns, torch.ones_like(each))
        alone.index_add_(0, columns, (sharing[rows] == 1).double())
    return joined([credit]) / len(real), joined([covers]).astype(np.int64), joined([alone]).astype(np.int64)
