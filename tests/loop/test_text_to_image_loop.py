"""Tests of text_to_image in the loop: stages, rounds, preferences, rewards, and resumption to equal bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import tiny_pipelines as tiny
from upturn import seeds
from upturn.config import components
from upturn.config.recipe import parse
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.export import model_export as merging
from upturn.loop import loop
from upturn.models.text_to_image import TextToImage
from upturn.store.checkpoints import tree_hash
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.setup import TrainingSetup
from upturn.types import Batch, Prompt, real_samples

pytestmark = pytest.mark.slow

COLOURS = {"red": (230, 30, 30), "blue": (30, 30, 230)}
CONFIG = "{channels: [16, 32], head_dim: 8, text_width: 16, text_layers: 1}"
RECIPE = """
name: colours
threads: 1
data: {{name: imagefolder, path: {data}, caption: text, size: 16}}
models: {{policy: {{name: text_to_image, {model}}}}}
features: pixels
stages: [{{name: tune, steps: 6, batch_size: 8, ema: 0.9, save_every: 2, checkpoint_epochs: [1], adapter: {adapter}}}]
rounds:
  count: 1
  {sample}
  score: ink
  train: {train}
evaluate: {{prompts: 6, metrics: [reward, held_out_loss], settings: {{steps: 2}}}}
gate: {{metric: reward}}
grid: {{prompts: 2, per_prompt: 2}}
"""
SAMPLE = "sample: {prompts: 4, candidates: 2, settings: {steps: 2, guidance: 2.0}}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(3)
    lines = []
    for i in range(24):
        name = list(COLOURS)[i % 2]
        noise = rng.integers(-20, 21, (16, 16, 3))
        Image.fromarray((np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a {name} thing"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def recipe(data, model=f"config: {CONFIG}", adapter="full", sample=SAMPLE, train="{steps: 4, batch_size: 8}"):
    return parse(RECIPE.format(data=data, model=model, adapter=adapter, sample=sample, train=train), "colours.yaml")


@pytest.mark.long
def test_a_round_writes_pipelines_that_diffusers_opens_and_links_shared_parts(data, tmp_path):
    run = loop.run(recipe(data), tmp_path)
    before, after = run.model_folder("rounds/000"), run.model_folder("rounds/001")
    made = tiny.opened(after)("a red thing", num_inference_steps=2, height=16, width=16, output_type="np").images
    assert made.shape == (1, 16, 16, 3) and np.isfinite(made).all()
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (before / vae).samefile(after / vae)
    assert tree_hash(before / "unet") != tree_hash(after / "unet")
    assert tree_hash(before / "text_encoder_2") != tree_hash(after / "text_encoder_2")
    again = loop.run(recipe(data), tmp_path / "again")
    assert tree_hash(after) == tree_hash(again.model_folder("rounds/001"))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3", "flux"])
def test_a_round_of_choices_then_preferences_on_a_checkpoint(kind, data, tmp_path):
    """Every weight tuned, then a round: of two candidates one is chosen and mixed with real ones, then Diffusion-DPO
    (Wallace et al. 2024) trains a LoRA; what comes of it makes the same images in plain diffusers."""
    folder = tiny.saved(kind, tmp_path / kind)
    lora = "{name: lora, rank: 2, modules: [to_q, to_v]}"
    train = "[{steps: 2, batch_size: 4}, " \
        f"{{steps: 3, batch_size: 2, objective: dpo, adapter: {lora}, learning_rate: 1.0e-2}}]"
    asked = recipe(data, f"folder: {folder}, size: 16", sample=f"{SAMPLE}\n  curate: choice", train=train)
    run = loop.run(asked, tmp_path / "runs")
    before, chosen, after = (run.model_folder(f"rounds/{unit}") for unit in ("000", "001/likelihood", "001"))
    base = {"sd15": "unet", "sdxl": "unet"}.get(kind, "transformer")
    weights = [tree_hash(at / base) for at in (folder, before, chosen, after)]
    assert len(set(weights)) == 3 and weights[2] == weights[3]  # the last trained its LoRA alone
    assert (after / "adapters").is_dir()
    merging.write(run, "rounds/001", tmp_path / "merged")
    noise, texts = seeds.normal(np.arange(2), _latents(after)), ["a red thing", "a blue thing"]
    model = TextToImage(folder=str(folder), size=16)
    model.load(after)
    settings = model.Sampling(steps=4, sampler="euler", guidance=2.5)
    ours = model.generate([Prompt(text) for text in texts], np.arange(2), settings)
    theirs = tiny.same_noise(kind, tmp_path / "merged", texts, noise, 4, 2.5)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * max(float(ours.abs().max()), 1.0))
    model.load(before)
    assert not torch.allclose(ours, model.generate([Prompt(text) for text in texts], np.arange(2), settings), atol=1e-3)


def _latents(folder: Path) -> tuple[int, int, int]:
    model = TextToImage(folder=str(folder), size=16)
    model.load(folder)
    return model.frame.shape


@pytest.mark.long
def test_picks_among_candidates_train_a_lora(data, tmp_path):
    folder = tiny.saved("sd15", tmp_path / "sd15")
    lora = "{name: lora, rank: 2, modules: [to_q, to_v]}"
    train = f"{{steps: 3, batch_size: 2, objective: listwise, adapter: {lora}, learning_rate: 1.0e-2}}"
    run = loop.run(recipe(data, f"folder: {folder}, size: 16", lora, train=train), tmp_path / "runs")
    before, after = run.model_folder("rounds/000"), run.model_folder("rounds/001")
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert (before / unet).samefile(after / unet)  # the base never changed
    assert tree_hash(before / "adapters") != tree_hash(after / "adapters")


@pytest.mark.long
def test_rewards_train_a_policy_step_by_step(data, tmp_path):
    """DDPO (Black et al. 2024): rollouts of the ancestral sampler, with guidance, replayed with their captions."""
    train = "{steps: 2, batch_size: 4, objective: {name: rloo, beta: 0.01}, " \
        "online: {prompts: 4, candidates: 2, settings: {steps: 3, sampler: ancestral, guidance: 1.5}}}"
    run = loop.run(recipe(data, sample="", train=train), tmp_path)
    assert tree_hash(run.model_folder("rounds/000") / "unet") != tree_hash(run.model_folder("rounds/001") / "unet")


class Stop(Exception):
    pass


@pytest.mark.long
@pytest.mark.parametrize("adapter", ["full", {"name": "lora", "rank": 2, "modules": ["to_q", "q_proj"]}])
def test_stopped_and_resumed_it_ends_with_the_same_bytes(adapter, tmp_path):
    """With an average, the text encoder training too, and captions in variants."""
    raw = (seeds.table_uniform(2, 0, 20, (16, 16, 3)).numpy() * 255).astype(np.uint8)
    examples = real_samples("image", raw, [Prompt(f"a thing {i}") for i in range(20)], "toy")

    def trained(folder: Path, stop: int | None = None):
        model = TextToImage(config={"channels": [16, 32], "head_dim": 8, "text_width": 16, "text_layers": 1})
        model.build(examples, 1)
        encoded = model.encode(examples)
        feed = FixedFeed(Batch(encoded.columns, 1, {"weights": torch.ones(20)}), 8, 3)

        def on_step(step, total, loss):
            if step == stop:
                raise Stop

        plan = TrainingSetup(
            spec=Training(steps=7, batch_size=8, ema=0.9, save_every=2, micro_batch=4),
            objective=components.make("objective", "likelihood"), adapter=components.make("adapter", adapter),
            feed=feed, key=5, where="test", progress=folder, on_step=on_step,
        )
        trainer.train(model, plan)
        model.save(folder / "model")
        return tree_hash(folder / "model")

    whole = trained(tmp_path / "whole")
    with pytest.raises(Stop):
        trained(tmp_path / "stopped", stop=6)
    assert trained(tmp_path / "stopped") == whole


@pytest.mark.long
def test_it_learns_which_colour_a_caption_names(data):
    """Two captions, two colours: after 200 steps the channel of each is much brighter in its samples."""
    from upturn.data.sources.imagefolder import Imagefolder

    examples = Imagefolder(path=str(data), caption="text", size=8).load().train
    model = TextToImage(config={"channels": [16, 32], "head_dim": 8, "text_width": 16, "text_layers": 1})
    model.build(examples, 1)
    whole = model.encode(examples)
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=3e-3, weight_decay=0, fused=True)
    rows = seeds.generator(5)
    for step in range(200):
        batch = whole.take(torch.from_numpy(rows.integers(0, len(examples), 8)))
        out = model.forward(batch, model.draw(batch, seeds.key("learn", step), 0))
        optimizer.zero_grad()
        (-out.log_probs.sum() / (8 * out.dims)).backward()
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 200)
        optimizer.step()
    prompts = [Prompt("a red thing"), Prompt("a blue thing")]
    made = model.sample(prompts, np.arange(8).reshape(2, 4), model.Sampling(steps=8, guidance=2.0)).content
    means = made.reshape(2, 4, -1, 3).mean(axis=2, dtype=np.float64)
    assert (means[0, :, 0] - means[0, :, 2] > 80).all() and (means[1, :, 2] - means[1, :, 0] > 80).all()


def test_a_missing_pipeline_is_an_error_before_the_first_step(data, tmp_path):
    folder = tiny.saved("sd15", tmp_path / "sd15")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rescale_betas_zero_snr": True}))
    with pytest.raises(UserError, match="zero terminal SNR"):
        loop.run(recipe(data, f"folder: {folder}"), tmp_path / "runs")
    assert not (tmp_path / "runs" / "colours" / "rounds").exists()
