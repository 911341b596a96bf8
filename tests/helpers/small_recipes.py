"""Small recipes for tests: a Gaussian in closed form, and a diffusion model of points with a few steps."""

from __future__ import annotations

from upturn.config import recipe
from upturn.config.recipe import Recipe

GAUSSIAN = """
name: gaussian
threads: 1
data: {name: points, shape: eight_gaussians, n: 600}
models: {policy: gaussian}
features: points
stages: [{name: fit, steps: 1}]
rounds:
  count: 3
  sample: {prompts: 150, candidates: 4, shard: 64}
  score: {name: closeness, to: [4.0, 0.0], width: 4.0}
  curate: choice
  mix: {policy: replace, lambda: 1.0}
  train: {steps: 1}
evaluate: {prompts: 200, metrics: [reward, coverage]}
gate: {metric: reward, alpha: 0.05, guards: {coverage: {at_least: 0.2}}}
"""

POINTS = """
name: points
threads: 1
data: {name: points, shape: eight_gaussians, n: 400}
models: {policy: {name: points, network: {name: mlp, width: 16, depth: 1}}}
features: points
stages:
  - {name: pretrain, steps: 40, batch_size: 64, ema: 0.9, save_every: 7, checkpoint_epochs: [2, 5]}
  - {name: finetune, steps: 20, batch_size: 64, save_every: 7}
rounds:
  count: 2
  sample: {prompts: 60, candidates: 3, shard: 20, settings: {steps: 4}}
  score: {name: closeness, to: [4.0, 0.0], width: 4.0}
  curate: [deduplicate, choice]
  mix: {policy: accumulate, lambda: 1.0}
  train: {steps: 20, batch_size: 64, ema: 0.9, save_every: 7}
evaluate: {prompts: 60, metrics: [reward, coverage], settings: {steps: 4}}
gate: {metric: reward}
"""


def small(text: str, *settings: str) -> Recipe:
    return recipe.parse(text, "small.yaml", settings)
