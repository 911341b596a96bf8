"""Experiment: a diffusion model of digits is retrained on its own samples, selected by a classifier as judge."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from upturn import theory
from upturn.lab.experiment import Cell, Chart, Chunk, Experiment, State, setting
from upturn.lab.experiments import _digit_classifiers as digits
from upturn.lab.experiments._digit_claims import BEYOND, claim_sentences, claims
from upturn.lab.rows import Formula, LabRow, measured
from upturn.types import Array

REWARD, ENTROPY, LARGEST = "reward", "entropy of the classes", "largest share"
PRECISION, RECALL, COVERAGE = "precision", "recall", "coverage"
GAINED, EARLY, LATE = "gained since the first model", "gained in the first half", "gained in the second half"
_ASSUMED = (
    "The advantage of each class over the last half of the rounds is known, and so is the learner's bias: the class "
    "shares of the first model, trained on real digits alone, divided by the real shares."
)


@dataclass
class Digits(Experiment):
    """Unconditional digits: each model trains on those of its own samples that a judge selects, one of every K."""

    lam: list[float] = setting([math.inf, 0.5], "selected : real; inf is selected samples only")
    reward: list[Literal["confidence", "class"]] = setting(
        ["confidence", "class"], "the judge's greatest probability, or that of --favourite"
    )
    favourite: int = setting(0, "the class of the reward 'class'")
    scale: list[float] = setting([15.0, 0.0], "nats of a probability of 1; 0 selects at random")
    temperature: float = setting(4.0, "of the judge, which divides its logits")
    candidates: int = setting(4, "K, of which one is selected")
    n: int = setting(1000, "selected samples in a round")
    rounds: int = setting(12, "retrainings")
    seeds: int = setting(6, "independent repetitions, each with its own weights and draws")
    first_steps: int = setting(5000, "training steps of the first model, on real digits")
    steps: int = setting(900, "training steps of a round, starting from the model before")
    batch: int = setting(128, "images in a step")
    depth: int = setting(3, "residual blocks of the network")
    learning_rate: float = setting(2e-3, "of the first model; rounds use a quarter of it")
    sampling_steps: int = setting(16, "of DPM-Solver++(2M)")
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "Digits selected by a judge"
    question: ClassVar[str] = (
        "A judge selects the best of every few samples, and the next model trains on the selected ones. Does it "
        "improve, does it lose what is never selected, and what does real data in every round change?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = {
        "fixed_point": Formula(
            "p* ∝ B (p_real + λ p* A)/(1+λ), A = share after selection / share before, B = the learner's bias",
            _ASSUMED,
            "Ferbach et al. 2024; theory.fixed_point_from_advantage",
        ),
        "kept_mass": Formula(
            "p ≥ p_real/(1+λ)", "Real data in every round, a perfect learner, any selection.", "theory.mode_loss_bound",
            "at least",
        ),
    }
    parallel: ClassVar[bool] = True
    version: ClassVar[int] = 4

    def __post_init__(self) -> None:
        counts = (self.rounds, self.first_steps, self.steps, self.batch, self.sampling_steps, self.depth)
        if min(counts) < 1 or min(self.seeds, self.candidates) < 2 or self.n < 10:
            raise ValueError("needs seeds and candidates of 2 or more, n of 10 or more, and no count below 1")
        if not 0 <= self.favourite < digits.CLASSES:
            raise ValueError(f"favourite is a digit, not {self.favourite}")
        if min(self.lam) <= 0 or math.isnan(sum(self.lam)):
            raise ValueError("λ must be above 0: without selected samples nothing is retrained")
        if not 0 < self.temperature < math.inf:
            raise ValueError("temperature is above 0 and finite")
        if not all(0 <= scale < math.inf for scale in self.scale):
            raise ValueError("a scale is 0 or above and finite")

    def stacks(self) -> list[list[Cell]]:
        """All λ and scales of a reward are trained together, from the same first models."""
        return [[cell for cell in self.cells() if cell["reward"] == name] for name in dict.fromkeys(self.reward)]

    def chunks(self, cells: Sequence[Cell], after: int, state: State) -> Iterator[Chunk]:
        from upturn.lab.experiments._digit_rounds import Loop

        loop = Loop(self, cells, state)
        for t in range(after, self.rounds + 1):
            loop.turn(t)
            reached = ", ".join(
                f"λ = {cell['lam']:g} × {cell['scale']:g}: {now:.3f}"
                for cell, now in zip(cells, loop.latest, strict=True)
            )
            yield Chunk(list(self._rows(cells, loop.found, t)), (), loop.state(), f"retraining {t}, reward {reached}")

    def _rows(self, cells: Sequence[Cell], found: Mapping[str, Array], t: int) -> Iterator[LabRow]:
        real = digits.gallery(self.seed, self.temperature).shares
        arms = [
            {name: values[:, place * self.seeds : (place + 1) * self.seeds] for name, values in found.items()}
            for place in range(len(cells))
        ]
        chance = {cell["lam"]: arm for arm, cell in zip(arms, cells, strict=True) if not cell["scale"]}
        for place, (cell, mine) in enumerate(zip(cells, arms, strict=True)):
            yield from self._round(place, cell, mine, real, t)
            if t == self.rounds and t > 1:
                yield from self._changes(place, mine, t)
                other = chance.get(cell["lam"]) if cell["scale"] else None
                if other is not None:
                    yield from self._beyond(place, mine, other, t)
                if cell["scale"] and not math.isinf(cell["lam"]):
                    yield from self._settled(place, cell, mine, real, t)

    def _round(self, place: int, cell: Cell, mine: Mapping[str, Array], real: Array, t: int) -> Iterator[LabRow]:
        for name in (REWARD, PRECISION, RECALL, COVERAGE):
            yield measured(place, name, t, mine[name][t])
        shares = mine["before"][t]
        yield measured(place, ENTROPY, t, digits.entropy(shares))
        yield measured(place, LARGEST, t, shares.max(axis=1))
        if t and not math.isinf(cell["lam"]):
            least = 1 / theory.mode_loss_bound(cell["lam"])
            for c in range(digits.CLASSES):
                due = float(real[c])
                # a share of n pictures has at least this variance, and a real class is what the referee says it is
                yield measured(
                    place, f"share of {c}", t, shares[:, c], least * due, "kept_mass", variance=due * (1 - due) / self.n
                )
        else:
            for c in range(digits.CLASSES):
                yield measured(place, f"share of {c}", t, shares[:, c])

    def _changes(self, place: int, mine: Mapping[str, Array], t: int) -> Iterator[LabRow]:
        """Changes over the rounds, paired by repetition."""
        paths = {name: mine[name] for name in (REWARD, PRECISION, RECALL, COVERAGE)}
        paths[ENTROPY], paths[LARGEST] = digits.entropy(mine["before"]), mine["before"].max(axis=2)
        for name, path in paths.items():
            yield measured(place, f"{name}, {GAINED}", t, path[t] - path[0])
        yield measured(place, f"{REWARD}, {EARLY}", t, paths[REWARD][t // 2] - paths[REWARD][0])
        yield measured(place, f"{REWARD}, {LATE}", t, paths[REWARD][t] - paths[REWARD][t - t // 2])

    def _beyond(self, place: int, mine: Mapping[str, Array], other: Mapping[str, Array], t: int) -> Iterator[LabRow]:
        """Gain over the same rounds with random selection, over the last half of the rounds."""
        last = _later(t)
        for name in (REWARD, PRECISION):
            yield measured(place, f"{name}, {BEYOND}", t, (mine[name][last] - other[name][last]).mean(axis=0))

    def _settled(self, place: int, cell: Cell, mine: Mapping[str, Array], real: Array, t: int) -> Iterator[LabRow]:
        """The mean shares of the last half of the rounds, and the fixed point that their own advantage predicts.

        Each repetition has its own learner bias, so that its noise enters the standard error.
        """
        last = _later(t)
        before, after = mine["before"][last].mean(axis=0), mine["after"][last].mean(axis=0)
        gaps, points = [], []
        first = mine["before"][0]
        learner = np.divide(first, real, out=np.ones_like(first), where=real > 0)
        for now, then, bias in zip(before, after, learner, strict=True):
            advantage = np.divide(then, now, out=np.ones_like(now), where=now > 0)
            points.append(theory.fixed_point_from_advantage(real, advantage, float(cell["lam"]), bias))
            gaps.append(now - points[-1])
        gap, point = np.array(gaps), np.array(points)
        # few repetitions estimate one class's spread badly: pool the classes, shaped as a multinomial
        shape = np.maximum(real * (1 - real), 1 / self.n)
        spread = float((gap.var(axis=0, ddof=1) / shape).mean()) * shape
        for c in range(digits.CLASSES):
            error = math.sqrt(max(float(gap[:, c].var(ddof=1)), spread[c]) / len(gap))
            settled = before[:, c]
            yield LabRow(
                place, f"settled share of {c}", t, float(settled.mean()), error, len(gap), float(point[:, c].mean()),
                "fixed_point", low=float(settled.min()), high=float(settled.max()),
            )

    def charts(self) -> Sequence[Chart]:
        about = {
            REWARD: "The judge's probability, before selection; scale 0 selects at random.",
            ENTROPY: "Of the classes by the referee, a second classifier, as a share of its maximum.",
            LARGEST: "Of the ten classes.",
            PRECISION: "Share of samples near a real image, on the referee's features.",
            RECALL: "Share of real images near a sample.",
            COVERAGE: "Share of real images with a sample in their neighbourhood.",
        }
        panels = ("reward", "lam")
        drawn = [Chart(name.capitalize(), text, name, series="scale", panels=panels) for name, text in about.items()]
        return drawn + [
            Chart(
                f"Share of {c}", "The line is the lower bound with real data in every round.", f"share of {c}",
                series="scale", panels=panels,
            )
            for c in dict.fromkeys((self.favourite, (self.favourite + 1) % digits.CLASSES))
        ]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        return claim_sentences(claims(table, self.rounds))


def _later(t: int) -> slice:
    """The last half of ``t`` rounds."""
    return slice(t - t // 2 + 1, t + 1)
