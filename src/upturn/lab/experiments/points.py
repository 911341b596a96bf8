"""Experiment: diffusion models of points in the plane are retrained on their own samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from upturn import theory
from upturn.lab.experiment import Cell, Chart, Chunk, Cloud, Experiment, State, setting
from upturn.lab.experiments import _point_shapes as shapes
from upturn.lab.rows import Formula, LabRow, exact, measured
from upturn.types import Array

LOST, LOST_AT_ALL, OFF = "modes lost", "modes lost, all seeds together", "samples off the data"
EVENNESS, SLICED, EXACT, LIKELIHOOD = (
    "diversity of the modes' shares", "sliced Wasserstein distance", "Wasserstein distance", "log-likelihood"
)
_LEAST = 0.1  # a mode with less than this part of its real share is lost
# formulation, coupling of noise and data, sampler, its steps
_MODELS: Mapping[str, tuple[str, str, str, int]] = {
    "ddpm": ("epsilon", "independent", "ancestral", 50),  # Ho et al. 2020: their own sampler
    "edm": ("edm", "independent", "dpmpp_2m", 20),  # Karras et al. 2022; the code base's sampler
    "flow": ("flow", "ot", "dpmpp_2m", 20),  # Tong et al. 2024: OT-CFM
}
_NAMES = {"ddpm": "DDPM", "edm": "EDM", "flow": "flow matching with OT coupling"}
_PANELS = 5  # of the figure: evenly spaced from the first model to the last
_DRAWN = 1000  # points of a panel


@dataclass
class Points(Experiment):
    """Diffusion models of points, retrained on their own samples, with counts of lost modes.

    λ is synthetic : real in every retraining: 0 is real data only, inf the newest samples only. Real samples are the
    same in every round; both parts have n samples, weighed 1 : λ.
    """

    model: list[Literal["ddpm", "edm", "flow"]] = setting(["edm"], "ddpm, edm, or flow (matching, OT coupling)")
    shape: list[Literal["eight_gaussians", "two_moons", "rings", "swiss_roll"]] = setting(
        ["eight_gaussians"], "eight_gaussians, two_moons, rings, swiss_roll"
    )
    lam: list[float] = setting([0.0, 0.1, 0.25, 0.5, 1.0, math.inf], "synthetic : real; 0 no synthetic, inf no real")
    n: int = setting(2000, "real samples, and synthetic ones a round")
    rounds: int = setting(20, "retrainings after the first model")
    seeds: int = setting(10, "trainings of each cell, each with its own data")
    width: int = setting(64, "of the residual network")
    steps: int = setting(600, "of each training")
    batch: int = setting(256, "samples a step")
    learning_rate: float = setting(1e-2, "peak value; a half cosine follows")
    ema: float = setting(0.99, "decay of the EMA in a step")
    start: Literal["cold", "warm"] = setting("cold", "of a retraining: cold (fresh weights) or warm (the last)")
    std: float = setting(0.1, "of the noise around the shape")
    stack: int = setting(30, "models trained as one; processes share the stacks")
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "Diffusion models on their own samples"
    question: ClassVar[str] = (
        "A diffusion model of points is retrained twenty times on its own samples. Which modes are lost, how much of "
        "that is chance and how much is training error, and how little real data prevents it?"
    )
    parallel: ClassVar[bool] = True
    formulas: ClassVar[Mapping[str, Formula]] = {
        "drift": Formula(
            "Wright–Fisher: modes lost by drift alone", "A learner that is perfect but for its n samples; a trained "
            "one loses at least as many.", "theory.expected_lost_modes", "at least",
        ),
        "none_lost": Formula(
            "p_t ≥ p_ref/(1+λ): no mode is lost", "Real data in every round, a perfect fit.", "theory.mode_loss_bound",
            "at most",
        ),
        "evenness": Formula(
            "E[1-Σp²] of Wright–Fisher, with real data in every round where λ < ∞",
            "Drift alone; training error can only lose more.", "theory.mixed_heterozygosity", "at most",
        ),
    }

    def __post_init__(self) -> None:
        if self.n < 50 or self.rounds < 1 or self.seeds < 2 or self.steps < 1 or self.batch < 1 or self.stack < 1:
            raise ValueError("needs n of 50 or more, 1 round, 2 seeds, and steps, batch and stack of 1 or more")
        if min(self.lam) < 0 or self.std <= 0 or not 0 <= self.ema < 1 or self.learning_rate <= 0:
            raise ValueError("needs λ of 0 or more, std and learning_rate above 0, ema in [0, 1)")

    def stacks(self) -> list[list[Cell]]:
        """Cells of one model and shape, as many as ``stack`` models hold."""
        most = max(self.stack // self.seeds, 1)
        found = []
        for model in self.model:
            for shape in self.shape:
                own = [cell for cell in self.cells() if (cell["model"], cell["shape"]) == (model, shape)]
                found += [own[i : i + most] for i in range(0, len(own), most)]
        return found

    def chunks(self, cells: Sequence[Cell], after: int, state: State) -> Iterator[Chunk]:
        """One chunk for each model: the first, then each retraining; the state is its samples, and warm weights."""
        import torch

        torch.set_num_threads(1)  # stacks share the cores out among processes
        loop = _PointRounds(self, cells)
        if after:
            loop.go_on(state)
        for t in range(after, self.rounds + 1):
            off = loop.retrain(t)
            note = f"{'first model' if t == 0 else f'retraining {t}'}: {off:.1%} of samples off the data"
            yield Chunk(list(loop.rows(t)), list(loop.clouds(t)), loop.state(), note)

    def charts(self) -> Sequence[Chart]:
        about = {
            LOST: f"Of eight; a mode is lost with less than a {1 / _LEAST:g}th of its real share near it. Dashed: the "
            "loss by drift alone, with a perfect learner.",
            EVENNESS: "1 - Σp² of the shares near each mode. Dashed: drift alone; the gap below it is training "
            "error.",
            OFF: "Further than three standard deviations from the shape: training error, not drift; 1.1% of the data.",
            SLICED: "Between the samples and held-out real ones, over 64 directions.",
            EXACT: "Of 400 points of either side, by exact assignment.",
            LIKELIHOOD: "Of held-out real points, nats, under a kernel density (width of the noise) of the samples.",
        }
        panels = ("model", "shape")
        return [
            Chart(name[0].upper() + name[1:], text, name, series="lam", panels=panels) for name, text in about.items()
        ]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        out = []
        for row in table:
            if row["quantity"] == LOST and row["round"] == self.rounds and math.isinf(row["lam"]):
                out.append(
                    f"{_NAMES[row['model']]} on {shape_title(row['shape'])}, fully synthetic: "
                    f"{row['simulation']:.1f} of 8 modes lost after {self.rounds} retrainings with n = {self.n:,}; "
                    f"drift alone would lose {row['theory']:.2g}."
                )
        held = [row for row in table if row["quantity"] == LOST_AT_ALL and row["round"] == self.rounds]
        safe = [row for row in held if row["simulation"] == 0]
        if safe:
            listed = ", ".join(f"{lam:g}" for lam in sorted({row["lam"] for row in safe}))
            out.append(f"No mode was lost in any of {self.seeds} seeds at λ = {listed}.")
        return out


class _PointRounds:
    """All models of a stack through all retrainings."""

    def __init__(self, of: Points, cells: Sequence[Cell]) -> None:
        from upturn.config.schema import Training
        from upturn.lab import stacked_diffusion

        self.of, self.cells = of, cells
        name, kind = cells[0]["shape"], cells[0]["model"]
        self.shape = shapes.shape(name, of.std)
        pairs = [shapes.data(name, of.std, of.n, of.seed * 1000 + seed) for seed in range(of.seeds)]
        self.real, self.held_out = (np.concatenate([np.stack(part)] * len(cells)) for part in zip(*pairs, strict=True))
        self.seeds = [of.seed * 1000 + seed for _ in cells for seed in range(of.seeds)]
        self.real_share = stacked_diffusion.levels([cell["lam"] for cell in cells for _ in range(of.seeds)])
        formulation, coupling, self.sampler, self.sampling_steps = _MODELS[kind]
        self.models = stacked_diffusion.Stack(
            shapes.keys("weights", self.seeds, 0), 2, network={"name": "mlp", "width": of.width},
            formulation=formulation, coupling=coupling,
        )
        self.spec = Training.model_validate({
            "steps": of.steps, "batch_size": of.batch, "learning_rate": of.learning_rate, "ema": of.ema,
        })
        self.generated: Array = np.zeros((0, of.n, 2), dtype=np.float32)
        # the samples of model t are draw t + 2: its data were the first, and with λ = 0 there are no others
        self.drift = [
            theory.lost_modes_path(
                self.shape.due, of.n, of.rounds + 2, lam=cell["lam"], least=_LEAST * float(self.shape.due.min())
            ) for cell in cells
        ]

    def retrain(self, t: int) -> float:
        """Train and sample; returns the mean share of samples off the data."""
        import torch

        from upturn.lab.stacked_diffusion import Pool

        if self.of.start == "cold" and t > 0:
            self.models.fresh(shapes.keys("weights", self.seeds, t))
        points = self.real if t == 0 else np.concatenate([self.real, self.generated], axis=1)
        share = np.ones(len(self.real)) if t == 0 else self.real_share
        pool = Pool(torch.from_numpy(points), self.of.n, share)
        self.models.train(pool, shapes.keys("training", self.seeds, t), self.spec)
        noise = shapes.keys("sampling", self.seeds, t)
        self.generated = self.models.sample(self.of.n, noise, self.sampling_steps, self.sampler).numpy()
        if not np.isfinite(self.generated).all():
            raise FloatingPointError(f"retraining {t}: a sample is not a finite number; lower the learning rate")
        self.each, self.near = shapes.shares(self.shape, self.generated)
        return float(1 - self.near.mean())

    def rows(self, t: int) -> Iterator[LabRow]:
        of, due = self.of, self.shape.due
        lost = (self.each < _LEAST * due).sum(axis=1)
        even = 1 - np.square(self.each / np.maximum(self.each.sum(axis=1, keepdims=True), 1e-12)).sum(axis=1)
        held_out = self.held_out
        found = {
            OFF: 1 - self.near, SLICED: shapes.sliced(self.generated, held_out),
            LIKELIHOOD: shapes.log_likelihood(self.generated, held_out, of.std),
        }
        if t in self.panel_rounds:
            found[EXACT] = shapes.exact_distance(self.generated, held_out)
        for place, cell in enumerate(self.cells):
            own, lam = slice(place * of.seeds, (place + 1) * of.seeds), float(cell["lam"])
            drift = self.drift[place][t + 1 if lam else 1].value
            yield measured(place, LOST, t, lost[own], drift, "drift", variance=drift)
            if not math.isinf(lam):
                yield exact(place, LOST_AT_ALL, t, float(lost[own].sum()), 0.0, "none_lost", count=of.seeds)
            predicted = evenness(due, of.n, t, lam)
            # drift's own spread, about that of a chi-squared variable of as many degrees as shares are free
            spread = 2 * (theory.heterozygosity(due) - predicted) ** 2 / (len(due) - 1)
            yield measured(place, EVENNESS, t, even[own], predicted, "evenness", variance=spread)
            for name, values in found.items():
                yield measured(place, name, t, values[own])

    @property
    def panel_rounds(self) -> list[int]:
        """Retrainings that have a panel in the figure."""
        return [int(t) for t in np.unique(np.linspace(0, self.of.rounds, _PANELS).round())]

    def clouds(self, t: int) -> Iterator[Cloud]:
        """The first seed of each cell."""
        if t not in self.panel_rounds:
            return
        for place, cell in enumerate(self.cells):
            title = f"{_NAMES[cell['model']]}, {shape_title(cell['shape'])}, n = {self.of.n:,}"
            lam = float(cell["lam"])
            row = "fully synthetic" if math.isinf(lam) else f"λ = {lam:g}"
            at = place * self.of.seeds
            if t == 0:
                yield Cloud(place, title, "", row, self.held_out[at, :_DRAWN])
            heading = f"{t} retraining{'' if t == 1 else 's'}"
            yield Cloud(place, title, row, heading, self.generated[at, :_DRAWN])

    def state(self) -> State:
        if self.of.start == "cold":
            return {"made": self.generated}
        return {"made": self.generated, **{name: p.detach().numpy() for name, p in self.models.parameters.items()}}

    def go_on(self, state: State) -> None:
        import torch

        self.generated = np.array(state["made"])
        with torch.no_grad():
            for name, parameter in self.models.parameters.items():
                if name in state:
                    parameter.copy_(torch.from_numpy(np.array(state[name])))


def shape_title(shape: str) -> str:
    return shape.replace("_", " ").replace("gaussians", "Gaussians")


def evenness(due: Array, n: int, t: int, lam: float) -> float:
    """E[1 - Σp²] of n samples of model t of a perfect learner: fitted t + 1 times, and drawn once more."""
    return theory.mixed_heterozygosity(n, n, lam, t + 1, theory.heterozygosity(due)) * (1 - 1 / n)
