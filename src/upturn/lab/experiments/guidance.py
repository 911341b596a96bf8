"""Experiment: autoguidance of a diffusion model by a worse one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from upturn.lab.experiment import AtOnce, Cell, Chart, Chunk, Cloud, setting
from upturn.lab.experiments import _point_shapes as shapes
from upturn.lab.rows import Formula, LabRow, measured
from upturn.types import Array

Bad = Literal["spoiled", "early", "twin"]

OFF, SLICED, EVENNESS, BETTER = (
    "samples off the data", "sliced Wasserstein distance", "diversity of the modes' shares", "distance won by leading"
)
_SAMPLING, _STEPS = "dpmpp_2m", 20
_WIDTH, _BATCH, _EMA = 64, 128, 0.995
_DRAWN = 1000  # points in a panel


@dataclass
class Guidance(AtOnce):
    """Autoguidance of a diffusion model of points by a worse model: trained on own samples, or for fewer steps."""

    shape: list[Literal["eight_gaussians", "two_moons", "circles", "swiss_roll"]] = setting(
        ["eight_gaussians"], "of the source `points`"
    )
    bad: list[Bad] = setting(
        ["spoiled", "early", "twin"], "the guide: trained further on own samples; stopped early; an equally good model"
    )
    scale: list[float] = setting([1.0, 1.25, 1.5, 2.0, 3.0], "guidance scale; 1 is none")
    n: int = setting(500, "number of real points, and of samples compared with them")
    seeds: int = setting(6, "independent repetitions with different data, weights and noise")
    steps: int = setting(1500, "training steps of the good model")
    spoiling: int = setting(500, "further steps of the spoiled model, only on samples of the good one")
    early: int = setting(150, "training steps of the early model")
    learning_rate: float = setting(2e-3, "of all models; half-cosine schedule")
    std: float = setting(0.1, "noise of the data")
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "Autoguidance by a worse model"
    question: ClassVar[str] = (
        "A model trained on its own samples becomes worse. Does guidance away from it improve the good model, and by "
        "how much more than guidance away from another model?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = {
        "none": Formula("guidance at scale 1 changes nothing", "The same noise for every scale.", "one line"),
    }
    parallel: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n < 50 or self.seeds < 2 or min(self.steps, self.spoiling, self.early) < 1:
            raise ValueError("needs n of 50 or more, 2 or more seeds, and 1 or more of each kind of steps")
        if min(self.scale) < 0:
            raise ValueError(f"a scale must not be below 0, got {min(self.scale):g}")

    def stacks(self) -> list[list[Cell]]:
        """All cells of a shape share the same good models."""
        return [[cell for cell in self.cells() if cell["shape"] == shape] for shape in self.shape]

    def run(self, cells: Sequence[Cell]) -> Chunk:
        import torch

        torch.set_num_threads(1)  # stacks run in processes that share the cores
        pair = _Models(self, str(cells[0]["shape"]))
        plain = pair.values(pair.samples("twin", 1.0))
        rows: list[LabRow] = []
        clouds: list[Cloud] = []
        for place, cell in enumerate(cells):
            generated = pair.samples(cell["bad"], cell["scale"])
            rows += self._rows(place, cell, pair.values(generated), plain)
            title = f"{cell['shape'].replace('_', ' ')}, n = {self.n:,}"
            if cell["scale"] == self.scale[0]:
                clouds.append(Cloud(place, title, "", cell["bad"], pair.held_out[0, :_DRAWN]))
            clouds.append(Cloud(place, title, cell["bad"], f"scale {cell['scale']:g}", generated[0, :_DRAWN]))
        return Chunk(rows, clouds)

    def _rows(self, place: int, cell: Cell, found: Mapping[str, Array], plain: Mapping[str, Array]) -> Iterator[LabRow]:
        for name, values in found.items():
            yield measured(place, name, 0, values)
        won = plain[SLICED] - found[SLICED]
        if cell["scale"] == 1:
            yield measured(place, BETTER, 0, won, 0.0, "none", tolerance=1e-6)
        else:
            yield measured(place, BETTER, 0, won)

    def charts(self) -> Sequence[Chart]:
        about = {
            BETTER: "Sliced Wasserstein distance to held-out points of the good model alone, minus that of the guided "
            "one, paired by repetition: above zero, guidance helps.",
            SLICED: "Between samples and held-out real points, over 64 directions.",
            OFF: "Share further than three standard deviations from the shape; 1.1% for the data.",
            EVENNESS: "1 - Σp² of the shares near each of eight pieces: how much diversity guidance costs.",
        }
        return [
            Chart(name.capitalize(), text, name, x="scale", series="bad", panels=("shape",))
            for name, text in about.items()
        ]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        out = []
        for shape in self.shape:
            for bad in self.bad:
                own = [row for row in table if (row["shape"], row["bad"]) == (shape, bad)]
                best = max((row for row in own if row["quantity"] == BETTER), key=lambda row: row["simulation"])
                plain = next((r for r in own if r["quantity"] == SLICED and r["scale"] == 1), None)
                start = f" from {plain['simulation']:.4f}" if plain else ""
                out.append(
                    f"{shape.replace('_', ' ').capitalize()}, guided by the {bad} model: at the best scale, "
                    f"{best['scale']:g}, the distance falls by {best['simulation']:.4f} ± "
                    f"{best['standard_error']:.4f}{start}."
                )
        return out


class _Models:
    """The good models of all repetitions, and the worse models by name."""

    def __init__(self, of: Guidance, name: str) -> None:
        import torch

        from upturn.lab.stacked_diffusion import Stack

        self.of, self.shape = of, shapes.shape(name, of.std)
        self.seeds = [of.seed * 1000 + seed for seed in range(of.seeds)]
        pairs = [shapes.data(name, of.std, of.n, seed) for seed in self.seeds]
        self.real, self.held_out = (np.stack(part) for part in zip(*pairs, strict=True))

        def fresh(purpose: str) -> Stack:
            return Stack(shapes.keys(purpose, self.seeds, 0), 2, network={"name": "mlp", "width": _WIDTH})

        self.good = fresh("guided weights")
        self._train(self.good, self.real, of.steps, "good")
        self.bad: dict[str, Stack] = {}
        if "spoiled" in of.bad:
            self.bad["spoiled"] = fresh("guided weights")
            self.bad["spoiled"].parameters = {
                key: torch.nn.Parameter(value.detach().clone()) for key, value in self.good.parameters.items()
            }
            own = self.good.sample(of.n, shapes.keys("guided own", self.seeds, 0), _STEPS, _SAMPLING).numpy()
            self._train(self.bad["spoiled"], own, of.spoiling, "spoiled")
        if "early" in of.bad:
            self.bad["early"] = fresh("guided weights")
            self._train(self.bad["early"], self.real, of.early, "good")
        if "twin" in of.bad:
            self.bad["twin"] = fresh("twin weights")
            self._train(self.bad["twin"], self.real, of.steps, "twin")

    def _train(self, models: Any, points: Array, steps: int, purpose: str) -> None:
        import torch

        from upturn.config.schema import Training
        from upturn.lab.stacked_diffusion import Pool

        spec = Training.model_validate(
            {"steps": steps, "batch_size": _BATCH, "learning_rate": self.of.learning_rate, "ema": _EMA}
        )
        pool = Pool(torch.from_numpy(points), points.shape[1], np.ones(len(points)))
        models.train(pool, shapes.keys(f"guided {purpose}", self.seeds, 0), spec)

    def samples(self, bad: str, scale: float) -> Array:
        """(M, n, 2) samples; the noise is the same for every guide and scale."""
        from upturn.lab.stacked_guidance import GuidedStack

        models = self.good if scale == 1 else GuidedStack(self.good, self.bad[bad], scale)
        keys = shapes.keys("guided sampling", self.seeds, 0)
        generated: Array = models.sample(self.of.n, keys, _STEPS, _SAMPLING).numpy()
        return generated

    def values(self, generated: Array) -> dict[str, Array]:
        """(M,) values of each quantity."""
        each, near = shapes.shares(self.shape, generated)
        total = np.maximum(each.sum(axis=1, keepdims=True), 1e-12)
        return {
            OFF: 1 - near, SLICED: shapes.sliced(generated, self.held_out),
            EVENNESS: 1 - np.square(each / total).sum(axis=1),
        }
