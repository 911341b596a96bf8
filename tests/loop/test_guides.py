"""Tests of guidance by an earlier version of the policy or by another model: results, refusals and records."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from upturn import seeds
from upturn.config import recipe
from upturn.errors import UserError
from upturn.loop import loop
from upturn.loop.assemble import assemble
from upturn.loop.assembly import load_model
from upturn.models.pixels import Pixels
from upturn.models.text_to_image import TextToImage
from upturn.store import lineage, parquet_tables
from upturn.store.run import Run
from upturn.types import Array, Prompt, Samples, real_samples

pytestmark = pytest.mark.slow

RECIPE = """
name: guided
threads: 1
data: digits
models:
  policy: {name: pixels, classes: 10, network: {name: mlp, width: 16, depth: 1}}
  bad: {name: pixels, classes: 10, network: {name: mlp, width: 8, depth: 1}, fit: {steps: 2}}
stages: [{name: pretrain, steps: 6, batch_size: 512, learning_rate: 1.0e-2, checkpoint_epochs: [1]}]
rounds:
  count: 1
  sample: {prompts: 5, candidates: 2, settings: {steps: 3, guide: bad, guidance: 2.0}}
  train: {steps: 1}
evaluate:
  prompts: 6
  metrics: [held_out_loss]
  settings: {steps: 3, sampler: euler, guide: pretrain@1, guidance: 1.7}
"""


def recipe_with(*settings: str) -> recipe.Recipe:
    return recipe.parse(RECIPE, "guided.yaml", settings)


def pictures(size: int, channels: int) -> Samples:
    raw = seeds.table_uniform(2, 0, 8, (size, size, channels)).numpy()
    prompts = [Prompt(f"thing {i % 3}", i % 3) for i in range(8)]
    return real_samples("image", (raw * 255).astype(np.uint8), prompts, "toy")


def nudged(model: Any, key: int, size: float = 0.3) -> Any:
    with torch.no_grad():
        for i, parameter in enumerate(model.module.parameters()):
            noise = seeds.table_normal(key + i, 0, 1, tuple(parameter.shape))[0]
            parameter.add_(size * noise / max(parameter.shape[-1], 1) ** 0.5)
    return model


def pixels() -> Any:
    model = Pixels(classes=3, network={"name": "mlp", "width": 16, "depth": 1})
    model.build(pictures(8, 1), 1)
    return nudged(model, 50)


def words() -> Any:
    model = TextToImage(config={"channels": [16, 32], "head_dim": 8, "text_width": 16, "text_layers": 1})
    model.build(pictures(16, 3), 1)
    return nudged(model, 50)


MAKERS = {"pixels": pixels, "text_to_image": words}
PROMPTS = [Prompt("thing 0", 0), Prompt("thing 2", 2)]


def by_hand(model: Any, guide: Any, prompts: list[Prompt], keys: Array, steps: int, scale: float) -> torch.Tensor:
    """Euler's steps of dx / dsigma = (x - D) / sigma, D = weak + scale (strong - weak), each network on its own."""
    from upturn.diffusion.denoiser import denoised

    sigmas = model.form.sigmas(steps)
    x = seeds.normal(keys, model.frame.shape) * sigmas[0]
    with torch.no_grad():
        for now, later in itertools.pairwise(sigmas):
            each = now.expand(len(x))
            strong, weak = (
                denoised(m.caller, m.module, m.form, x, each, m.condition(prompts)) for m in (model, guide)
            )
            d = weak + scale * (strong - weak)
            x = x + (later - now) * (x - d) / now
    back: torch.Tensor = model.frame.back(x)
    return back


@pytest.mark.parametrize("kind", MAKERS)
def test_guidance_by_equal_weights_changes_nothing(kind: str, tmp_path: Path) -> None:
    model, copy = MAKERS[kind](), MAKERS[kind]()
    model.save(tmp_path)
    copy.load(tmp_path)
    keys = np.arange(2)
    plain = model.generate(PROMPTS, keys, model.Sampling(steps=4))
    settings = model.Sampling(steps=4, guide="earlier", guidance=3.0)
    torch.testing.assert_close(model.generate(PROMPTS, keys, settings, {"earlier": copy}), plain, rtol=0, atol=1e-6)
    nudged(copy, 900)
    assert (model.generate(PROMPTS, keys, settings, {"earlier": copy}) - plain).abs().max() > 1e-2


