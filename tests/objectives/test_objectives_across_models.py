"""One objective file trains a toy in the plane, an image diffusion model and a language model: each reward rises."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from upturn import seeds
from upturn.adapters.full import Full
from upturn.config import components
from upturn.config.schema import Training
from upturn.data.groups import by_reward, encode_groups
from upturn.objectives.likelihood import Likelihood
from upturn.training import trainer
from upturn.training.feeds import FixedFeed, OnlineFeed
from upturn.training.setup import TrainingSetup
from upturn.types import Array, Batch, Prompt, Samples, objects, real_samples

pytestmark = pytest.mark.slow

_CANDIDATES, _MEASURED = 8, 400
_Z = 4.0  # standard errors of the difference of means: one chance in 30,000 that nothing happened
OBJECTIVES: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 0.5}, "rpo": {"beta": 0.5}, "listwise": {"beta": 0.5},
    "reward_weighted": {}, "rloo": {"beta": 0.0},
}


@dataclass
class Task:
    """A pre-trained model, what it is asked, how it samples, and what is liked."""

    model: Any
    prompt: Prompt
    drawn: Any  # settings of a draw
    reward: Callable[[Samples], Array]
    rates: dict[str, float]
    prompts: int  # of a step: as many as a rise far beyond chance takes

    def sample(self, model: Any, count: int, key: int) -> tuple[Samples, Array]:
        keys = seeds.fold(key, range(count * _CANDIDATES)).reshape(count, _CANDIDATES)
        samples = model.sample([self.prompt] * count, keys, self.drawn)
        return samples, self.reward(samples)


def _pretrained(name: str, fields: dict[str, Any], real: Samples, steps: int, rate: float) -> Any:
    model = components.make("model", {"name": name, **fields}, "test")
    model.build(real, 1)
    batch = model.encode(real)
    spec = Training(steps=steps, batch_size=64, learning_rate=rate)
    trainer.train(model, TrainingSetup(
        spec=spec, objective=Likelihood(), adapter=Full(), feed=FixedFeed(batch, 64, 3), key=3, where="test"))
    model.module.eval()
    return model


def points() -> Task:
    rng = np.random.default_rng(0)
    angles = 2 * np.pi * rng.integers(0, 8, 800) / 8
    content = np.stack([4 * np.cos(angles), 4 * np.sin(angles)], 1) + 0.3 * rng.normal(size=(800, 2))
    real = real_samples("points", content.astype(np.float32), [Prompt()] * 800, "ring")
    model = _pretrained("points", {"network": {"name": "mlp", "width": 48, "depth": 2}}, real, 400, 2e-3)
    settings = components.checked(model.Sampling, {"steps": 8, "sampler": "ancestral"}, "test", "sampling")
    return Task(model, Prompt(), settings, lambda s: s.content[:, 0].astype(np.float64),
                {"rloo": 5e-4, "reward_weighted": 2e-3, "": 1e-3}, prompts=48)


def pixels() -> Task:
    from sklearn.datasets import load_digits

    pictures = (load_digits().images[:800] / 16 * 255).round().astype(np.uint8)[..., None]
    real = real_samples("image", pictures, [Prompt()] * 800, "digits")
    fields = {"size": 8, "channels": 1, "network": {"name": "mlp", "width": 64, "depth": 2}}
    model = _pretrained("pixels", fields, real, 300, 2e-3)
    settings = components.checked(model.Sampling, {"steps": 8, "sampler": "ancestral"}, "test", "sampling")
    return Task(model, Prompt(), settings, lambda s: s.content.mean(axis=(1, 2, 3)) / 255.0 * 10,
                {"rloo": 5e-4, "reward_weighted": 2e-3, "": 1e-3}, prompts=16)


def text() -> Task:
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcd"), size=rng.integers(2, 7))) for _ in range(800)]
    real = real_samples("text", objects(words), [Prompt("w:")] * 800, "words")
    config = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
              "num_attention_heads": 2, "max_position_embeddings": 24}
    model = _pretrained("causal_lm", {"config": config}, real, 200, 3e-3)
    settings = components.checked(model.Sampling, {"max_tokens": 10}, "test", "sampling")
    return Task(model, Prompt("w:"), settings, lambda s: np.array([str(t).count("a") for t in s.content], float),
                {"rloo": 1e-3, "": 1e-3}, prompts=16)


_TASKS: dict[str, Task] = {}


@pytest.fixture
def task(request: pytest.FixtureRequest) -> Task:
    make = {"points": points, "pixels": pixels, "causal_lm": text}
    if request.param not in _TASKS:
        _TASKS[request.param] = make[request.param]()
    kept = _TASKS[request.param]
    model = copy.copy(kept.model)
    model.module = copy.deepcopy(kept.model.module)
    return replace(kept, model=model)


def drawing(task: Task, objective: Any) -> Callable[[int], Batch]:
    def draw(number: int) -> Batch:
        if objective.example == "rollout":
            keys = seeds.fold(1000 + number, range(task.prompts * _CANDIDATES)).reshape(task.prompts, _CANDIDATES)
            rollout = task.model.rollout([task.prompt] * task.prompts, keys, task.drawn)
            rewards = torch.from_numpy(task.reward(rollout.samples)).float().reshape(task.prompts, _CANDIDATES)
            return replace(task.model.replay(rollout), candidates=_CANDIDATES, given={"rewards": rewards})
        samples, rewards = task.sample(task.model, task.prompts, 1000 + number)
        wanted = getattr(objective, "candidates", None)
        return encode_groups(task.model, by_reward(samples, rewards, wanted), wanted)

    return draw


@pytest.mark.long
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("task", ["points", "pixels", "causal_lm"], indirect=True)
def test_the_reward_rises_beyond_chance(task: Task, objective: str) -> None:
    made = components.make("objective", {"name": objective, **OBJECTIVES[objective]}, "test")
    _, before = task.sample(task.model, _MEASURED // _CANDIDATES, 5)
    steps = 30
    spec = Training(steps=steps, batch_size=task.prompts, learning_rate=task.rates.get(objective, task.rates[""]),
                    schedule="constant", warmup=0.0)
    feed = OnlineFeed(drawing(task, made), task.prompts, task.prompts, 1, 9)
    trainer.train(task.model, TrainingSetup(
        spec=spec, objective=made, adapter=Full(), feed=feed, key=9, where="test"))
    _, after = task.sample(task.model, _MEASURED // _CANDIDATES, 5)
    error = np.sqrt(before.var(ddof=1) / len(before) + after.var(ddof=1) / len(after))
    print(f"{objective}: {before.mean():.3f} -> {after.mean():.3f}, z = {(after.mean() - before.mean()) / error:.1f}")
    assert after.mean() - before.mean() > _Z * error
