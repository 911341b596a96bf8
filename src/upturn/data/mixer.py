"""What a round trains on: real rows, kept synthetic rows, and a weight for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from upturn.data.caption_fields import alike
from upturn.data.ratio import Ratio, as_number
from upturn.errors import RunError, UserError
from upturn.protocols import MixingPolicy
from upturn.types import REAL, SYNTHETIC, Array, Mixture, Samples, concatenate


@dataclass(frozen=True)
class Mixer:
    """Combines real data with what earlier rounds kept: a policy selects the rows, λ and source weights weigh them.

    With W_real and W_synthetic the summed weights, ``W_synthetic = λ W_real`` exactly; ``lambda: null`` gives every
    row the same weight, so the numbers of rows decide. Rows of one source share its part in proportion to ``weights``
    (a factor per row, 1 where not named). Rows of weight 0 are left out (λ = 0: real only; λ = only or .inf: synthetic
    only). Weights are scaled to a mean of 1.

    policy   which rows: a component of upturn/data/mixing
    lambda_  λ = synthetic : real; 1/2 (two thirds real) as in the image experiments of Ferbach et al., NeurIPS 2024
    weights  factor per row by source: a source's whole name, or the part before its ":"
    real     real rows per round, drawn again each round (fresh: the size of a slice); all of them where null
    size     rows in all, for a policy that subsamples; as many as there are real rows where null
    rounds   rounds of the run, for a policy that cuts the real rows into slices where ``real`` is null
    repeat   how often each real row occurs in the mixture. A batch is divided by the weight that it happens to hold,
             so few rows of great weight count for less than λ in small batches: as many rows as λ requires do not
    """

    policy: MixingPolicy
    lambda_: Ratio = 0.5
    weights: dict[str, float] = field(default_factory=dict)
    real: int | None = None
    size: int | None = None
    rounds: int | None = None
    repeat: int = 1

    def __post_init__(self) -> None:
        share = as_number(self.lambda_)
        if share is not None and not share >= 0.0:
            raise ValueError(f"lambda must be 0 or more (or 'only', or null), not {self.lambda_}")
        wrong = {name: w for name, w in self.weights.items() if not (w >= 0.0 and math.isfinite(w))}
        if wrong:
            raise ValueError(f"weights must be finite and 0 or more, not {wrong}")
        for name in ("real", "size", "rounds", "repeat"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        if self.policy.fresh_real and self.real is None and self.rounds is None:
            raise ValueError("fresh real rows need 'real' (rows per round) or 'rounds' (of the run) to cut slices")
        if self.size is not None and not self.policy.subsamples:
            raise ValueError(f"size is for a policy that subsamples, not for {type(self.policy).__name__}")

    def real_rows(self, real: Samples, round: int, key: int = 0) -> Samples:
        """The real rows that the policy gives to a round."""
        return self.policy.real_rows(real, self.real, self.rounds, round, key)

    def mix(self, real: Samples, kept: Sequence[Samples], key: int, round: int) -> Mixture:
        """The mixture of a round; ``kept`` has what each round so far kept, the newest last, before round 1 nothing.

        Order: real rows as in ``real``, then rounds from the oldest. The same key gives the same mixture.
        Raises UserError for a source in ``weights`` that is not there, RunError where nothing is left to train on.
        """
        share = as_number(self.lambda_)
        chosen = self.real_rows(real, round, key) if share != math.inf else real.take([])
        if self.repeat > 1:
            chosen = chosen.take(np.tile(np.arange(len(chosen)), self.repeat))
        used = [kept[number - 1] for number in self.policy.rounds_used(len(kept))]
        parts = [part for part in used if len(part)] if share != 0.0 else []
        self._refuse_empty(chosen, parts, share, round)
        pool = concatenate(alike([part for part in (chosen, *parts) if len(part)]))
        if self.policy.subsamples:
            size = self.size if self.size is not None else len(real)
            pool = pool.take(self.policy.subsample(pool.origin, size, share, key))
        raw = source_factors(pool, self.weights)
        if (raw == 0.0).any():
            pool, raw = pool.take(raw > 0.0), raw[raw > 0.0]
        return Mixture(pool, balanced(raw, pool.origin == SYNTHETIC, share))

    def _refuse_empty(self, real: Samples, parts: Sequence[Samples], share: float | None, round: int) -> None:
        if not parts and round > 0 and share is not None and share > 0.0:
            raise RunError(
                f"nothing was kept that round {round} could train on, and λ = {share:g} requires synthetic rows",
                where="mix", fix="Curate less strictly, or set lambda to null so that the numbers of rows decide.",
            )
        if not len(real) and not parts:
            raise RunError(f"round {round} has nothing to train on", where="mix", fix="Give real data, or λ > 0.")


def source_factors(samples: Samples, weights: Mapping[str, float]) -> Array:
    """(N,) float64 factor of each row's source. Raises UserError for a name that no row has."""
    if not weights:
        return np.ones(len(samples))
    found, inverse = np.unique(samples.source.astype(str), return_inverse=True)
    short = [name.split(":")[0] for name in found]
    unknown = [name for name in weights if name not in found and name not in short]
    if unknown:
        raise UserError(
            f"there is no source '{unknown[0]}'", where=f"mix.weights.{unknown[0]}", fix=f"Found: {', '.join(found)}."
        )
    factors = [weights.get(str(name), weights.get(first, 1.0)) for name, first in zip(found, short, strict=True)]
    return np.asarray(np.array(factors, dtype=np.float64)[inverse])


def balanced(raw: Array, synthetic: Array, share: float | None) -> Array:
    """(N,) weights with mean 1, in the proportions of ``raw`` within each origin; synthetic : real = λ unless None.

    Where only one origin has rows, it has all the weight.
    """
    if not len(raw):
        raise RunError("every row has weight 0", where="mix.weights", fix="Give one source a weight above 0.")
    weights = raw.astype(np.float64)
    n = len(raw)
    sums = {True: float(raw[synthetic].sum()), False: float(raw[~synthetic].sum())}
    if share is None or 0.0 in sums.values():
        return np.asarray(weights * (n / raw.sum()))
    weights[synthetic] *= n * share / (1.0 + share) / sums[True]
    weights[~synthetic] *= n / (1.0 + share) / sums[False]
    return weights


def expected_real_fraction(policy: MixingPolicy, lambda_: Ratio, round: int, sizes: Sequence[int]) -> float:
    """The expected share of real weight in the mixture of a round, without source weights.

    sizes  rows: real (fresh: of one slice), kept in round 1, kept in round 2, …; the last repeats for later rounds

    With λ it is 1 / (1 + λ) whatever the policy; without, the numbers of rows decide. Round 0 is all real.
    """
    if round == 0:
        return 1.0
    share = as_number(lambda_)
    if share is not None:
        return 1.0 / (1.0 + share)
    real, kept = sizes[0], list(sizes[1:]) or [0]
    synthetic = sum(kept[min(number, len(kept)) - 1] for number in policy.rounds_used(round))
    rows = policy.expected_rows(real, synthetic, real, None)
    return rows[REAL] / (rows[REAL] + rows[SYNTHETIC])
