"""The rounds of the digits experiment, all repetitions in one set of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from upturn import seeds
from upturn.config.schema import Training
from upturn.lab.experiment import Cell, State
from upturn.lab.experiments import _digit_classifiers as digits
from upturn.lab.stacked_diffusion import Pool, Stack, levels
from upturn.types import Array

_EMA, _LATER_EMA = 0.999, 0.998  # of recipes/digits-curated-only.yaml
_SLOWER = 4.0  # learning rate of the first model divided by that of a round, from the same recipe
_SAMPLER = "dpmpp_2m"


class Settings(Protocol):
    """The settings of the experiment that the loop uses."""

    favourite: int
    temperature: float
    candidates: int
    n: int
    seeds: int
    first_steps: int
    steps: int
    batch: int
    depth: int
    learning_rate: float
    sampling_steps: int
    seed: int


class Loop:
    """Cells of one reward, cell-major; first models and noise depend on the seed only and are equal in every cell.

    found    by name (T, M): reward, precision, recall, coverage; "before" and "after" (T, M, 10) shares of classes
    """

    def __init__(self, of: Settings, cells: Sequence[Cell], state: State) -> None:
        self.of, self.cells = of, cells
        self.gallery = digits.gallery(of.seed, of.temperature)
        self.share = levels([cell["lam"] for cell in cells for _ in range(of.seeds)])
        self.found: dict[str, Array] = {
            name.removeprefix("found."): np.array(value) for name, value in state.items() if name.startswith("found.")
        }
        self.picked: Array = np.array(state.get("picked", np.zeros((0, of.n, digits.PIXELS), np.uint8)))
        self.models = Stack(
            self._keys("weights", 0, 1), digits.PIXELS, network={"name": "mlp", "depth": of.depth}
        )
        if state:
            self._repeat()
            with torch.no_grad():
                for name, parameter in self.models.parameters.items():
                    parameter.copy_(torch.from_numpy(np.array(state[f"weight.{name}"])))

    def _keys(self, purpose: str, t: int, times: int) -> list[int]:
        own = [seeds.key(f"lab digits {purpose}", self.of.seed, seed, t) for seed in range(self.of.seeds)]
        return own * times

    def _repeat(self) -> None:
        """Copies the first models for every cell."""
        models, times = self.models, len(self.cells)

        def repeated(value: Any) -> Any:
            return value.detach().repeat(times, *[1] * (value.ndim - 1))

        models.parameters = {name: torch.nn.Parameter(repeated(value)) for name, value in models.parameters.items()}
        models.buffers = {name: repeated(value) for name, value in models.buffers.items()}

    def turn(self, t: int) -> None:
        """Round ``t`` (0: only real digits): training, K candidates for each of n places, and the selection."""
        of = self.of
        self._train(t)
        keys = self._keys("sampling", t, len(self.models) // of.seeds)
        generated = digits.pictures(self.models.sample(of.n * of.candidates, keys, of.sampling_steps, _SAMPLER).numpy())
        if t == 0:
            self._repeat()
            generated = np.tile(generated, (len(self.cells), 1, 1))
        chance = self._keys("picking", t, len(self.cells))
        seen = [
            self._look(one, key, float(self.cells[place // of.seeds]["scale"]))
            for place, (one, key) in enumerate(zip(generated, chance, strict=True))
        ]
        self.picked = np.stack([one["picked"] for one in seen])
        for name in seen[0]:
            if name != "picked":
                row = np.stack([one[name] for one in seen])[None]
                self.found[name] = np.concatenate([self.found[name], row]) if name in self.found else row

    def _train(self, t: int) -> None:
        of, real = self.of, self.gallery.train
        batch: dict[str, Any] = {"batch_size": of.batch}
        if t == 0:
            spec = Training(steps=of.first_steps, learning_rate=of.learning_rate, ema=_EMA, **batch)
            pool = Pool(torch.from_numpy(np.stack([real] * of.seeds)), len(real), np.ones(of.seeds))
        else:
            spec = Training(steps=of.steps, learning_rate=of.learning_rate / _SLOWER, ema=_LATER_EMA, **batch)
            points = np.stack([np.concatenate([real, digits.vectors(one)]) for one in self.picked])
            pool = Pool(torch.from_numpy(points), len(real), self.share)
        losses = self.models.train(pool, self._keys("training", t, len(self.models) // of.seeds), spec)
        if not bool(torch.isfinite(losses).all()):
            raise FloatingPointError(f"retraining {t}: the loss is not finite; lower the learning rate")

    def _look(self, generated: Array, key: int, scale: float) -> Mapping[str, Array]:
        """Measurements of one model's images (n K, 64), and the selected ones (n, 64)."""
        of = self.of
        judgement = self.gallery.look(generated)
        by_confidence = self.cells[0]["reward"] == "confidence"
        reward = judgement.judged.max(axis=1) if by_confidence else judgement.judged[:, of.favourite]
        groups = (of.n, of.candidates)
        which = digits.chosen(scale * reward.reshape(groups), seeds.generator(key))
        rows, classes = np.arange(of.n), judgement.classes.reshape(groups)
        near = self.gallery.near(judgement.features, of.candidates)
        measured = {
            "reward": reward.mean(), "before": _shares(classes), "after": _shares(classes[rows, which]),
            "precision": near.precision, "recall": near.recall, "coverage": near.coverage,
        }
        picked = generated.reshape(*groups, -1)[rows, which]
        return {"picked": picked, **{name: np.asarray(value, dtype=np.float64) for name, value in measured.items()}}

    @property
    def latest(self) -> list[float]:
        """Mean reward of each cell in the last round."""
        mean: list[float] = self.found["reward"][-1].reshape(len(self.cells), -1).mean(axis=1).tolist()
        return mean

    def state(self) -> State:
        weights = {f"weight.{name}": value.detach().numpy().copy() for name, value in self.models.parameters.items()}
        return {"picked": self.picked, **weights, **{f"found.{name}": value for name, value in self.found.items()}}


def _shares(classes: Array) -> Array:
    return np.bincount(classes.reshape(-1), minlength=digits.CLASSES) / classes.size
