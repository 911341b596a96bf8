"""Experiment: rounds of curation, each keeping one of K candidates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from upturn.lab.experiment import AtOnce, Cell, Chart, Chunk, Cloud, setting, source
from upturn.lab.experiments import _curated_exact as exact
from upturn.lab.experiments import _curated_samples as samples
from upturn.lab.experiments._curated_samples import ClosenessReward
from upturn.lab.experiments._gaussian_mixtures import Mixtures
from upturn.lab.rows import Formula, LabRow

Part = Literal["bounds", "limit", "classes", "sampled"]

_IDEAL = "A fixed reward r ≤ r*, `choice` of K, unguided sampling, a perfect fit."
_MANY = (2, 4, 16, 64, 256, 1024, 4096)  # candidates on the way to the limit
_DRAWN, _PANELS = 400, (0, 1, 3, 6, 10)  # points of a panel, and the rounds that have one


@dataclass
class Curation(AtOnce):
    """Curated rounds: exact bounds on random cases, the limit of many candidates, two classes, and points."""

    part: list[Part] = setting(["bounds", "limit", "classes", "sampled"], "bounds, limit, classes, sampled")
    cases: int = setting(10_000, "random finite cases in all")
    candidates: list[int] = setting([2, 4, 8, 16, 64], "K, of bounds and classes")
    chosen_of: list[int] = setting([4, 64], "K, of the sampled points")
    lam: list[float] = setting([0.5, 1.0, math.inf], "synthetic : real; inf is curated samples only")
    gap: float = setting(1.0, "difference of the rewards of two classes, nats")
    data: list[Literal["mixture", "moons"]] = setting(["mixture", "moons"], "of the sampled points")
    reward: list[Literal["point", "cluster", "confidence"]] = setting(["point", "cluster"], "of the sampled points")
    n: int = setting(1000, "samples kept in a round of points; the two classes use 20 times as many")
    rounds: int = setting(10, "rounds")
    replicas: int = setting(10, "independent repetitions of each sampled cell; the two classes use 20 times as many")
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "Curation: selected samples take over"
    question: ClassVar[str] = (
        "Of K candidates one is kept with probability softmax(reward), and the model trains on the kept ones. How fast "
        "does the reward grow, what is lost, and what does real data in every round change?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = {
        "growth": Formula(
            "E_{t+1}[e^r] ≥ E_t[e^r] + ((K-1)/K) Var_t[e^r]/e^{r*}", f"{_IDEAL} Curated only.",
            "Ferbach et al. 2024; theory.growth_bound", "at most",
        ),
        "growth_real": Formula(
            "E_t[e^r] ≥ E_ref[e^r] + λ/(1+λ)³ (K-1)Var_ref[e^r]/(K e^{r*})", f"{_IDEAL} Real data in every round.",
            "Ferbach et al. 2024; theory.growth_bound_real", "at most",
        ),
        "kl": Formula(
            "KL(p_t‖p_ref) ≤ -log(1-λ(K-1)), λ < 1/(K-1)", f"{_IDEAL} Real data in every round.",
            "Ferbach et al. 2024; theory.kl_bound", "at most",
        ),
        "mode_loss": Formula(
            "p_t ≥ p_ref/(1+λ)", "A perfect fit, real data in every round, any curation.", "theory.mode_loss_bound",
            "at most",
        ),
        "enumeration": Formula("H by quadrature = H by all tuples", "Finite supports.", "theory.choice_kernel"),
        "tilt_error": Formula(
            "p·H - p e^r/E[e^r] = (p f/μ)((μ-f)/μ + v/μ²)/K + O(1/K²)", "f = e^r, μ and v its mean and variance.",
            "theory.tilt_error",
        ),
        "rlhf": Formula(
            "p_t = p_0 e^{tr}/Z = argmax E[r] - KL(q‖p_0)/t", f"{_IDEAL} K → ∞.", "theory.tilted, β = 1/t"
        ),
        "mixed_update": Formula(
            "p' = (p_ref + λ p·H)/(1+λ)", "Two classes, n choices a round, learned perfectly.", "theory.mixed_update"
        ),
        "fixed_point": Formula(
            "p* = (p_ref + λ p*·H)/(1+λ)", "The same, after many rounds with real data.", "theory.fixed_point"
        ),
        "ideal_learner": Formula(
            "the same update on 4,000 samples of the data", "A learner without error, as the reference for EM.",
            "theory.mixed_update",
        ),
    }

    def __post_init__(self) -> None:
        if min(*self.candidates, *self.chosen_of) < 2 or min(self.lam) < 0:
            raise ValueError("needs K of 2 or more and λ of 0 or more")
        if self.cases < len(self.candidates) or self.n < 10 or self.rounds < 1 or self.replicas < 2:
            raise ValueError("needs a case for each K, n of 10 or more, 1 round and 2 replicas")

    def cells(self) -> list[Cell]:
        """Settings that a part does not use are None in its cells."""
        nothing = dict.fromkeys(("candidates", "lam", "data", "reward"))
        found: dict[str, list[Cell]] = {
            "bounds": [{"candidates": k} for k in self.candidates],
            "limit": [*({"candidates": k} for k in _MANY), {"candidates": 0}],
            "classes": [{"candidates": k, "lam": lam} for k in self.candidates for lam in self.lam],
            "sampled": [
                {"candidates": k, "lam": lam, "data": data, "reward": reward}
                for data in self.data for reward in self.reward for k in self.chosen_of for lam in self.lam
            ],
        }
        return [{"part": part, **nothing, **cell} for part in self.part for cell in found[part]]

    def run(self, cells: Sequence[Cell]) -> Chunk:
        rows: list[LabRow] = []
        clouds: list[Cloud] = []
        for place, cell in enumerate(cells):
            if cell["part"] == "sampled":
                for t, model, found in self._sampled(place, cell):
                    rows += found
                    clouds += self._clouds(place, cell, t, model)
            else:
                rows += self._rows(place, cell)
        return Chunk(rows, clouds)

    def _rows(self, place: int, cell: Cell) -> Iterator[LabRow]:
        rng, k = source("curation", cell, self.seed), int(cell["candidates"])
        if cell["part"] == "bounds":
            each = -(-self.cases // len(self.candidates))
            return exact.bounds(rng, place, k, each, self.rounds)
        if cell["part"] == "limit":
            return exact.limit(rng, place, k, self.rounds) if k else exact.rlhf(rng, place, self.rounds)
        return samples.favoured(
            rng, place, k, cell["lam"], self.gap, 20 * self.n, 20 * self.replicas, 2 * self.rounds
        )

    def _sampled(self, place: int, cell: Cell) -> Iterator[tuple[int, Mixtures, list[LabRow]]]:
        rng, reward = source("curation", cell, self.seed), ClosenessReward(cell["reward"], cell["data"])
        k, lam = int(cell["candidates"]), float(cell["lam"])
        ideal = samples.ideal_path(reward, k, lam, self.rounds)
        for t, model in enumerate(samples.rounds_of(rng, reward, k, lam, self.n, self.replicas, self.rounds)):
            yield t, model, list(samples.quantities(rng, place, t, model, reward, ideal[t]))

    def _clouds(self, place: int, cell: Cell, t: int, model: Mixtures) -> Iterator[Cloud]:
        """The first replica, under the first reward and K."""
        if (cell["reward"], cell["candidates"]) != (self.reward[0], self.chosen_of[0]) or t not in _PANELS:
            return
        title = f"{cell['data'].capitalize()}: reward is closeness to one {cell['reward']}, K = {cell['candidates']}"
        lam = float(cell["lam"])
        row = lambda_title(lam)
        if t == 0:
            real = samples.truth(cell["data"]).sample(source("real", cell), _DRAWN)[0][0]
            yield Cloud(place, title, "", row, real)
        first = Mixtures(*(part[:1] for part in model))
        yield Cloud(place, title, row, f"round {t}", first.sample(source("picture", cell, t), _DRAWN)[0][0])

    def charts(self) -> Sequence[Chart]:
        where: dict[str, dict[str, Any]] = {part: {"part": part} for part in self.part}
        found = []
        if "limit" in where:
            found += [
                Chart(
                    "K → ∞", "Total variation between one round of K candidates and the exponential tilt: it falls as "
                    "1/K.", exact.TILT, x="candidates", where=where["limit"], log="xy", at=1,
                ),
                Chart(
                    "RLHF with β = 1/t", "The slope of log p_t/p_0 in the reward is 1/β: with many candidates, t.",
                    exact.SLOPE, series="candidates", where=where["limit"],
                ),
            ]
        if "classes" in where:
            found.append(Chart(
                "Two classes with a small difference in reward", "Share of the favoured class. Curated only, it goes "
                "to 1; with real data it settles.", samples.FAVOURED, series="lam", panels=("candidates",),
                where=where["classes"],
            ))
        if "sampled" in where:
            about = {
                samples.REWARD: "Lines: a learner without error.", samples.GROWTH: "The quantity of the theorems.",
                samples.VARIANCE: "Curated only, it goes to 0: the model collapses onto the highest reward.",
                samples.KEPT: "Of eight; a mode counts with at least a tenth of its real share.",
            }
            found += [
                Chart(
                    name[0].upper() + name[1:], text, name, series="lam", panels=("data", "reward", "candidates"),
                    where=where["sampled"],
                )
                for name, text in about.items()
            ]
        return found

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        out = []
        broken = [row for row in table if row["quantity"].startswith(exact.BROKEN)]
        if broken:
            tested, wrong = sum(row["count"] for row in broken), sum(row["simulation"] for row in broken)
            out.append(
                f"{self.cases:,} random cases of {self.rounds} rounds, {tested:,} bounds checked: {wrong:.0f} violated."
            )
        kept = [
            row for row in table
            if (row["quantity"], row["round"], row["reward"]) == (samples.KEPT, self.rounds, self.reward[0])
        ]
        if kept:
            listed = ", ".join(
                f"{row['simulation']:.1f} {lambda_title(row['lam'])} (K = {row['candidates']})" for row in kept
            )
            out.append(f"Of eight modes, {self.rounds} rounds leave: {listed}.")
        return out


def lambda_title(lam: float) -> str:
    return "curated only" if math.isinf(lam) else f"λ = {lam:g}"
