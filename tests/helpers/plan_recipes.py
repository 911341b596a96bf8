"""Recipes for the tests of the plan."""

from __future__ import annotations

TEXT = """
name: text
threads: 1
data: {name: equations, count: 300, operations: [1, 2], largest: 5, worked: 100}
models:
  policy:
    name: causal_lm
    config: {model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
    max_length: 48
stages: [{name: pretrain, epochs: 2, batch_size: 32, where: {solution: given}}]
evaluate: {prompts: 30, metrics: [perplexity], settings: {max_tokens: 12}}
grid: {prompts: 3, per_prompt: 2}
"""


SAMPLED = """
rounds:
  count: 1
  sample: {prompts: 20, candidates: 3, where: {}, settings: {max_tokens: 12}}
  score: length
  mix: {lambda: 1.0}
  train:
    - {epochs: 2, batch_size: 16}
    - {steps: 5, batch_size: 8, objective: dpo, adapter: lora}
"""


ONLINE = """
rounds:
  count: 1
  score: length
  train: {objective: rloo, online: {prompts: 12, candidates: 3, settings: {max_tokens: 8}}, epochs: 2, batch_size: 5}
"""
