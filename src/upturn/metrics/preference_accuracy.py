"""Share of held-out comparisons that the policy's implicit reward orders as the data do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.data.groups import RANK, SCORE, from_fields, ordered_pairs
from upturn.embeddings.inference import log_likelihoods
from upturn.errors import UserError
from upturn.metrics._embedded import metric_key
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import INITIAL_POLICY, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Kind, Measurement


@dataclass(frozen=True)
class PreferenceAccuracy(Metric):
    """Of pairs (better, worse) in held-out comparisons, the share with a higher implicit reward of the better.

    The implicit reward of DPO (Rafailov et al. 2023, section 4) is log pi(y | x) - log pi_0(y | x), up to its scale
    beta; pi_0 is the policy before its first training in this run. Of the untrained policy it is 0 for every answer,
    and the accuracy is one half. ``relative: false`` leaves pi_0 out, as SimPO and ORPO do; then the log-probability
    is divided by the number of tokens. Equal rewards count half, ties of the data are left out, and every comparison
    weighs the same. ``values`` (G,) are a comparison's share.
    """

    relative: bool = True

    title: ClassVar[str] = "Preference accuracy"
    meaning: ClassVar[str] = "Share of held-out pairs whose better answer has the higher implicit reward."
    kinds: ClassVar[frozenset[Kind]] = frozenset({"text"})
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    held_out_only: ClassVar[bool] = True  # the samples of the evaluation are not used

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        held_out = evidence.tools.held_out
        if RANK not in held_out.fields and SCORE not in held_out.fields:
            raise UndefinedMetric("the held-out data has no comparisons")
        try:
            groups, _ = from_fields(held_out)
        except UserError as reason:
            raise UndefinedMetric(reason.what) from reason
        totals, counts = log_likelihoods(evidence.tools.model("policy"), held_out)
        if self.relative:
            rewards = totals - log_likelihoods(evidence.tools.model(INITIAL_POLICY), held_out)[0]
        else:
            rewards = totals / np.maximum(counts, 1)
        better, worse, owner, _ = ordered_pairs(groups)
        read = (counts[better] > 0) & (counts[worse] > 0)  # a text that is too long may have been dropped
        better, worse, owner = better[read], worse[read], owner[read]
        if not len(better):
            raise UndefinedMetric("no held-out comparison orders two candidates")
        gap = rewards[better] - rewards[worse]
        right = np.where(gap == 0, 0.5, gap > 0)
        there = np.bincount(owner, minlength=len(groups))
        values = np.bincount(owner, weights=right, minlength=len(groups)) / np.where(there, there, np.nan)
        low, high = bootstrap_mean(values, metric_key(evidence, "preference_accuracy"))
        known = int((there > 0).sum())
        note = f"{len(better)} pairs of {known} comparisons"
        details = {"mean_gap": float(gap.mean())}
        return Measurement(float(np.nanmean(values)), low, high, known, values, note, details)
