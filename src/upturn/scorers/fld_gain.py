"""A sample's contribution to the likelihood of unseen real data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from upturn.errors import UserError
from upturn.protocols import Scorer, Tools
from upturn.scorers._contributions import real_features, sample_features, spread_out
from upturn.seeds import generator, key
from upturn.statistics.kernel_density import KernelMixture
from upturn.statistics.scaling import Scale
from upturn.types import Array, Samples, Scores

_LEAST = 100  # training samples: as the metric 'fld', 50 in each half


@dataclass
class FldGain(Scorer):
    """How much the Feature Likelihood Divergence of all scored samples would rise without this one.

    Jiralerspong et al., NeurIPS 2023, section 3, see the metric ``fld``: 100/D times nats a point. The density is a
    Gaussian round each scored sample, its width fitted to one half of the real training part; the other half, which
    also gives the scale, is the unseen data at which the density is evaluated. Held-out data is reserved for metrics.
    The widths stay as fitted to all: without sample j, log p(x) changes by log(1 - r_j(x)) - log(1 - 1/M), r_j its part
    of the density at x. Below 0 the other samples are better without it.
    """

    scale: float = 1.0  # multiplies

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,), the rise of FLD times ``scale``; unscored where features are not finite, or one sample is alone."""
        if len(samples) == 0:
            return Scores("fld_gain", np.zeros(0))
        widths, unseen = halves(real_features(tools, _LEAST, "fld_gain"))
        features, finite = sample_features(samples, tools)
        scaled = Scale.of(unseen)
        if not scaled.kept.any():
            raise UserError("all training features are equal", where="scorer 'fld_gain'", fix="Check 'features:'.")
        if len(features) < 2:
            return spread_out("fld_gain", np.zeros_like(finite), np.zeros(0), [], "nothing is left without it")
        mixture = KernelMixture.fitted(scaled(features), scaled(widths))
        rises = 100 / int(scaled.kept.sum()) * losses(mixture, scaled(unseen))
        words = [f"without it FLD is {rise:+.3g}" for rise in rises.tolist()]
        return spread_out("fld_gain", finite, self.scale * rises, words, "its features are not finite")


def halves(train: Array) -> tuple[Array, Array]:
    """The rows that widths are fitted to, and the others: the same in every round."""
    order = generator(key("fld_gain", "halves")).permutation(len(train))
    return train[order[: len(train) // 2]], train[order[len(train) // 2 :]]


def losses(mixture: KernelMixture, points: Array) -> Array:
    """(M,) nats a point that the mean log density of ``points`` falls by when one centre is left out."""
    import torch

    count = len(mixture.centres)
    fallen = np.zeros(count)
    for _, terms in mixture.terms(points):
        terms = terms.double()
        whole = terms.logsumexp(dim=1, keepdim=True)
        each = -torch.log1p(-(terms - whole).exp())
        # 1 - r loses its digits where one centre has nearly all of the density: there the others are summed themselves
        largest = terms.argmax(dim=1, keepdim=True)
        others = terms.scatter(1, largest, -torch.inf).logsumexp(dim=1, keepdim=True)
        each.scatter_(1, largest, whole - others)
        fallen += each.sum(dim=0).cpu().numpy()
    return fallen / len(points) + math.log1p(-1 / count)
