"""Perplexity of held-out text under the policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.data.groups import preferred
from upturn.embeddings.inference import log_likelihoods
from upturn.errors import UserError
from upturn.metrics._embedded import metric_key, spread_rows
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Measurement


@dataclass(frozen=True)
class Perplexity(Metric):
    """exp of the mean negative log-likelihood a token, of held-out text under the policy; lower is better.

    Every token counts the same (long documents weigh more), the end token too, prompts not. The interval draws whole
    documents, because the tokens of one document are dependent. Comparable between models that share a tokenizer only:
    ``details`` gives bits a character, which is comparable between all.

    Raises UserError where the model's log-probs are not exact likelihoods: a bound's exponential is no perplexity.
    """

    title: ClassVar[str] = "Perplexity"
    meaning: ClassVar[str] = (
        "Inverse probability that the model gives to a token of real text that it never trained on, a geometric "
        "mean: lower is better."
    )
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    better: ClassVar[Better] = "lower"
    held_out_only: ClassVar[bool] = True  # the samples of the evaluation are not used

    documents: int = 2000  # held-out documents at most, evenly spaced: about 2% of width at 100 tokens each

    def __post_init__(self) -> None:
        if self.documents < 2:
            raise ValueError("documents is at least 2")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        model = evidence.tools.model("policy")
        if model.likelihood != "exact":
            raise UserError(
                f"perplexity needs exact log-likelihoods, those of the policy are {model.likelihood}",
                where="evaluate: perplexity", fix="Remove the metric.",
            )
        held_out = evidence.tools.held_out
        held_out = held_out.take(preferred(held_out))  # of preferences what likelihood learns: the chosen ones
        used = held_out.take(spread_rows(len(held_out), self.documents))
        if not len(used):
            raise UndefinedMetric("there is no held-out text")
        totals, counts = log_likelihoods(model, used)
        mean = -float(totals.sum() / counts.sum())
        # a ratio of sums over documents: each token is given its document's mean, tokens cluster by document
        each = np.repeat(-totals / counts, counts)
        low, high = bootstrap_mean(
            each, metric_key(evidence, "perplexity"), clusters=np.repeat(np.arange(len(used)), counts)
        )
        characters = sum(len(str(content)) for content in used.content)
        details = {
            "tokens": int(counts.sum()), "characters": characters, "nats_per_token": mean,
            "bits_per_character": -float(totals.sum()) / math.log(2) / max(characters, 1),
        }
        note = "" if len(used) == len(held_out) else f"{len(used)} of {len(held_out)} held-out documents"
        return Measurement(math.exp(mean), math.exp(low), math.exp(high), len(used), note=note, details=details)
