"""Tests that text_to_image, killed in every kind of step, ends with the bytes of an uninterrupted run."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import child_process as children
from upturn.store import parquet_tables
from upturn.store.checkpoints import tree_hash
from upturn.store.run import Run

pytestmark = pytest.mark.slow

children.preload(
    "upturn.models.text_to_image", "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.autoencoders.autoencoder_tiny", "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip", "peft",
)
COLOURS = {"red": (230, 30, 30), "blue": (30, 30, 230)}
CONFIG = "{channels: [16, 32], head_dim: 8, text_width: 16, text_layers: 1}"
RECIPE = """
name: colours
threads: 1
data: {{name: imagefolder, path: {data}, caption: text, size: 8}}
models: {{policy: {{name: text_to_image, config: {config}}}}}
features: pixels
stages:
  - {{name: tune, steps: 6, batch_size: 4, ema: 0.9, save_every: 2, checkpoint_epochs: [1]}}
  - {{name: adapt, steps: 6, batch_size: 4, ema: 0.9, save_every: 2,
      adapter: {{name: lora, rank: 2, modules: [to_q, q_proj]}}}}
rounds:
  count: 1
  sample: {{prompts: 4, candidates: 1, settings: {{steps: 2, guide: tune@1, guidance: 2.0}}}}
  train: {{steps: 4, batch_size: 4, ema: 0.9, save_every: 2,
      adapter: {{name: lora, rank: 2, modules: [to_q, q_proj]}}}}
evaluate: {{prompts: 2, metrics: [held_out_loss], settings: {{steps: 2, guide: tune@1, guidance: 2.0}}}}
grid: {{prompts: 1, per_prompt: 2}}
"""
# each counts from the beginning of its own process, and dies in what the one before it left
STRIKES = (
    ("checkpoint:after-rename:2", "rounds/000/tune", "mix"),  # full training, text encoder and average: after step 4
    ("commit:file-moved:2", "rounds/000/tune", "mix"),  # the model moved, its record not yet written
    ("checkpoint:written:2", "rounds/000/adapt", "mix"),  # LoRA: its state of step 4 not yet under its name
    ("commit:before-record:1", "rounds/000/adapt", "mix"),  # the adapter moved, its record not yet written
    ("checkpoint:after-fsync:1", "rounds/001", "mix"),  # the round's training, on guided samples
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(3)
    lines = []
    for i in range(16):
        name = list(COLOURS)[i % 2]
        shown = (np.array(COLOURS[name]) + rng.integers(-20, 21, (8, 8, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(shown).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a {name} thing"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return RECIPE.format(data=folder, config=CONFIG)


def weights(run: Path) -> dict[str, str]:
    """Every model and checkpoint by the hash of its bytes."""
    found = [*run.glob("rounds/**/model"), *run.glob("rounds/**/checkpoints/*")]
    return {str(path.relative_to(run)): tree_hash(path) for path in found}


def ended(text: str, runs: Path, fault: str = "") -> int | None:
    process = children.start(text, runs, fault)
    process.join()
    return process.exitcode


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_in_every_kind_of_step_it_ends_with_the_same_bytes(text: str, tmp_path: Path) -> None:
    assert ended(text, tmp_path / "whole") == 0
    expected = weights(tmp_path / "whole" / "colours")
    assert len(expected) == 5
    run = tmp_path / "struck" / "colours"
    for fault, unit, last in STRIKES:
        assert ended(text, tmp_path / "struck", fault) == -signal.SIGKILL, fault
        records = Run.open(run).records()
        assert (records[-1].unit, records[-1].step) == (unit, last), fault
    assert ended(text, tmp_path / "struck") == 0
    assert weights(run) == expected
    assert Run.open(run).verify().intact
    made = parquet_tables.read_samples(run / "rounds" / "001" / "samples.parquet").fields["guide"]
    assert {name.split("/")[1] for name in made} == {"epoch-0001"}
