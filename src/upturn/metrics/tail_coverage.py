"""Share of the rare words of held-out text that the samples use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key
from upturn.metrics._grams import Unit, grams, units
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import subsample_masks
from upturn.types import Array, Measurement

_LEAST = 30  # rare n-grams


@dataclass(frozen=True)
class TailCoverage(Metric):
    """Share of the rare n-grams of held-out text that the samples use at least once.

    A rare n-gram occurs in training text, so that the model could learn it, but at most ``rare`` times, and also in
    held-out text, so that it is no typing error. A model that is retrained on its own samples loses this tail first
    (Shumailov et al., Nature 2024). It rises with the amount of text: ``if_equal`` in the details is what as many
    n-grams drawn from training text would hold, 1 - C(N - c, T) / C(N, T) on average for a gram that is c of N. The
    interval is by subsampling whole prompts.
    """

    n: int = 1
    rare: int = 5
    unit: Unit = "words"

    title: ClassVar[str] = "Rare words kept"
    meaning: ClassVar[str] = "Share of the rare words of unseen text that the samples still use: higher is more varied."
    reference: ClassVar[tuple[str, str] | None] = ("if_equal", "as much real text")
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    better: ClassVar[Better] = "higher"

    def __post_init__(self) -> None:
        if self.n < 1 or self.rare < 1:
            raise ValueError("n and rare are at least 1")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        parts = [evidence.samples, evidence.tools.train, evidence.tools.held_out]
        found, offsets = grams([text for part in parts for text in units(part.content, self.unit)], self.n)
        count = len(evidence.samples)
        cuts = offsets[[count, count + len(parts[1])]]
        names = int(found.max(initial=-1)) + 1
        generated, train, held_out = (np.bincount(part, minlength=names) for part in np.split(found, cuts))
        rare = (train >= 1) & (train <= self.rare) & (held_out >= 1)
        if rare.sum() < _LEAST:
            raise UndefinedMetric(f"{int(rare.sum())} rare {self.n}-grams are held out; at least {_LEAST} are needed")
        of_sample = np.repeat(np.arange(count), np.diff(offsets[: count + 1]))
        used = rare[found[: cuts[0]]]
        gram, sample = found[: cuts[0]][used], of_sample[used]

        def share(masks: Array) -> Array:
            shares = np.empty(len(masks))
            for row, mask in enumerate(masks):
                still = np.zeros(names, dtype=bool)
                still[gram[mask[sample]]] = True
                shares[row] = still.sum() / rare.sum()
            return shares

        low, high = subsample_masks(
            share, count, metric_key(evidence, "tail_coverage"), clusters=evidence.samples.group
        )
        details: dict[str, object] = {"rare": int(rare.sum()), "n_grams": int(cuts[0])}
        if cuts[0] <= train.sum():
            details["if_equal"] = float(seen_by_chance(train[rare], int(train.sum()), int(cuts[0])).mean())
        value = float((rare & (generated > 0)).sum() / rare.sum())
        return Measurement(value, max(low, 0.0), min(high, 1.0), count, details=details)


def seen_by_chance(counts: Array, total: int, drawn: int) -> Array:
    """(G,) probability that ``drawn`` of ``total`` n-grams hold one that occurs ``counts`` times: no replacement."""
    from scipy.special import gammaln

    def log_choose(n: Array | float) -> Array | float:
        found: Array | float = gammaln(n + 1) - gammaln(n - drawn + 1)
        return found

    left = total - counts
    with np.errstate(invalid="ignore"):
        missed = np.where(left >= drawn, np.exp(log_choose(np.maximum(left, drawn)) - log_choose(float(total))), 0.0)
    return np.asarray(1 - missed)
