"""Random small recipes and their outcomes: one Gaussian, or shares of categories.

A run calls the parts of the loop directly, in the loop's order: model, scorer, curator, mixer, a closed-form fit.
Store, gate and evaluation are left out (every round is promoted): sixty runs through them would take an hour.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from upturn import seeds
from upturn.config import recipe
from upturn.data.mixer import Mixer
from upturn.errors import UserError
from upturn.loop.assemble import assemble
from upturn.loop.assembly import Assembly
from upturn.loop.run_context import prompt_keys
from upturn.models.gaussian import Gaussian, GaussianSampling
from upturn.protocols import Policy
from upturn.types import Array, Samples, Splits, synthetic_samples

CATEGORICAL = "drawn:Categorical"


@dataclass(eq=False)
class Categorical(Policy):
    """Shares of whole numbers on a line: learned by counting, sampled at temperature τ as p^(1/τ)."""

    id: str = field(default="categorical", init=False)
    places: Array = field(init=False, repr=False)
    shares: Array = field(init=False, repr=False)

    kind: ClassVar[str] = "points"
    likelihood: ClassVar[str] = "exact"
    family: ClassVar[str] = "categorical"
    Sampling: ClassVar[type] = GaussianSampling
    conditional: ClassVar[bool] = False

    def build(self, examples: Samples, key: int) -> None:
        self.places = np.unique(np.rint(examples.content[:, 0]))
        self.fit(examples, np.ones(len(examples)))

    def fit(self, samples: Samples, weights: Array) -> None:
        at = np.searchsorted(self.places, np.rint(samples.content[:, 0]))
        self.shares = np.bincount(at, weights=weights, minlength=len(self.places)) / weights.sum()

    def sample(self, prompts: Any, keys: Array, settings: Any, guides: Any = {}) -> Samples:
        with np.errstate(divide="ignore"):
            logit = np.log(self.shares) / settings.temperature
        tempered = np.exp(logit - logit.max())
        chances = np.cumsum(tempered / tempered.sum())
        uniform = seeds.uniform(keys.reshape(-1), (1,)).numpy()[:, 0]
        drawn = self.places[np.minimum(np.searchsorted(chances, uniform, side="right"), len(chances) - 1)]
        return synthetic_samples("points", drawn[:, None], prompts, keys, self.id)


class Drawn(NamedTuple):
    """A recipe's text (JSON is YAML), and the seed that it was drawn from."""

    text: str
    seed: int


def draw(seed: int) -> Drawn:
    """Everything that theory speaks of is drawn: model, policy, λ, n, K, curator, reward, temperature, rounds."""
    rng = seeds.generator(seeds.key("drawn recipe", seed))
    gaussian = bool(rng.random() < 0.5)
    dim = int(rng.integers(1, 9)) if gaussian else 1
    modes = int(rng.integers(5, 31))
    rounds = int(rng.integers(3, 26))
    policy = str(rng.choice(["replace", "accumulate", "accumulate_subsample", "fresh"]))
    lam = [None, float(np.exp(rng.uniform(math.log(0.1), math.log(20)))), "inf"][int(rng.integers(3))]
    lam = 1.0 if policy == "fresh" and lam == "inf" else lam
    real = round(float(np.exp(rng.uniform(math.log(40), math.log(800)))))
    prompts = round(float(np.exp(rng.uniform(math.log(20), math.log(400)))))
    curator = str(rng.choice(["none", "choice", "best_of_n", "top_fraction"], p=[0.4, 0.3, 0.15, 0.15]))
    candidates = 1 if curator == "none" else int(rng.integers(2, 7))
    temperature = 1.0 if rng.random() < 0.5 else float(rng.uniform(0.6, 1.1))
    means = [[0.0] * dim] if gaussian else [[float(i)] for i in range(modes)]
    away = rng.standard_normal(dim)
    away *= rng.uniform(0, 2) / np.linalg.norm(away)
    asked: dict[str, Any] = {
        "name": f"drawn-{seed}", "seed": seed, "threads": 1,
        "data": {"name": "points", "shape": "mixture", "means": means, "seed": seed, "held_out": 0.1,
                 "n": real * (rounds + 1) if policy == "fresh" else real, "std": 1.0 if gaussian else 0.01},
        "models": {"policy": {"name": "gaussian", "division": str(rng.choice(["n", "n-1"]))} if gaussian
                   else {"name": CATEGORICAL}},
        "features": "points", "stages": [{"name": "fit", "steps": 1}],
        "evaluate": {"prompts": 50, "metrics": ["reward"]},
        "rounds": {
            "count": rounds,
            "sample": {"prompts": prompts, "candidates": candidates, "settings": {"temperature": temperature}},
            "score": {"name": "closeness", "height": float(np.exp(rng.uniform(math.log(0.3), math.log(5)))),
                      "to": away.tolist() if gaussian else [float(rng.uniform(0, modes - 1))],
                      "width": float(rng.uniform(0.7, 3)) * (math.sqrt(dim) if gaussian else modes / 4)},
            "curate": [] if curator == "none" else [
                {"name": curator, "fraction": float(rng.uniform(0.15, 0.9))} if curator == "top_fraction"
                else {"name": curator}
            ],
            "mix": {"policy": policy, "lambda": lam}, "train": {"steps": 1},
        },
    }
    return Drawn(json.dumps(asked).replace('"inf"', ".inf"), seed)


@dataclass(frozen=True)
class Opened:
    """A drawn recipe's parts and data."""

    parts: Assembly
    splits: Splits


def opened(drawn: Drawn) -> Opened:
    parts = assemble(recipe.parse(drawn.text, f"drawn-{drawn.seed}"))
    return Opened(parts, parts.source.load())


def diversity(model: Gaussian | Categorical) -> float:
    """Geometric mean of a Gaussian's standard deviations; of shares the effective number 1/Σp²."""
    if isinstance(model, Categorical):
        return 1 / float(np.sum(model.shares**2))
    return math.exp(float(model._normal.factor.detach().diagonal().double().mean()))


def outcome(found: Opened, chance: int = 0) -> float:
    """The measure: diversity after all rounds over that of round 0. 0 where nothing could be fitted any more.

    ``chance`` names another run of the same recipe.
    """
    parts, train = found.parts, found.splits.train
    rounds = parts.recipe.rounds
    assert rounds is not None and rounds.sample is not None
    model: Any = parts.model("policy")
    model.build(train, 0)
    model.fit(train, np.ones(len(train)))
    first = diversity(model)
    assert parts.mixing is not None
    mixer = Mixer(
        parts.mixing, rounds.mix.lambda_, real=rounds.mix.real, size=rounds.mix.size, rounds=rounds.count
    )
    base = seeds.key(parts.recipe.seed, "run", chance)
    kept: list[Samples] = []
    for number in range(1, rounds.count + 1):
        prompts = [train.prompts[0]] * rounds.sample.prompts
        keys = prompt_keys(seeds.key(base, "sample", number), prompts, rounds.sample.candidates)
        samples = model.sample(prompts, keys, parts.sampling)
        rewards = sum(weight * scorer.score(samples, None).values for scorer, weight in parts.scorers.values())
        for name, curator in parts.curators.items():
            samples = samples.take(curator.curate(samples, rewards, None, seeds.key(base, number, name)).kept)
        kept.append(samples)
        mixture = mixer.mix(train, kept, seeds.key(base, "mix"), number)
        try:
            model.fit(mixture.samples, mixture.weights)
        except UserError:  # the points no longer span the space
            return 0.0
    return diversity(model) / first
