"""What a round trains on: real rows, kept synthetic rows, and a weight for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from upturn import seeds
from upturn.data.caption_fields import alike
from upturn.errors import RunError, UserError
from upturn.types import REAL, SYNTHETIC, Array, Mixture, Samples, concatenate

Policy = Literal["replace", "accumulate", "accumulate_subsample", "fresh"]
Ratio = float | Literal["only"] | None


def ratio(given: Ratio) -> float | None:
    """λ as a number: "only" is infinity, None stays None (every row weighs the same)."""
    return math.inf if given == "only" else given


@dataclass(frozen=True)
class Mixer:
    """Blends real data with what earlier rounds kept, by stated weights.

    Which rows:

    - ``replace``: the real rows, and what the newest round kept.
    - ``accumulate``: the real rows, and what every round so far kept (Gerstgrasser et al., COLM 2024).
    - ``accumulate_subsample``: ``size`` rows without replacement from all of those (Kazdan et al., 2024,
      "Collapse or thrive?"). With λ, round(size / (1 + λ)) of them are real, else chance decides.
    - ``fresh``: real rows that no earlier round has seen (slice t of :meth:`fresh_slice`), and the newest round's kept.

    Which weights: with W_real and W_synthetic the summed weights, ``W_synthetic = λ W_real`` exactly; ``lambda: null``
    gives every row the same weight, so the numbers of rows decide. Rows of one source share its part in proportion to
    ``weights`` (a factor a row, 1 where not named). Rows of weight 0 are left out (λ = 0: real only; λ = only or .inf:
    synthetic only). Weights are scaled to a mean of 1.

    policy   which rows
    lambda_  λ = synthetic : real; 1/2 (two thirds real) as in the image experiments of Ferbach et al., NeurIPS 2024
    weights  factor a row by source: a source's whole name, or what stands before its ":"
    real     real rows a round, drawn anew each round (fresh: the size of a slice); all of them where null
    size     accumulate_subsample: rows in all; as many as there are real rows where null
    rounds   fresh: rounds of the run, to cut the real data into rounds + 1 slices where ``real`` is null
    repeat   how often each real row stands in the mixture. A batch is divided by the weight that it happens to hold, so
             few rows of great weight count for less than λ says in small batches: rows as many as λ asks for do not
    """

    policy: Policy = "replace"
    lambda_: Ratio = 0.5
    weights: dict[str, float] = field(default_factory=dict)
    real: int | None = None
    size: int | None = None
    rounds: int | None = None
    repeat: int = 1

    def __post_init__(self) -> None:
        share = ratio(self.lambda_)
        if share is not None and not share >= 0.0:
            raise ValueError(f"lambda must be 0 or more (or 'only', or null), not {self.lambda_}")
        wrong = {name: w for name, w in self.weights.items() if not (w >= 0.0 and math.isfinite(w))}
        if wrong:
            raise ValueError(f"weights must be finite and 0 or more, not {wrong}")
        for name in ("real", "size", "rounds", "repeat"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        if self.policy == "fresh" and self.real is None and self.rounds is None:
            raise ValueError("policy fresh needs 'real' (rows a round) or 'rounds' (of the run) to cut slices")
        if self.size is not None and self.policy != "accumulate_subsample":
            raise ValueError(f"size is for policy accumulate_subsample, not {self.policy}")

    def fresh_slice(self, real: Samples, round: int) -> Samples:
        """The real rows that policy ``fresh`` gives to a round; slice 0 is for round 0 (pre-training).

        Rows are ordered by their content id, which is a hash: slices are disjoint and stay the same whatever the seed.
        Raises UserError where the real data does not reach that far.
        """
        slices = (self.rounds or 0) + 1
        size = self.real if self.real is not None else len(real) // slices
        start, stop = round * size, (round + 1) * size
        if size == 0 or stop > len(real):
            need = stop if size else slices
            raise UserError(
                f"policy fresh needs {need:,} real rows by round {round}, there are {len(real):,}", where="mix",
                fix="Lower 'real', run fewer rounds, bring more data, or use another policy.",
            )
        order = np.argsort(real.ids.astype(str), kind="stable")
        return real.take(np.sort(order[start:stop]))

    def mix(self, real: Samples, kept: Sequence[Samples], key: int, round: int) -> Mixture:
        """The mixture of a round; ``kept`` has what each round so far kept, the newest last, before round 1 nothing.

        Order: real rows as in ``real``, then rounds from the oldest. The same key gives the same mixture.
        Raises UserError for a source in ``weights`` that is not there, RunError where nothing is left to train on.
        """
        share = ratio(self.lambda_)
        chosen = self._real_rows(real, key, round) if share != math.inf else real.take([])
        if self.repeat > 1:
            chosen = chosen.take(np.tile(np.arange(len(chosen)), self.repeat))
        older = kept if self.policy.startswith("accumulate") else kept[-1:]
        parts = [part for part in older if len(part)] if share != 0.0 else []
        self._refuse_empty(chosen, parts, share, round)
        everything = concatenate(alike([part for part in (chosen, *parts) if len(part)]))
        if self.policy == "accumulate_subsample":
            everything = everything.take(self._subsample(everything, len(real), share, key))
        raw = source_factors(everything, self.weights)
        if (raw == 0.0).any():
            everything, raw = everything.take(raw > 0.0), raw[raw > 0.0]
        return Mixture(everything, balanced(raw, everything.origin == SYNTHETIC, share))

    def _real_rows(self, real: Samples, key: int, round: int) -> Samples:
        if self.policy == "fresh":
            return self.fresh_slice(real, round)
        if self.real is None:
            return real
        if self.real > len(real):
            raise UserError(
                f"{self.real:,} real rows are asked for, there are {len(real):,}", where="mix.real", fix="Lower it."
            )
        picked = seeds.generator(seeds.key(key, "real rows")).choice(len(real), self.real, replace=False)
        return real.take(np.sort(picked))

    def _refuse_empty(self, real: Samples, parts: Sequence[Samples], share: float | None, round: int) -> None:
        if not parts and round > 0 and share is not None and share > 0.0:
            raise RunError(
                f"nothing was kept that round {round} could train on, and λ = {share:g} asks for synthetic rows",
                where="mix", fix="Curate less strictly, or set lambda to null so that the numbers of rows decide.",
            )
        if not len(real) and not parts:
            raise RunError(f"round {round} has nothing to train on", where="mix", fix="Give real data, or λ > 0.")

    def _subsample(self, pool: Samples, real_count: int, share: float | None, key: int) -> Array:
        size = min(self.size if self.size is not None else real_count, len(pool))
        rng = seeds.generator(seeds.key(key, "subsample"))
        if share is None:
            return np.sort(rng.choice(len(pool), size, replace=False))
        picked = []
        for origin, wanted in real_and_synthetic(size, share).items():
            rows = np.flatnonzero(pool.origin == origin)
            picked.append(rng.choice(rows, min(wanted, len(rows)), replace=False))
        return np.sort(np.concatenate(picked))


def real_and_synthetic(size: int, share: float) -> dict[str, int]:
    """``size`` rows as real and synthetic ones in the ratio 1 : λ, at least one of each where λ asks for both."""
    real = round(size / (1.0 + share)) if math.isfinite(share) else 0
    if 0.0 < share < math.inf:
        real = min(max(real, 1), max(size - 1, 1))
    return {REAL: real, SYNTHETIC: max(size - real, 1 if share > 0.0 else 0)}


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


def expected_real_fraction(policy: Policy, lambda_: Ratio, round: int, sizes: Sequence[int]) -> float:
    """The expected share of real weight in the mixture of a round, without source weights.

    sizes  rows: real (fresh: of one slice), kept in round 1, kept in round 2, …; the last stands for later rounds

    With λ it is 1 / (1 + λ) whatever the policy; without, the numbers of rows decide. Round 0 is all real.
    """
    if round == 0:
        return 1.0
    share = ratio(lambda_)
    if share is not None:
        return 1.0 / (1.0 + share)
    real, kept = sizes[0], list(sizes[1:]) or [0]
    by_round = kept[:round] + [kept[-1]] * (round - len(kept))
    synthetic = sum(by_round) if policy.startswith("accumulate") else by_round[-1]
    return real / (real + synthetic)
