"""Experiment: temperature, top-p and guidance as biases in the loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from upturn import theory
from upturn.lab.experiment import AtOnce, Cell, Chart, Chunk, setting, source
from upturn.lab.experiments import _gaussian_rounds as gaussians
from upturn.lab.experiments import _guided_gaussians as guided
from upturn.lab.rows import Formula, LabRow, exact, measured
from upturn.types import Array

VARIANCE, DIVERSITY, WITHIN, APART = "variance", "diversity", "variance within classes", "distance of the classes"
HALF = "rounds to half"
_EDGE = 6.0  # standard errors between top_p and each cumulative share, so that all replicas have the same nucleus
_MODES = 64
_MEAN, _SPREAD = 1.0, 0.7  # of the two classes, which overlap: guidance has an effect only where they do
_DUST = 1e-5  # share of the data's variance below which a class counts as a point
_NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "guidance": 1.0}


@dataclass
class Sampling(AtOnce):
    """Sharpened sampling (temperature, top-p, guidance): how much faster a loop collapses."""

    temperature: list[float] = setting([0.8, 0.9, 1.0], "for a Gaussian and a vocabulary; 1 is unbiased")
    top_p: list[float] = setting([0.9, 0.95, 1.0], "for a vocabulary; 1 keeps all")
    guidance: list[float] = setting([1.0, 1.5, 2.0, 3.0], "scale, for two overlapping classes; 1 is none")
    lam: list[float] = setting([0.5, 1.0, math.inf], "synthetic : real, for the Gaussian; inf is no real data")
    n: int = setting(100, "samples a round where sampling noise matters")
    large: int = setting(1_000_000_000, "draws a round from a vocabulary, close to infinitely many")
    each: int = setting(3000, "samples a round from each of the two classes")
    rounds: int = setting(20, "rounds")
    replicas: int = setting(1000, "independent repetitions of each cell; large cells: 1% of it, at least 8")
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "Sharpened sampling and collapse"
    question: ClassVar[str] = (
        "Temperature below 1, top-p and guidance above 1 make single samples look better. In a loop this bias "
        "compounds: how fast, and does real data bound it?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = {
        "mixed_moments": Formula(
            "s' = w + (1-w)(τ²s + V) - V'", "A Gaussian at temperature τ, real and synthetic data 1 : λ.",
            "theory.mixed_moments",
        ),
        "gaussian_half_life": Formula(
            "log 2 / -log(τ²(1-1/n))", "A Gaussian, no real data.", "theory.gaussian_half_life"
        ),
        "tempered_shares": Formula(
            "p_t ∝ p_0^{1/τ^t}", "A vocabulary at temperature τ, learned exactly from many draws.",
            "theory.tempered_shares",
        ),
        "nucleus_rounds": Formula(
            "the nucleus of the nucleus of …", "Top-p with many draws: the same nucleus in every replica.",
            "Holtzman et al. 2020; theory.nucleus_rounds",
        ),
        "guided_limit": Formula(
            "m', v' of the guided ODE's image of N(0, 1)", "Two Gaussian classes, exact denoisers, refitted.",
            "quadrature over the start of the ODE",
        ),
    }

    def __post_init__(self) -> None:
        if min(self.n, self.each, self.rounds, self.replicas) < 2 or self.large < 1000:
            raise ValueError("needs n, each, rounds and replicas of 2 or more, large of 1,000 or more")
        if min(self.temperature) <= 0 or not all(0 < p <= 1 for p in self.top_p) or min(self.lam) < 0:
            raise ValueError("needs temperatures above 0, top_p in (0, 1] and λ of 0 or more")

    def cells(self) -> list[Cell]:
        """Settings that a family does not use have their neutral value in its cells."""
        def cell(family: str, n: int, lam: float, **knob: float) -> Cell:
            return {"family": family, "n": n, "lam": lam, **_NEUTRAL, **knob}

        sizes = (self.n, self.large)
        found = [cell("gaussian", self.n, lam, temperature=t) for t in self.temperature for lam in self.lam]
        found += [cell("vocabulary", n, math.inf, temperature=t) for t in self.temperature for n in sizes]
        found += [cell("vocabulary", n, math.inf, top_p=p) for p in self.top_p for n in sizes if p < 1]
        return found + [cell("two classes", self.each, math.inf, guidance=g) for g in self.guidance]

    def run(self, cells: Sequence[Cell]) -> Chunk:
        ways = {"gaussian": self._gaussian, "vocabulary": self._vocabulary, "two classes": self._classes}
        return Chunk([row for place, cell in enumerate(cells) for row in ways[cell["family"]](place, cell)])

    def _gaussian(self, place: int, cell: Cell) -> Iterator[LabRow]:
        n, lam, temperature = self.n, float(cell["lam"]), float(cell["temperature"])
        setup = gaussians.Setup(n, self.replicas, 1, "n", lam, temperature)
        states = gaussians.blend(source("sampling", cell, self.seed), setup, False)
        path = []
        for t, state in enumerate(islice(states, self.rounds), start=1):
            predicted = theory.mixed_moments(n, n, lam, t, temperature=temperature).variance
            trusted = not math.isinf(lam) or theory.log_variance_spread(n, t) <= 1
            path.append(measured(
                place, VARIANCE, t, np.exp(2 * state.log_sigma[:, 0]), predicted, "mixed_moments", meaningful=trusted
            ))
        yield from path
        if math.isinf(lam):
            yield self._half_of(place, path[0], [row for row in path if row.meaningful][-1], temperature)

    def _half_of(self, place: int, first: LabRow, last: LabRow, temperature: float) -> LabRow:
        """The half-life from the decrease between two rounds, with its standard error (delta method)."""
        fall, gap = math.log(first.simulation / last.simulation), last.round - first.round
        half = gap * math.log(2) / fall
        error = half / fall * math.hypot(
            first.standard_error / first.simulation, last.standard_error / last.simulation
        )
        predicted = theory.gaussian_half_life(self.n, temperature)
        sure = error < half / 4  # otherwise the decrease is within its error
        return LabRow(
            place, HALF, self.rounds, half, error, first.count, predicted, "gaussian_half_life", meaningful=sure
        )

    def _vocabulary(self, place: int, cell: Cell) -> Iterator[LabRow]:
        n, temperature, top_p = int(cell["n"]), float(cell["temperature"]), float(cell["top_p"])
        big = n == self.large
        rng = source("sampling", cell, self.seed)
        start = np.asarray(1 / np.arange(1, _MODES + 1))
        start /= start.sum()
        p = np.tile(start, (max(self.replicas // 100, 8) if big else self.replicas, 1))
        ideal, edged = start, True
        for t in range(1, self.rounds + 1):
            sharp = p ** (1 / temperature)
            p = rng.multinomial(n, theory.nucleus(sharp / sharp.sum(axis=1, keepdims=True), top_p)) / n
            edged = edged and (top_p == 1 or _clear(ideal, top_p, n))
            ideal = theory.nucleus(theory.tempered_shares(ideal, temperature), top_p)
            if top_p == 1:
                ideal = theory.tempered_shares(start, temperature, t)
            by = "nucleus_rounds" if top_p < 1 else "tempered_shares"
            predicted = theory.heterozygosity(ideal) if big and edged else math.nan
            # the map is nonlinear, which shifts the mean by O(modes/n)
            yield measured(
                place, DIVERSITY, t, 1 - np.square(p).sum(axis=1), predicted, by if big and edged else "",
                tolerance=10 * _MODES / n,
            )
        if big:
            yield exact(place, HALF, self.rounds, theory.diversity_half_life(start, temperature, top_p))

    def _classes(self, place: int, cell: Cell) -> Iterator[LabRow]:
        n, scale = int(cell["n"]), float(cell["guidance"])
        rng, count = source("sampling", cell, self.seed), max(self.replicas // 100, 8)
        start = guided.Classes(np.array([[-_MEAN, _MEAN]]), np.full((1, 2), _SPREAD**2))
        ideal = guided.limit(scale, start, self.rounds)
        now = guided.Classes(*(np.tile(part, (count, 1)) for part in start))
        for t, predicted in enumerate(ideal, start=1):
            generated = guided.sample(now, rng.standard_normal((count, 2, n)), scale)
            now = guided.Classes(generated.mean(axis=2), generated.var(axis=2, ddof=1))
            within, apart = predicted.variances.mean(), predicted.means[0, 1] - predicted.means[0, 0]
            # refits on n samples add noise and the map is nonlinear, which shifts the mean by O(t/n)
            if within > _DUST * _SPREAD**2:
                yield measured(
                    place, WITHIN, t, now.variances.mean(axis=1) / _SPREAD**2, within / _SPREAD**2, "guided_limit",
                    tolerance=3 * t / n,
                )
            yield measured(
                place, APART, t, now.means[:, 1] - now.means[:, 0], apart, "guided_limit", tolerance=3 * t / n
            )
        yield exact(place, HALF, self.rounds, _halving([float(c.variances.mean()) for c in ideal], _SPREAD**2))

    def charts(self) -> Sequence[Chart]:
        large = {"n": self.large}
        return [
            Chart(
                "Temperature, a Gaussian", "Variance by temperature; it converges with real data in every round.",
                VARIANCE, series="temperature", panels=("lam",), where={"family": "gaussian"}, log="y",
            ),
            Chart(
                "Temperature, a vocabulary", "Diversity 1 - Σp² of 64 words, shares ∝ 1/rank; many draws a round.",
                DIVERSITY, series="temperature", where={**large, "top_p": 1.0},
            ),
            Chart(
                "Temperature and sampling noise", f"The same with {self.n} draws a round, with sampling noise.",
                DIVERSITY, series="temperature", where={"family": "vocabulary", "n": self.n, "top_p": 1.0},
            ),
            Chart(
                "Top-p, a vocabulary", "Top-p removes words while the rarest hold at most 1 - top_p.", DIVERSITY,
                series="top_p", where={**large, "temperature": 1.0},
            ),
            Chart(
                "Guidance: variance within classes", "Two overlapping classes, relative to the data.", WITHIN,
                series="guidance", log="y",
            ),
            Chart(
                "Guidance: distance of the classes", "The means move apart while the variances shrink.", APART,
                series="guidance",
            ),
        ]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        out = []
        for family, knob in (("gaussian", "temperature"), ("vocabulary", "temperature"), ("two classes", "guidance")):
            rows = [
                row for row in table if (row["quantity"], row["family"], row["top_p"]) == (HALF, family, 1.0)
            ]
            if rows:
                what = DIVERSITY if family == "vocabulary" else VARIANCE
                out.append(f"{family.capitalize()}: {what} {listed(rows, knob)}.")
        return out


def listed(rows: Sequence[Mapping[str, Any]], knob: str) -> str:
    """``halves in 1.5 rounds at a temperature of 0.8, in 3.1 rounds at 0.9, never at 1``."""
    parts: list[str] = []
    for row in rows:
        value = row["simulation"] if row["theory"] is None else row["theory"]
        when = "never" if value is None or math.isinf(value) else f"in {value:.1f} rounds"
        parts.append(f"{when} at {f'a {knob} of ' * (not parts)}{row[knob]:g}")
    return f"halves {', '.join(parts)}"


def _clear(p: Array, top_p: float, n: int) -> bool:
    """Whether samples of n draws from about p all have the nucleus of p."""
    ends = np.cumsum(np.sort(p)[::-1])
    return bool(np.min(np.abs(ends - top_p)) > _EDGE * math.sqrt(top_p * (1 - top_p) / n))


def _halving(path: Sequence[float], start: float) -> float:
    """Rounds, with fractions, until a falling path reaches half of its start; NaN where it never does."""
    before = start
    for t, value in enumerate(path):
        if value <= start / 2:
            return t + math.log(before / (start / 2)) / math.log(before / value)
        before = value
    return math.nan
