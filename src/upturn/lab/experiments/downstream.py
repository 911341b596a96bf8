"""Experiment: synthetic training data for a classifier: more data, a rare class, adversarial robustness."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.special import ndtr

from upturn import theory
from upturn.lab.experiment import AtOnce, Cell, Chart, Chunk, setting, source
from upturn.lab.rows import Formula, LabRow, measured
from upturn.types import Array

MEAN, ACCURACY, WON = "squared error of a class's mean", "accuracy", "accuracy won by made data"
BALANCED, FOUND, FILLED = "balanced accuracy", "share of the rare class that is found", "balanced accuracy won"
ROBUST, CALM, CHECK = "robust accuracy", "accuracy without an attack", "robust accuracy, attacked less formula"
_KINDS = ("made", "generator", "share", "filled", "unlabelled")
_NEUTRAL = dict.fromkeys(_KINDS)
_ATTACKED = 500  # samples of each replica that are attacked, to check the formula


@dataclass
class Downstream(AtOnce):
    """Two Gaussian classes N(±θ, I); the classifier uses the means and the shares of the classes."""

    dim: int = setting(20, "dimensions")
    distance: float = setting(1.5, "|θ|, half the distance between the classes")
    n: int = setting(20, "real samples of each class")
    made: list[float] = setting([0.0, 0.5, 1.0, 2.0, 5.0, 20.0], "synthetic samples for each real one")
    generator: list[Literal["own", "wide", "shifted"]] = setting(
        ["own", "wide", "shifted"], "fitted on the same samples; on --fitted others; on others that lie --shift beside"
    )
    fitted: int = setting(200, "samples of a class that a generator of more than the own data was fitted on")
    shift: float = setting(1.0, "by how much a shifted generator's classes lie beside the real ones")
    share: list[float] = setting([0.2, 0.1, 0.05, 0.02], "of the rare class among --all samples")
    all: int = setting(400, "samples of both classes where one is rare")
    filled: list[Literal["nothing", "copies", "own", "wide"]] = setting(
        ["nothing", "copies", "own", "wide"], "with what the rare class is filled up to the size of the other"
    )
    unlabelled: list[float] = setting([0.0, 1.0, 5.0, 20.0, 100.0], "samples without a label for each labelled one")
    epsilon: float = setting(0.2, "by how much an attacker moves each coordinate")
    replicas: int = setting(2000, "independent repetitions of each cell")
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "Synthetic training data for a classifier"
    question: ClassVar[str] = (
        "Samples of a model are added to a classifier's training data. When does it classify better: with little data, "
        "with a rare class, under an attack?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = {
        "added_mean_error": Formula(
            "own: d/n + s² d/m; other data: (1-s)² d/n + s²(|shift|² + d/N + d/m), s = m/(n+m)",
            "Normal classes of known covariance, a generator that learned their means.", "theory.added_mean_error",
        ),
        "no_better_than_bayes": Formula(
            "balanced accuracy ≤ Φ(|θ|)", "Any classifier of the two classes.", "Neyman and Pearson 1933", "at most",
        ),
        "attacked_error": Formula(
            "Φ((ε|w|₁ - w·θ)/|w|₂)", "A linear classifier; each coordinate is moved by up to ε against it.",
            "Schmidt et al. 2018; theory.attacked_error",
        ),
    }

    def __post_init__(self) -> None:
        counts = (self.dim, self.n, self.fitted, self.all)
        if min(counts) < 1 or self.replicas < 2 or min(self.distance, self.epsilon, self.shift) < 0:
            raise ValueError("needs counts of 1 or more, replicas of 2 or more, and no length below 0")
        if min((*self.made, *self.unlabelled, 0.0)) < 0 or not all(0 < share < 1 for share in self.share):
            raise ValueError("made and unlabelled must not be below 0, shares lie between 0 and 1")
        if any(round(share * self.all) < 1 for share in self.share):
            raise ValueError(f"of {self.all} samples a share of {min(self.share):g} is none: raise 'all'")

    @property
    def theta(self) -> Array:
        """(d,) every coordinate alike: an attacker may move each of them."""
        return np.full(self.dim, self.distance / math.sqrt(self.dim))

    def cells(self) -> list[Cell]:
        """What one use of made data does not know of is None in its cells."""
        found: list[Cell] = [
            {**_NEUTRAL, "use": "more", "made": made, "generator": kind}
            for kind in self.generator for made in self.made
        ]
        found += [
            {**_NEUTRAL, "use": "rare", "share": share, "filled": how} for how in self.filled for share in self.share
        ]
        return found + [{**_NEUTRAL, "use": "attacked", "unlabelled": ratio} for ratio in self.unlabelled]

    def run(self, cells: Sequence[Cell]) -> Chunk:
        ways = {"more": self._more, "rare": self._rare, "attacked": self._attacked}
        return Chunk([row for place, cell in enumerate(cells) for row in ways[cell["use"]](place, cell)])

    def _drawn_mean(self, rng: np.random.Generator, at: Array, count: int) -> Array:
        """(R, d) means of ``count`` samples around ``at`` (d,) or (R, d): that is all this classifier asks of them."""
        return np.asarray(at + rng.standard_normal((self.replicas, self.dim)) / math.sqrt(count))

    def _more(self, place: int, cell: Cell) -> Iterator[LabRow]:
        rng, n, made = source("downstream", cell, self.seed), self.n, round(float(cell["made"]) * self.n)
        other, shift = cell["generator"] != "own", self.shift if cell["generator"] == "shifted" else 0.0
        alone, means = [], []
        for side in (1.0, -1.0):
            real = self._drawn_mean(rng, side * self.theta, n)
            alone.append(real)
            fitted = real
            if other:
                beside = shift * _direction(rng, self.replicas, self.dim)
                fitted = self._drawn_mean(rng, side * self.theta, self.fitted) + beside
            drawn = self._drawn_mean(rng, fitted, made) if made else real
            means.append((n * real + made * drawn) / (n + made))
        error = np.square(means[0] - self.theta).sum(axis=1)
        predicted = theory.added_mean_error(n, made, self.dim, self.fitted if other else None, shift)
        yield measured(place, MEAN, 0, error, predicted, "added_mean_error")
        now, before = (1 - _nearest(pair, self.theta) for pair in (means, alone))
        yield measured(place, ACCURACY, 0, now, float(ndtr(self.distance)), "no_better_than_bayes")
        yield measured(place, WON, 0, now - before)

    def _rare(self, place: int, cell: Cell) -> Iterator[LabRow]:
        rng, how = source("downstream", cell, self.seed), cell["filled"]
        few = round(float(cell["share"]) * self.all)
        many = self.all - few
        common = self._drawn_mean(rng, -self.theta, many)
        rare = self._drawn_mean(rng, self.theta, few)
        odds = math.log(many / few)
        plain = 1 - _nearest((rare, common), self.theta, odds)
        if how != "nothing":
            fitted = self._drawn_mean(rng, self.theta, self.fitted) if how == "wide" else rare
            drawn = fitted if how == "copies" else self._drawn_mean(rng, fitted, max(1, many - few))
            rare, odds = (few * rare + (many - few) * drawn) / many, 0.0
        now = 1 - _nearest((rare, common), self.theta, odds)
        w, threshold = _rule((rare, common), odds)
        found = ndtr((w @ self.theta - threshold) / np.linalg.norm(w, axis=1))
        yield measured(place, BALANCED, 0, now, float(ndtr(self.distance)), "no_better_than_bayes")
        yield measured(place, FOUND, 0, found)
        yield measured(place, FILLED, 0, now - plain)

    def _attacked(self, place: int, cell: Cell) -> Iterator[LabRow]:
        """Samples without a label get that of the first classifier (self-training, as in Carmon et al. 2019)."""
        rng, more = source("downstream", cell, self.seed), round(float(cell["unlabelled"]) * self.n)
        first = self._drawn_mean(rng, self.theta, self.n)  # labels are known, so y x has mean θ in both classes
        w = first
        if more:
            signs = np.where(rng.random((self.replicas, more)) < 0.5, 1.0, -1.0)
            x = signs[..., None] * self.theta + rng.standard_normal((self.replicas, more, self.dim))
            predicted = np.sign(np.einsum("rmd,rd->rm", x, first))
            w = (self.n * first + np.einsum("rm,rmd->rd", predicted, x)) / (self.n + more)
        foreseen = 1 - theory.attacked_error(w, self.theta, self.epsilon)
        yield measured(place, ROBUST, 0, foreseen)
        yield measured(place, CALM, 0, 1 - theory.attacked_error(w, self.theta, 0.0))
        x = self.theta + rng.standard_normal((self.replicas, _ATTACKED, self.dim)) - self.epsilon * np.sign(w)[:, None]
        right = (np.einsum("rmd,rd->rm", x, w) > 0).mean(axis=1)
        yield measured(place, CHECK, 0, right - foreseen, 0.0, "attacked_error")

    def charts(self) -> Sequence[Chart]:
        more, rare, attacked = {"use": "more"}, {"use": "rare"}, {"use": "attacked"}
        return [
            Chart(
                "How well a class is known", "Squared error of its mean; the line is the formula. The own generator "
                "knows nothing that the data does not say.", MEAN, x="made", series="generator", where=more,
            ),
            Chart(
                "What that is worth", "Accuracy won over the real samples alone.", WON, x="made", series="generator",
                where=more, joined=True,
            ),
            Chart(
                "A rare class", "Balanced accuracy over the share of the rare class. To fill it up with anything moves "
                "the threshold; only a generator that knows more finds better directions, too.", BALANCED, x="share",
                series="filled", where=rare, log="x",
            ),
            Chart(
                "How much of the rare class is found", "Its recall.", FOUND, x="share", series="filled", where=rare,
                log="x",
            ),
            Chart(
                "Under attack", f"Accuracy where each coordinate is moved by up to {self.epsilon:g}, over the samples "
                "without a label for each labelled one.", ROBUST, x="unlabelled", where=attacked,
            ),
            Chart("The same without an attack", "The same classifiers.", CALM, x="unlabelled", where=attacked),
        ]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        def of(quantity: str, **cell: Any) -> list[Mapping[str, Any]]:
            return [row for row in table if row["quantity"] == quantity and all(row[k] == v for k, v in cell.items())]

        out = []
        for kind in self.generator:
            best = max(of(WON, generator=kind), key=lambda row: row["simulation"])
            half = 1.96 * best["standard_error"]
            gain, real = best["simulation"], best["simulation"] - half > 0
            out.append(
                f"{_CALLED[kind]}: " + (
                    f"{100 * gain:+.2f} points of accuracy (±{100 * half:.2f}) at {best['made']:g} made for each real "
                    "one, the best of those tried." if real else "no number of made samples helps beyond chance."
                )
            )
        if "shifted" in self.generator:
            best_count = theory.best_synthetic_count(self.n, self.dim, self.fitted, self.shift)
            out.append(
                f"With classes {self.shift:g} beside the real ones a class is known best at {best_count / self.n:.3g} "
                "synthetic samples for each real one, by the formula; with more, the classifier learns the shift."
            )
        for how in self.filled[1:]:
            rows = of(FILLED, filled=how, share=min(self.share))
            out += [
                f"A class of {min(self.share):.0%}, filled with {_FILLED[how]}: balanced accuracy "
                f"{100 * row['simulation']:+.1f} points (±{196 * row['standard_error']:.1f})." for row in rows
            ]
        first, last = (of(ROBUST, unlabelled=ratio)[0]["simulation"] for ratio in (min(self.unlabelled),
                                                                                  max(self.unlabelled)))
        calm = [of(CALM, unlabelled=ratio)[0]["simulation"] for ratio in (min(self.unlabelled), max(self.unlabelled))]
        return [*out, f"Under attack {max(self.unlabelled):g} samples without a label for each labelled one raise "
                f"accuracy from {first:.1%} to {last:.1%}; without an attack from {calm[0]:.1%} to {calm[1]:.1%}."]


_CALLED = {
    "own": "A generator of the same data", "wide": "One that was fitted on more data",
    "shifted": "One whose data lies beside",
}
_FILLED = {"copies": "copies", "own": "samples of its own generator", "wide": "samples of one that knows more"}


def _direction(rng: np.random.Generator, count: int, dim: int) -> Array:
    """(count, dim) of length 1, any way."""
    found = rng.standard_normal((count, dim))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def _rule(means: Sequence[Array], odds: float = 0.0) -> tuple[Array, Array]:
    """w (R, d) and the threshold (R,) of ``w·x > threshold``, for the first class: means of both and log odds of the
    other; variances are known to be 1."""
    w = means[0] - means[1]
    return w, np.asarray(0.5 * (np.square(means[0]).sum(axis=1) - np.square(means[1]).sum(axis=1)) + odds)


def _nearest(means: Sequence[Array], theta: Array, odds: float = 0.0) -> Array:
    """(R,) balanced error of that rule."""
    return theory.plain_error(*_rule(means, odds), theta)
