"""Tests of DreamBooth in rounds: class images from the base model, their lineage, and their weight in the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import tiny_pipelines as tiny
from upturn import seeds
from upturn.config.recipe import load, parse
from upturn.data.mixer import Mixer
from upturn.data.mixing.replace import Replace
from upturn.errors import UserError
from upturn.export import model_export
from upturn.loop import loop
from upturn.models.text_to_image import TextToImage
from upturn.objectives.likelihood import Likelihood
from upturn.store import parquet_tables
from upturn.store.checkpoints import tree_hash
from upturn.types import SYNTHETIC, Prompt, real_samples, synthetic_samples

pytestmark = pytest.mark.slow

RECIPE = """
name: dreambooth
threads: 1
data: {{name: imagefolder, path: {data}, size: 16, held_out: 0.25}}
captions: {{name: fixed, text: a skx cat}}
models: {{policy: {{name: text_to_image, folder: {folder}, size: 16, caption_dropout: 0.0}}}}
features: pixels
stages: [{{name: base, steps: 0}}]
rounds:
  count: 1
  sample: {{texts: [a cat], prompts: 6, candidates: 1, settings: {{steps: 2}}}}
  mix: {{lambda: {prior}, repeat: 2}}
  train: {{steps: 2, batch_size: 4, adapter: {adapter}}}
evaluate: {{prompts: 1, metrics: [held_out_loss], settings: {{steps: 2}}}}
grid: {{prompts: 1, per_prompt: 1}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subject")
    for i in range(4):
        raw = seeds.table_uniform(7, i, i + 1, (16, 16, 3))[0].numpy()
        Image.fromarray((raw * 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.mark.long
@pytest.mark.parametrize(("kind", "adapter"), [
    ("sd15", "full"), ("sdxl", "{name: lora, rank: 2, modules: [to_q]}"),
    ("sd3", "{name: lora, rank: 2, modules: [to_q]}"), ("flux", "{name: lora, rank: 2, modules: [to_q]}"),
])  # fmt: skip
def test_class_images_come_from_the_base_with_the_configured_weight(kind, adapter, data, tmp_path):
    folder = tiny.saved(kind, tmp_path / kind)
    recipe = parse(RECIPE.format(data=data, folder=folder, adapter=adapter, prior=0.5), "dreambooth.yaml")
    run = loop.run(recipe, tmp_path / "runs")
    drawn = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
    assert {prompt.text for prompt in drawn.prompts} == {"a cat"} and (drawn.origin == SYNTHETIC).all()
    base = next(record for record in run.records("rounds/000") if "model" in record.files)
    assert set(drawn.source) == {base.info["model"]}
    mixture = parquet_tables.read_mixture(run, run.unit("rounds/001") / "mixture.parquet")
    prior = mixture.samples.origin == SYNTHETIC
    assert (int(prior.sum()), int((~prior).sum())) == (6, 6) and len(set(mixture.samples.ids[~prior])) == 3
    asked = {prompt.text for prompt, made in zip(mixture.samples.prompts, prior, strict=True) if not made}
    assert asked == {"a skx cat"}
    assert mixture.weights[prior].sum() == pytest.approx(0.5 * mixture.weights[~prior].sum())
    record = next(record for record in run.records("rounds/001") if "real_fraction" in record.info)
    assert record.info["real_fraction"] == pytest.approx(2 / 3)
    first, last = run.model_folder("rounds/000"), run.model_folder("rounds/001")
    assert tree_hash(first) != tree_hash(last)
    made = TextToImage(folder=str(folder), size=16)
    made.load(last)
    if adapter != "full":
        model_export.write_adapters(run, "rounds/001", tmp_path / "out", "diffusers")
        tiny.opened(last).load_lora_weights(str(tmp_path / "out" / "lora"))


def test_the_loss_is_the_subjects_and_the_prior_weight_times_the_classs():
    """Ruiz et al., equation 2, whose two terms are means; the sum of weights divides both: here 1 + λ."""
    raw = (seeds.table_uniform(2, 0, 8, (16, 16, 3)).numpy() * 255).astype(np.uint8)
    subject = real_samples("image", raw[:3], [Prompt("a skx cat")] * 3, "subject")
    own = class_pictures(raw[3:])
    model = TextToImage(config={"channels": [16, 32], "head_dim": 8, "text_width": 16, "text_layers": 1})
    model.build(subject, 1)
    mixture = Mixer(Replace(), lambda_=0.7, repeat=2).mix(subject, [own], key=1, round=1)
    batch = model.encode(mixture.samples).with_given(weights=torch.from_numpy(mixture.weights).float())
    with torch.no_grad():
        out = model.forward(batch, model.draw(batch, 4, 0))
        loss = Likelihood()(out, batch)
    each = -out.log_probs.mean(dim=1) / out.dims
    paper = each[:6].mean() + 0.7 * each[6:].mean()
    torch.testing.assert_close(loss.sum / loss.weight * 1.7, paper, rtol=1e-5, atol=0)


def class_pictures(raw):
    return synthetic_samples("image", raw, [Prompt("a cat")] * len(raw), np.arange(len(raw))[:, None], "base")


def test_rows_in_lambdas_numbers_weigh_the_same_so_that_any_batch_is_fair():
    raw = np.zeros((5, 16, 16, 3), dtype=np.uint8)
    raw[:, 0, 0, 0] = np.arange(5)
    subject = real_samples("image", raw[:1], [Prompt("a skx cat")], "subject")
    mixture = Mixer(Replace(), lambda_=1.0, repeat=4).mix(subject, [class_pictures(raw[1:])], key=1, round=1)
    assert len(mixture.samples) == 8 and np.allclose(mixture.weights, 1.0)


def test_the_shipped_recipe_is_valid_and_unread_texts_are_refused(data):
    recipe = load(Path(__file__).parents[2] / "recipes" / "dreambooth.yaml")
    assert recipe.rounds is not None and recipe.rounds.sample is not None and recipe.rounds.mix.repeat == 50
    with pytest.raises(UserError, match="give one of 'texts' and 'where'"):
        parse(RECIPE.format(data=data, folder="x", adapter="full", prior=1).replace(
            "texts: [a cat],", "texts: [a cat], where: {a: b},"), "dreambooth.yaml")
