"""Tests of a dual encoder in a complete run: trained beside the policy, used as scorer, metric and feature model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers import dual_encoders as dual
from helpers.colour_folders import folder_of_colours
from upturn import plan as planning
from upturn.config import recipe
from upturn.loop import loop
from upturn.store.columns import read_table

pytestmark = pytest.mark.slow

RECIPE = """
name: paired
data: {{name: imagefolder, path: {folder}, size: 16, caption: name, held_out: 0.3}}
models:
  policy:
    name: text_to_image
    config: {{channels: [32, 32], text_width: 32, text_layers: 1, layers: 1, vocabulary: 520}}
  dual: {{name: dual_encoder, {dual}}}
features: {{name: classifier, model: dual}}
grid: {{prompts: 2, per_prompt: 1}}
stages: [{{name: pretrain, steps: 2, batch_size: 16}}]
rounds:
  count: 1
  sample: {{prompts: 6, candidates: 2, settings: {{steps: 2}}}}
  score:
    - {{name: alignment, model: dual}}
    - {{name: zero_shot_safety, model: dual, safe: [red], unsafe: [blue]}}
    - {{name: reward_model, model: dual}}
  curate: [best_of_n]
  train: {{steps: 2, batch_size: 16}}
evaluate:
  prompts: 10
  candidates: 2
  settings: {{steps: 2}}
  metrics: [{{name: caption_alignment, model: dual}}, prompt_responsiveness, kid, nearest_real]
gate: {{metric: caption_alignment}}
"""


SMALL = "config: {channels: 8, hidden: 32, width: 16}, " \
    "fit: {objective: contrastive, epochs: 3, batch_size: 32, micro_batch: 10}"


def paired(tmp_path: Path, encoder: str) -> Path:
    """The folder of a finished run."""
    folder = folder_of_colours(tmp_path / "pictures")
    done = loop.run(recipe.parse(RECIPE.format(folder=folder, dual=encoder), "test"), tmp_path / "runs")
    assert done.state.state == "done"
    measured = json.loads((done.unit("rounds/001") / "metrics.json").read_text())
    assert set(measured) == {"caption_alignment", "prompt_responsiveness", "kid", "nearest_real"}
    for name, found in measured.items():
        assert found["value"] is not None and found["low"] <= found["value"] <= found["high"], name
    return done.folder


@pytest.mark.long
def test_a_run_with_a_dual_encoder(tmp_path: Path) -> None:
    losses = json.loads((paired(tmp_path, SMALL) / "models" / "dual" / "losses.json").read_text())
    assert losses[-1]["held_out"] < losses[0]["held_out"]


@pytest.mark.long
def test_a_pretrained_encoder_needs_no_fit_and_is_unchanged(tmp_path: Path) -> None:
    """A CLIP folder by name alone: scored and measured by it, kept in the run, its weights the folder's own."""
    folder = dual.tiny_clip(tmp_path / "clip")
    run = paired(tmp_path, f"folder: {folder}")
    unit = run / "models" / "dual"
    kept, own = (load_file(at / "model.safetensors") for at in (unit / "model", folder))
    assert all(torch.equal(kept[name], value) for name, value in own.items())
    assert json.loads((unit / "losses.json").read_text()) == []
    assert len(read_table(unit / "mixture.parquet")) == 0  # nothing of this data is in it
    planned = planning.plan(recipe.load(run / "recipe.yaml"))
    assert next(row for row in planned.rows if row.unit == "models/dual").optimiser_steps == 0
