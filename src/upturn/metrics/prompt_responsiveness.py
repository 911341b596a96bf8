"""Share of the variance of the samples that the prompts explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key, sample_features
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Array, Measurement


@dataclass(frozen=True)
class PromptResponsiveness(Metric):
    """Share of the features' variance that the prompts account for: 0 where prompts are ignored, 1 where chance is.

    One-way analysis of variance with random groups, summed over the dimensions: with MSB and MSW the mean squares
    between and within prompts and k candidates a prompt, (MSB - MSW) / (MSB + (k - 1) MSW): the intraclass correlation
    ICC(1) of Shrout & Fleiss 1979, table 3, which is 0 on average (and may fall below) where prompts do nothing, for
    any k. Of uneven groups k is their n_0 (Donner 1986, section 2). Equal prompts count as one.

    The interval is over prompts: jackknife pseudo-values, one a prompt (Efron 1982, chapter 2), bootstrapped. It needs
    at least two candidates of some prompts: 'candidates: 4' of the evaluation.
    """

    title: ClassVar[str] = "Prompt responsiveness"
    meaning: ClassVar[str] = (
        "Share of the variation between images that the prompts explain: 0 where prompts are ignored."
    )
    better: ClassVar[Better] = "higher"

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        names = [f"{prompt.label}\x1f{prompt.text}" for prompt in evidence.samples.prompts]
        requested = np.unique(names, return_inverse=True)[1].reshape(-1)
        prompts, n = int(requested.max()) + 1, len(requested)
        if prompts < 3:
            raise UndefinedMetric(f"{prompts} different prompt{'s' * (prompts > 1)}; at least 3 are needed")
        if n == prompts:
            raise UndefinedMetric(
                "one candidate a prompt: its noise cannot be separated from the prompt's effect; set 'candidates: 4'"
            )
        share, left_out, between, within = shares(sample_features(evidence), requested)
        if not np.isfinite(share):
            raise UndefinedMetric("all samples are equal")
        usable = np.isfinite(left_out)
        pseudo = prompts * share - (prompts - 1) * left_out[usable]
        low, high = bootstrap_mean(pseudo, metric_key(evidence, "prompt_responsiveness"))
        details = {"prompts": prompts, "between": between, "within": within, "f": between / within if within else None}
        return Measurement(share, low, min(high, 1.0), n, details=details)


def shares(features: Array, requested: Array) -> tuple[float, Array, float, float]:
    """The intraclass correlation; (P,) the same without each prompt; and the mean squares between and within.

    ``features`` (N, D), ``requested`` (N,) numbers of prompts from 0.
    """
    count = np.bincount(requested).astype(np.float64)
    features = features - features.mean(axis=0)
    sums = np.zeros((len(count), features.shape[1]))
    np.add.at(sums, requested, features)
    squares = np.bincount(requested, weights=(features**2).sum(axis=1))
    heights = (sums**2).sum(axis=1) / count  # n_p |mean_p|^2
    own = squares - heights  # sum of squares within each prompt
    total = sums.sum(axis=0)

    def figure(n: Array, groups: Array, inside: Array, tall: Array, middle: Array, squared: Array) -> tuple[Array, ...]:
        between = (tall - middle / n) / (groups - 1)
        within = inside / np.maximum(n - groups, 1)
        size = (n - squared / n) / (groups - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return (between - within) / (between + (size - 1) * within), between, within

    n, groups = np.array(count.sum()), np.array(float(len(count)))
    whole, between, within = figure(n, groups, own.sum(), heights.sum(), total @ total, (count**2).sum())
    rest = total - sums
    left_out, _, _ = figure(
        n - count, groups - 1, own.sum() - own, heights.sum() - heights, (rest**2).sum(axis=1),
        (count**2).sum() - count**2,
    )
    return float(whole), left_out, float(between), float(within)
