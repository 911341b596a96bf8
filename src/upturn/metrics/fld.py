"""Feature Likelihood Divergence: likelihood of unseen real data under the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key, real_features, sample_features, spread_rows
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.seeds import generator, key
from upturn.statistics.intervals import subsample_masks
from upturn.statistics.kernel_density import KernelMixture
from upturn.statistics.memo import remembered
from upturn.statistics.scaling import Scale
from upturn.types import Array, Measurement

_LEAST = 50  # of samples, held-out and half of the training data: with fewer, one point moves it by tens
_LISTED = 32  # parts of the density at a held-out point that subsets keep apart; the others count in proportion
_COPIED = 1000.0  # beyond it, the reference's authors say, samples are most likely copies


@dataclass(frozen=True)
class Fld(Metric):
    """100/D times how much less likely (nats) held-out data is under the samples' density than under training data's.

    Jiralerspong et al., NeurIPS 2023, section 3: 0 is as good as real data, larger is worse, in quality, diversity or
    novelty. The density is a Gaussian round each sample (``statistics/kernel_density.py``) whose widths are fitted to
    training data; samples that copy it become narrow, and held-out data unlikely. As in their code, features are scaled
    by the held-out part's mean and deviations, and the same of half the training data fitted to the other half is
    subtracted. ``memorised`` in the details is how much likelier training than held-out data is, in the same units. It
    does not detect samples that are too near the middle of one smooth cluster, for which wider Gaussians make up (5
    dimensions, 0.4 of the spread: below 0).

    The interval is over the samples, by subsampling with the widths as fitted to all of them. N * M * 4 bytes.
    """

    at_most: int = 10_000  # samples, and training data: the reference's number

    title: ClassVar[str] = "Feature likelihood divergence"
    meaning: ClassVar[str] = (
        "How much less likely unseen real data is under the samples than under real samples: 0 is as good as real."
    )
    better: ClassVar[Better] = "lower"

    def __post_init__(self) -> None:
        if self.at_most < _LEAST:
            raise ValueError(f"at_most is {self.at_most}: it must be at least {_LEAST}")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        every = sample_features(evidence, _LEAST)
        train, held_out = (real_features(evidence.tools, "train", 2 * _LEAST),
                           real_features(evidence.tools, "held_out", _LEAST))
        rows = spread_rows(len(every), self.at_most)
        scale = Scale.of(held_out)
        if not scale.kept.any():
            raise UndefinedMetric("all held-out features are equal")
        data, unseen = scale(train[spread_rows(len(train), 2 * self.at_most)]), scale(held_out)
        fitted_to = data[spread_rows(len(data), self.at_most)]
        mixture = KernelMixture.fitted(scale(every[rows]), fitted_to)
        found = Likelihood.of(mixture, unseen)
        dims = unseen.shape[1]
        baseline = _of_training(data, unseen, min(len(rows), len(data) // 2))
        value = 100 / dims * (baseline - found.mean)
        low, high = subsample_masks(
            lambda masks: 100 / dims * (baseline - found.of_subsets(masks)), len(rows),
            metric_key(evidence, "fld"), clusters=evidence.samples.group[rows],
        )
        seen = float(mixture.log_density(fitted_to).mean())
        details = {
            "dims": dims, "memorised": 100 / dims * (seen - found.mean), "train": len(fitted_to),
            "held_out": len(unseen), "real": 100 / dims * -baseline,
        }
        notes = [f"{len(rows)} of {len(every)} samples are used"] if len(rows) < len(every) else []
        notes += ["most likely copies of training data"] if value > _COPIED else []
        return Measurement(value, low, high, len(rows), note="; ".join(notes), details=details)


@dataclass(frozen=True)
class Likelihood:
    """The largest parts (T, L) of the density at each point, nats, whose they are, and the log of all others' sum."""

    parts: Array
    rows: Array
    rest: Array  # (T,) nats, -inf where there are no others

    @staticmethod
    def of(mixture: KernelMixture, points: Array) -> Likelihood:
        import torch

        parts, rows, rest = [], [], []
        for _, terms in mixture.terms(points):
            terms = terms.double()
            largest, which = torch.topk(terms, min(_LISTED, terms.shape[1]))
            parts.append(largest.cpu().numpy())
            rows.append(which.cpu().numpy())
            rest.append(terms.scatter(1, which, -torch.inf).logsumexp(dim=1).cpu().numpy())
        return Likelihood(np.concatenate(parts), np.concatenate(rows), np.concatenate(rest))

    @property
    def mean(self) -> float:
        return float(np.logaddexp(_log_sum(self.parts, np.ones_like(self.parts, dtype=bool)), self.rest).mean())

    def of_subsets(self, masks: Array) -> Array:
        """(R,) mean log density where only the samples of each of (R, M) masks make it."""
        found = np.empty(len(masks))
        for row, mask in enumerate(masks):
            share = mask.mean()
            with np.errstate(divide="ignore"):
                each = np.logaddexp(_log_sum(self.parts, mask[self.rows]), self.rest + np.log(share))
            found[row] = (each - np.log(share)).mean()  # the density divides by as many as there are
        return found


def _log_sum(parts: Array, kept: Array) -> Array:
    """(T,) log of the sum of exp of what is kept, in rows that fall from left to right."""
    first = np.take_along_axis(parts, kept.argmax(axis=1)[:, None], axis=1)
    with np.errstate(divide="ignore"):
        found: Array = first[:, 0] + np.log((np.exp(np.minimum(parts - first, 0)) * kept).sum(axis=1))
    return found


@remembered
def _of_training(train: Array, held_out: Array, size: int) -> float:
    """Mean log density of ``held_out`` under ``size`` training rows whose widths are fitted to the others."""
    order = generator(key("fld", "halves")).permutation(len(train))
    return float(KernelMixture.fitted(train[order[:size]], train[order[size:]]).log_density(held_out).mean())