@pytest.mark.parametrize("kind", MAKERS)
def test_guidance_is_the_combination_of_two_networks(kind: str) -> None:
    model, guide = MAKERS[kind](), nudged(MAKERS[kind](), 900)
    keys = np.arange(2)
    settings = model.Sampling(steps=4, sampler="euler", guide="it", guidance=1.7)
    ours = model.generate(PROMPTS, keys, settings, {"it": guide})
    torch.testing.assert_close(ours, by_hand(model, guide, PROMPTS, keys, 4, 1.7), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return loop.run(recipe_with(), tmp_path_factory.mktemp("runs"))


def test_evaluation_is_guided_by_the_checkpoint_that_the_recipe_names(done: Run) -> None:
    parts = assemble(recipe_with())
    pretrain = done.unit("rounds/000/pretrain")
    guide: Any = load_model(parts, "policy", pretrain / "checkpoints" / "epoch-0001", "guide")
    for unit in ("rounds/000/pretrain", "rounds/001"):
        model: Any = load_model(parts, "policy", done.unit(unit) / "model", "model")
        seen = parquet_tables.read_samples(done.unit(unit) / "evaluation.parquet")
        made = by_hand(model, guide, list(seen.prompts), seen.fields["key"], 3, 1.7)
        apart = np.abs(model.content(made).astype(int) - seen.content.astype(int))
        assert apart.max() <= 1 and (apart > 0).mean() < 0.01  # 8 bits: what lies at a half may fall either way
        trained = done.done("rounds/000/pretrain", "train")
        assert trained is not None
        assert set(seen.fields["guide"]) == {f"{trained.info['model']}/epoch-0001"}


def test_the_guide_is_in_the_record_and_in_the_lineage(done: Run) -> None:
    samples = parquet_tables.read_samples(done.unit("rounds/001") / "samples.parquet")
    record, bad = done.done("rounds/001", "sample"), done.done("models/bad", "fit")
    assert record is not None and bad is not None
    assert record.info["guide"] == bad.info["model"] and set(samples.fields["guide"]) == {bad.info["model"]}
    assert bad.info["model"] in {ancestor.model for ancestor in lineage.trace(done, str(samples.ids[0])).models}
    held = parquet_tables.read_mixture(done, done.unit("models/bad") / "mixture.parquet").samples
    touched = lineage.trace_down(done, str(held.ids[0]))
    assert touched.samples["rounds/001"] >= len(samples)


def test_a_sample_of_a_stored_model_may_be_guided_by_any_version(done: Run, tmp_path: Path) -> None:
    """Also by a later round, as SIMS does with a model trained on samples; by itself it is not guided at all."""
    from PIL import Image

    from upturn.runs import new_samples

    def sampled_images(name: str, *settings: str) -> Array:
        files = new_samples.to_files(done, "rounds/000", ["3"], 2, 0, tmp_path / name, settings)
        return np.stack([np.asarray(Image.open(file)).astype(int) for file in files])

    alone = sampled_images("alone", "guidance=1.0", "guide=''")
    assert np.abs(sampled_images("itself", "guide=round 0", "guidance=4") - alone).max() <= 1
    assert np.abs(sampled_images("later", "guide=round 1", "guidance=40") - alone).max() > 1
    for settings, says in (
        (["guide=round 2"], "neither a model nor an earlier version.*round 1"),
        (["guide=round 1@4"], "after epoch 4 are not kept"), (["guidence=3"], "Did you mean 'guidance'"),
        (["guide"], "name=value"),
    ):
        with pytest.raises(UserError, match=says):
            sampled_images("refused", *settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["evaluate.settings.guide=pretrained"], "neither a model nor an earlier.*bad, pretrain, round 0, round 1"),
        (["evaluate.settings.guide=policy"], "neither a model nor an earlier"),
        (["evaluate.settings.guide=pretrain@x"], "neither a model nor an earlier"),
        (["evaluate.settings.guide=pretrain@2"], "epoch 2 are not kept.*checkpoint_epochs.*there: 1"),
        (["evaluate.settings.guide=round 1"], "not there yet when round 1 samples"),
        (["rounds.sample.settings.guide=round 1"], "not there yet when round 1 samples"),
        (["rounds.sample.settings.guide=round 3"], "neither a model"),
        (["rounds.sample.settings.guidance=1.0"], "does nothing at guidance 1"),
        (["models.bad={name: classifier, fit: {steps: 1}}"], "is a 'classifier': it cannot guide a 'pixels'"),
        (["stages=[{name: first, steps: 1}, {name: pretrain, steps: 6, checkpoint_epochs: [1]}]"],
         "'pretrain@1' is not there yet when rounds/000/first is measured.*Name 'first'"),
        (["rounds={count: 1, score: classifier, train: {steps: 1, objective: rloo, "
          "online: {settings: {sampler: ancestral, guide: round 0, guidance: 2.0}}}}"], "replays what this model"),
    ],
)
def test_a_missing_guide_is_an_error_when_the_recipe_is_read(settings: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        assemble(recipe_with(*settings))


def test_rounds_may_be_guided_by_any_stage_before_them() -> None:
    stages = "stages=[{name: pretrain, steps: 6, checkpoint_epochs: [0, 1]}, {name: tune, steps: 1}]"
    for guide in ("round 0", "pretrain", "tune", "pretrain@0"):
        made = assemble(recipe_with(stages, f"rounds.sample.settings.guide={guide}"))
        assert made.sampling.guide == guide


def test_weights_that_are_not_there_do_not_guide(done: Run) -> None:
    from upturn.loop.guides import Version

    with pytest.raises(UserError, match="no weights of rounds/001 after epoch 3"):
        Version("rounds/001", 3).folder(done)
    with pytest.raises(UserError, match="no weights of rounds/002"):
        Version("rounds/002").folder(done)
    assert Version("rounds/001").folder(done) == done.unit("rounds/001") / "model"
