"""Experiment: imperfect scorers: how good a judge must be for curation to help, where it stalls and reverses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from upturn import theory
from upturn.lab.experiment import AtOnce, Cell, Chart, Chunk, setting, source
from upturn.lab.experiments._policies import real_weight
from upturn.lab.rows import Formula, LabRow, measured
from upturn.types import Array

GOOD, SETTLED = "share of good samples", "settled share of good samples"
QUALITY, SPREAD, GOLD, SEEN = "mean quality", "variance of quality", "what is wanted", "what the judge sees"
_SETTLING = 400  # rounds after which a share is taken as settled
_REFIT = 3.0  # a refit of n samples moves the mean of a nonlinear map by terms of the order of rounds/n
_NEUTRAL = dict.fromkeys(("false_positive", "false_negative", "noise", "bias", "candidates"))


@dataclass
class Verifier(AtOnce):
    """Imperfect judges: a verifier with false positives, a noisy score, a biased judge."""

    false_positive: list[float] = setting([0.1, 0.3, 0.5, 0.7, 0.9], "probability that the verifier keeps a bad sample")
    false_negative: float = setting(0.2, "probability that it drops a good one")
    share: float = setting(0.3, "good samples among the data")
    slip: float = setting(0.1, "share of the good samples that training turns bad in each round")
    lam: list[float] = setting([0.5, 2.0, math.inf], "synthetic : real; inf is no real data")
    noise: list[float] = setting([0.0, 1.0, 3.0], "of a score, in standard deviations of quality")
    fraction: float = setting(0.25, "share of samples that is kept, the best by the noisy score")
    bias: list[float] = setting([0.3, 0.6], "weight of an irrelevant feature in the judge's reward")
    cost: float = setting(1.0, "c: the true quality is x_1 - (c/2) x_2²")
    candidates: list[float] = setting([2.0, 4.0, 16.0, math.inf], "K, of which a biased judge chooses one by softmax")
    n: int = setting(20_000, "samples a round")
    rounds: int = setting(12, "rounds")
    replicas: int = setting(20, "independent repetitions of each cell")
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "Curation by an imperfect judge"
    question: ClassVar[str] = (
        "When does curation by a judge with errors still help, where does it stall, and when does the true quality "
        "fall?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = {
        "verified_rounds": Formula(
            "s' = (s_0 + λ(1-δ)V(s))/(1+λ), V(s) = s(1-b)/(s(1-b)+(1-s)a)",
            "Good or bad; a verifier of rates a and b; the learner spoils δ of the good.", "theory.verified_rounds",
        ),
        "verified_limit": Formula(
            "the root of a quadratic; nothing real: ((1-δ)L-1)/(L-1), L = (1-b)/a", "The same, after many rounds.",
            "theory.verified_limit",
        ),
        "selected_rounds": Formula(
            "μ' = μ + Σc i/√V, Σ' = Σ - Σccᵀ Σ k/V, V = cᵀΣc + ν²",
            "Gaussian quality, the best fraction by a noisy score, refitted, real data weighed 1 : λ.",
            "the breeder's equation; theory.selected_rounds",
        ),
        "tilted_gold": Formula(
            "t - (c/2)(b²t² + 1): turns at 1/(cb²)", "Gaussian samples, a judge that likes x_1 + b x_2, K → ∞.",
            "theory.tilted_normal, theory.turning_round",
        ),
        "tilted_seen": Formula("(1 + b²) t", "The same: what the judge sees.", "theory.tilted_normal"),
    }

    def __post_init__(self) -> None:
        rates = (*self.false_positive, self.false_negative, self.share, self.fraction)
        if not all(0 < rate < 1 for rate in rates) or not 0 <= self.slip < 1:
            raise ValueError("rates, the share and the fraction must lie between 0 and 1, slip in [0, 1)")
        if min(self.lam) < 0 or min(self.noise) < 0 or min(self.candidates) < 2 or self.n < 100 or self.replicas < 2:
            raise ValueError("needs λ and noise of 0 or more, K of 2 or more, n of 100 and replicas of 2 or more")

    def cells(self) -> list[Cell]:
        """Settings that a kind of judge does not use are None in its cells."""
        found: list[Cell] = [
            {**_NEUTRAL, "judge": "rates", "lam": lam, "false_positive": a, "false_negative": self.false_negative}
            for a in self.false_positive for lam in self.lam
        ]
        found += [{**_NEUTRAL, "judge": "noisy", "lam": lam, "noise": v} for v in self.noise for lam in self.lam]
        return found + [
            {**_NEUTRAL, "judge": "biased", "lam": math.inf, "bias": b, "candidates": k}
            for b in self.bias for k in self.candidates
        ]

    def run(self, cells: Sequence[Cell]) -> Chunk:
        ways = {"rates": self._rates, "noisy": self._noisy, "biased": self._biased}
        return Chunk([row for place, cell in enumerate(cells) for row in ways[cell["judge"]](place, cell)])

    def _rates(self, place: int, cell: Cell) -> Iterator[LabRow]:
        rng, lam, n = source("verifier", cell, self.seed), float(cell["lam"]), self.n
        a, b, w = float(cell["false_positive"]), self.false_negative, real_weight(lam)
        share = np.full(self.replicas, self.share)
        for t in range(1, _SETTLING + 1):
            good = rng.binomial(n, share)
            kept, passed = rng.binomial(good, 1 - b), rng.binomial(n - good, a)
            chosen = kept / np.maximum(kept + passed, 1)
            share = w * self.share + (1 - w) * (1 - self.slip) * chosen
            if t <= self.rounds:
                predicted = theory.verified_rounds(self.share, a, b, t, lam=lam, slip=self.slip)
                yield measured(place, GOOD, t, share, predicted, "verified_rounds", tolerance=_REFIT * t / n)
        predicted = theory.verified_limit(self.share, a, b, lam, self.slip)
        yield measured(place, SETTLED, t, share, predicted, "verified_limit", tolerance=_REFIT * self.rounds / n)

    def _noisy(self, place: int, cell: Cell) -> Iterator[LabRow]:
        rng, noise, w = source("verifier", cell, self.seed), float(cell["noise"]), real_weight(float(cell["lam"]))
        kept = round(self.fraction * self.n)
        mean, variance = np.zeros(self.replicas), np.ones(self.replicas)
        path = theory.selected_rounds(1, np.ones(1), noise, self.fraction, self.rounds, float(cell["lam"]))
        for t, predicted in enumerate(path, start=1):
            drawn = rng.standard_normal((self.replicas, self.n))
            x = mean[:, None] + np.sqrt(variance)[:, None] * drawn
            score = x + noise * rng.standard_normal(x.shape)
            best = np.take_along_axis(x, np.argpartition(-score, kept - 1, axis=1)[:, :kept], axis=1)
            mean = (1 - w) * best.mean(axis=1)
            variance = w + (1 - w) * np.square(best).mean(axis=1) - mean**2
            allowed = _REFIT * t / kept
            yield measured(place, QUALITY, t, mean, float(predicted.mean[0]), "selected_rounds", tolerance=allowed)
            yield measured(
                place, SPREAD, t, variance, float(predicted.covariance[0, 0]), "selected_rounds", tolerance=allowed
            )

    def _biased(self, place: int, cell: Cell) -> Iterator[LabRow]:
        rng, k = source("verifier", cell, self.seed), float(cell["candidates"])
        likes = np.array([1.0, float(cell["bias"])])
        count = self.n if math.isinf(k) else max(self.n // int(k), 200)
        mean, root = np.zeros((self.replicas, 2)), np.tile(np.eye(2), (self.replicas, 1, 1))
        for t in range(1, self.rounds + 1):
            x = chosen(rng, mean, root, likes, count, k)
            mean = x.mean(axis=1)
            centred = (x - mean[:, None]).swapaxes(1, 2)
            root = np.linalg.cholesky(centred @ centred.swapaxes(1, 2) / (count - 1))
            wanted = mean[:, 0] - self.cost / 2 * np.square(x[:, :, 1]).mean(axis=1)
            predicted, exact = theory.tilted_normal(t, likes), math.isinf(k)  # no formula is exact for K candidates
            yield measured(
                place, GOLD, t, wanted, theory.gold(predicted, self.cost) if exact else math.nan,
                "tilted_gold" if exact else "", tolerance=_REFIT * t / count,
            )
            yield measured(
                place, SEEN, t, mean @ likes, float(predicted.mean @ likes) if exact else math.nan,
                "tilted_seen" if exact else "",
            )

    def charts(self) -> Sequence[Chart]:
        rates, noisy, biased = {"judge": "rates"}, {"judge": "noisy"}, {"judge": "biased"}
        return [
            Chart(
                "A verifier with errors", f"Share of good samples, {self.share:g} in the data; training "
                f"turns {self.slip:g} of the good ones bad in each round.", GOOD, series="false_positive",
                panels=("lam",), where=rates,
            ),
            Chart(
                "Settled share", "After many rounds, by the rate of bad samples that are kept. No real data: below "
                f"odds of {1 / (1 - self.slip):.3g} the share goes to 0.", SETTLED, x="false_positive", series="lam",
                where=rates, joined=False,
            ),
            Chart(
                "A score with noise", "Mean quality, in standard deviations of the data.", QUALITY, series="noise",
                panels=("lam",), where=noisy,
            ),
            Chart(
                "Remaining variance", "Variance of quality.", SPREAD, series="noise", panels=("lam",),
                where=noisy,
            ),
            Chart(
                "A biased judge: true quality",
                "x_1 - (c/2) x_2² while the judge rewards x_1 + b x_2: it rises, then falls.", GOLD,
                series="candidates", panels=("bias",), where=biased,
            ),
            Chart(
                "A biased judge: its reward", "The judge's own reward rises in every round.", SEEN, series="candidates",
                panels=("bias",), where=biased,
            ),
        ]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        need = theory.judge_needed(self.share, self.slip)
        out = [
            f"With {self.share:.0%} good samples, of which a round turns {self.slip:.0%} bad, a judge must keep a good "
            f"sample {need:.2f} times as often as a bad one, or the rounds end below the real data at any λ; without "
            f"real data {1 / (1 - self.slip):.2f} times, or no good sample is left."
        ]
        for bias in self.bias:
            path = {
                row["round"]: row["simulation"] for row in table
                if (row["quantity"], row["bias"], row["candidates"]) == (GOLD, bias, max(self.candidates))
            }
            peak = max(path, key=lambda t: path[t])
            out.append(
                f"A bias of {bias:g}: the true quality peaks in round {peak:g} at K = {_count(max(self.candidates))}, "
                f"{theory.turning_round(bias, self.cost):.3g} by the formula, while the judge's reward keeps rising."
            )
        return out


def _count(k: float) -> str:
    return "∞" if math.isinf(k) else f"{k:g}"


def chosen(rng: np.random.Generator, mean: Array, root: Array, likes: Array, count: int, k: float) -> Array:
    """(R, count, 2) of N(μ, Σ), each one of K chosen with probability softmax(c·x); K = ∞ is N(μ + Σc, Σ)."""
    if math.isinf(k):
        shift = (root @ (root.swapaxes(1, 2) @ likes)[:, :, None])[:, :, 0]
        return np.asarray((mean + shift)[:, None] + rng.standard_normal((len(mean), count, 2)) @ root.swapaxes(1, 2))
    noise = rng.standard_normal((len(mean), count * int(k), 2)) @ root.swapaxes(1, 2)
    x = (mean[:, None] + noise).reshape(len(mean), count, int(k), 2)
    best = np.argmax(x @ likes + rng.gumbel(size=x.shape[:3]), axis=2)
    return np.asarray(np.take_along_axis(x, best[:, :, None, None], axis=2)[:, :, 0])
