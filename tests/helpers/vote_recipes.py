"""Recipes whose rounds need votes of annotators."""

from __future__ import annotations

VOTED = """
name: voted
threads: 1
data: {name: points, shape: eight_gaussians, n: 200}
models: {policy: gaussian}
features: points
stages: [{name: fit, steps: 1}]
rounds:
  count: 2
  sample: {prompts: 10, candidates: 4}
  people: {mode: pick, simulated: {score: {name: closeness, to: [4.0, 0.0], width: 4.0}, count: 3, careless: 0.1}}
  curate: picked
  mix: {policy: replace, lambda: 1.0}
  train: {steps: 1}
evaluate: {prompts: 20, metrics: [coverage]}
"""
