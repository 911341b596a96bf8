"""Recipes on text for tests."""

from __future__ import annotations

TEXT = """
name: text
threads: 1
data: {name: equations, count: 400, operations: [1, 2], largest: 5, worked: 100}
models:
  policy:
    name: causal_lm
    config: {model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
    max_length: 48
stages: [{name: pretrain, steps: 30, batch_size: 32, where: {solution: given}}]
rounds:
  count: 1
  sample: {prompts: 40, candidates: 3, where: {}, settings: {max_tokens: 12}}
  score: length
  mix: {policy: replace, lambda: 1.0}
  train: {steps: 5, batch_size: 16, objective: dpo}
evaluate: {prompts: 30, metrics: [reward, perplexity], settings: {max_tokens: 12}}
grid: {prompts: 3, per_prompt: 2}
"""
