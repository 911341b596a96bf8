"""A dual encoder in a whole run: fitted beside the policy, scoring its candidates, measuring them, giving features."""

from __future__ import annotations

import json
from pathlib import Path

from test_search import folder_of_colours
from upturn import loop, recipe

RECIPE = """
name: paired
data: {{name: imagefolder, path: {folder}, size: 16, caption: name, held_out: 0.3}}
models:
  policy:
    name: text_to_image
    config: {{channels: [32, 32], text_width: 32, text_layers: 1, layers: 1, vocabulary: 520}}
  dual:
    name: dual_encoder
    config: {{channels: 8, hidden: 32, width: 16}}
    fit: {{objective: contrastive, epochs: 3, batch_size: 32, micro_batch: 10}}
features: {{name: classifier, model: dual}}
grid: {{prompts: 2, per_prompt: 1}}
stages: [{{name: pretrain, steps: 2}}]
rounds:
  count: 1
  sample: {{prompts: 6, candidates: 2, settings: {{steps: 2}}}}
  score:
    - {{name: alignment, model: dual}}
    - {{name: zero_shot_safety, model: dual, safe: [red], unsafe: [blue]}}
    - {{name: reward_model, model: dual}}
  curate: [best_of_n]
  train: {{steps: 2}}
evaluate:
  prompts: 10
  candidates: 2
  settings: {{steps: 2}}
  metrics: [{{name: caption_alignment, model: dual}}, prompt_responsiveness, kid, nearest_real]
gate: {{metric: caption_alignment}}
"""


def test_a_run_with_a_dual_encoder(tmp_path: Path) -> None:
    folder = folder_of_colours(tmp_path / "pictures")
    done = loop.run(recipe.parse(RECIPE.format(folder=folder), "test"), tmp_path / "runs")
    assert done.state.state == "done"
    unit = tmp_path / "runs" / "paired" / "rounds" / "001"
    measured = json.loads((unit / "metrics.json").read_text())
    assert set(measured) == {"caption_alignment", "prompt_responsiveness", "kid", "nearest_real"}
    for name, found in measured.items():
        assert found["value"] is not None and found["low"] <= found["value"] <= found["high"], name
    losses = json.loads((tmp_path / "runs" / "paired" / "models" / "dual" / "losses.json").read_text())
    assert losses[-1]["held_out"] < losses[0]["held_out"]
