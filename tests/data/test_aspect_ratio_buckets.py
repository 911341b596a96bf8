"""Tests of aspect-ratio buckets: cropping, batches, and a complete run on an image folder."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import tiny_pipelines as tiny
from upturn import plan, seeds
from upturn.config import components
from upturn.config.recipe import Recipe, parse
from upturn.config.schema import Training
from upturn.data.sources._buckets import Buckets, lost
from upturn.errors import UserError
from upturn.loop import loop
from upturn.loop.assemble import assemble
from upturn.models.text_to_image import TextToImage
from upturn.observer import Observer
from upturn.store import parquet_tables, png
from upturn.store.checkpoints import tree_hash
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.setup import TrainingSetup
from upturn.types import Batch, Prompt, Samples, Stacks, by_size, concatenate, pictures, real_samples

pytestmark = pytest.mark.slow

SHAPES = [(16, 16), (24, 10), (8, 32), (16, 16), (32, 8), (64, 8)]  # width and height as photographed
INTO = [(16, 16), (32, 8), (8, 32), (16, 16), (32, 8), (32, 8)]  # in buckets of step 8 and at most 4: by hand


def drawn(n: int, shapes: list[tuple[int, int]] = INTO) -> Samples:
    """Random images, shapes in turn."""
    rows = [
        (seeds.table_uniform(i, 0, 1, (high, wide, 3))[0].numpy() * 255).astype(np.uint8)
        for i, (wide, high) in ((i, shapes[i % len(shapes)]) for i in range(n))
    ]
    return real_samples("image", pictures(rows), [Prompt(f"a thing {i % 3}") for i in range(n)], "toy")


# How images are cut.


def test_buckets_are_what_the_papers_algorithm_makes() -> None:
    """By brute force: of each width the highest multiple of the step within the area, and the same lying."""
    for side, step, most in ((512, 64, 2.0), (16, 8, 3.0), (1024, 64, 4.0)):
        found = Buckets(step, most).sizes(side)
        grid = range(step, 4 * side + 1, step)
        upright = {(w, max(h for h in grid if w * h <= side * side)) for w in grid if w <= side}
        wanted = {s for s in upright | {(h, w) for w, h in upright} if max(s) / min(s) <= most}
        assert set(found) == wanted and (side, side) in wanted
        assert all(0.7 * side * side <= w * h <= side * side for w, h in found)
    assert (512, 512) in Buckets().sizes(512) and (640, 384) in Buckets().sizes(512)


def test_an_image_is_cropped_at_the_centre_to_the_nearest_ratio(tmp_path: Path) -> None:
    for i, (wide, high) in enumerate(SHAPES):
        body = np.zeros((high, wide, 3), dtype=np.uint8)
        body[high // 2 - 1 : high // 2 + 1, wide // 2 - 1 : wide // 2 + 1] = 250 - i  # the middle stays in the middle
        Image.fromarray(body).save(tmp_path / f"{i}.png")
    source = components.make("source", {
        "name": "imagefolder", "path": str(tmp_path), "size": 16, "held_out": 0.4,
        "buckets": {"step": 8, "at_most": 4},
    })
    splits = source.load()
    both = concatenate([splits.train, splits.held_out])
    made = {str(name): row for name, row in zip(both.fields["file_name"], both.content, strict=True)}
    for i, (wide, high) in enumerate(INTO):
        row = made[f"{i}.png"]
        assert row.shape == (high, wide, 3)
        weights = row[..., 0].astype(float)
        middle = [
            (weights.sum(axis=1 - axis) * np.arange(weights.shape[axis])).sum() / weights.sum() for axis in (0, 1)
        ]
        assert np.allclose(middle, [(high - 1) / 2, (wide - 1) / 2], atol=0.6)
    # by hand: 24x10 at 4/3 is 32 by 13 1/3, of which 8 stay; 64x8 loses half of its width
    shares = [0, 1 - 8 / (40 / 3), 0, 0, 0, 1 / 2]
    assert np.allclose(lost(np.array(SHAPES, float), np.array(INTO, float)), shares)
    note = next(note for note in splits.notes if "buckets" in note)
    assert "3 of 32x8" in note and "2 of 16x16" in note and "1 of 8x32" in note and f"{np.mean(shares):.1%}" in note


@pytest.mark.parametrize(("fields", "says"), [
    ({"buckets": {"step": 7}}, "multiple of the buckets' step"), ({"buckets": {"at_most": 0.5}}, "at_most >= 1"),
    ({"buckets": {"most": 2}}, "no field 'most'"),
])
def test_buckets_that_cannot_be_are_refused(fields: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        components.make("source", {"name": "imagefolder", "path": str(tmp_path), "size": 16, **fields}, "data")


# Content of several sizes.


def test_the_store_gives_images_of_several_sizes_back_bit_for_bit(tmp_path: Path) -> None:
    samples = drawn(9)
    assert samples.content.dtype == object
    parquet_tables.write_samples(tmp_path / "samples.parquet", samples)
    again = parquet_tables.read_samples(tmp_path / "samples.parquet")
    parts = list(parquet_tables.iterate_samples(tmp_path / "samples.parquet", 2))
    joined = concatenate(parts)
    for back in (again, joined):
        assert all(np.array_equal(a, b) and b.dtype == np.uint8
                   for a, b in zip(samples.content, back.content, strict=True))
    assert list(again.ids) == list(samples.ids)
    alike = drawn(4, [(16, 16)])
    assert alike.content.shape == (4, 16, 16, 3)
    mixed = concatenate([samples, alike])
    assert mixed.content.dtype == object and mixed.content[9].shape == (16, 16, 3)
    assert sorted(row for rows, _ in by_size(mixed.content) for row in rows) == list(range(13))
    # an object column whose images happen to have equal sizes, and images of one height
    again = concatenate([mixed.take(range(9, 13)), alike])
    assert len(again.content) == 8 and all(row.shape == (16, 16, 3) for row in again.content)
    assert concatenate([alike, drawn(2, [(8, 16)])]).content[5].shape == (16, 8, 3)
    with pytest.raises(ValueError, match="not an 8-bit PNG"):
        png.decode_each([b"nothing"])


def test_every_batch_has_one_shape_and_an_epoch_has_every_example_once() -> None:
    samples = drawn(23)
    shapes = [row.shape for row in samples.content]
    parts = {shape: [i for i, own in enumerate(shapes) if own == shape] for shape in dict.fromkeys(shapes)}
    stack = Stacks.joined(
        [Stacks.of(torch.tensor(np.stack([samples.content[i] for i in rows]))) for rows in parts.values()],
        torch.tensor(np.argsort(np.concatenate(list(parts.values())))),
    )
    feed = FixedFeed(Batch({"x": stack, "row": torch.arange(23)}), 4, key=3)
    assert feed.steps_per_epoch == sum(math.ceil(len(rows) / 4) for rows in parts.values())
    epochs = []
    for epoch in range(2):
        steps = [feed.batch(epoch * feed.steps_per_epoch + i) for i in range(feed.steps_per_epoch)]
        rows = [batch["row"].tolist() for batch in steps]
        assert sorted(row for batch in rows for row in batch) == list(range(23))
        assert all(len({shapes[row] for row in batch}) == 1 for batch in rows)
        assert all(torch.equal(batch["x"][i], torch.tensor(samples.content[row]))
                   for batch in steps for i, row in enumerate(batch["row"].tolist()))
        epochs.append(rows)
    assert epochs[0] != epochs[1]
    again = FixedFeed(feed.examples, 4, key=3)
    assert [again.batch(i)["row"].tolist() for i in range(again.steps_per_epoch)] == epochs[0]
    assert [shapes[batch[0]] for batch in epochs[0]] != sorted(shapes[batch[0]] for batch in epochs[0])


# The model.


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny.saved(kind, tmp_path_factory.mktemp(kind)) for kind in ("sd15", "sdxl", "sd3", "flux")}


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3", "flux"])
def test_a_requested_size_gives_the_images_of_plain_diffusers(
    kind: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = TextToImage(folder=str(folders[kind]), size=16)
    model.build(drawn(2, [(16, 16)]), key=1)
    model.save(tmp_path / "model")
    settings = model.Sampling(steps=3, sampler="euler", guidance=2.0, width=24, height=8)
    ours = model.generate([Prompt("a red cat"), Prompt("a dog")], np.arange(2), settings)
    assert ours.shape[2:] == (4, 12)
    noise = seeds.normal(np.arange(2), tuple(ours.shape[1:]))
    theirs = tiny.same_noise(kind, tmp_path / "model", ["a red cat", "a dog"], noise, 3, 2.0, size=(8, 24))
    scale = float(ours.abs().max())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 * max(scale, 1.0))
    assert model.sample([Prompt("a dog")], np.zeros((1, 1), dtype=np.int64), settings).content.shape == (1, 8, 24, 3)


@pytest.mark.parametrize("cache", [True, False, "folder"])
def test_a_row_of_a_bucket_has_the_loss_that_it_has_alone(
    cache: bool | str, folders: dict[str, Path], tmp_path: Path
) -> None:
    where = str(tmp_path / "kept") if cache == "folder" else cache
    model = TextToImage(folder=str(folders["sdxl"]), size=16, cache=where, caption_dropout=0.0)
    samples = drawn(8)
    model.build(samples, key=1)
    batch = model.encode(samples)
    own = {rows: batch.take(torch.tensor(rows)) for rows in ((1, 4, 5, 7), (2,))}
    for rows, part in own.items():
        alone = model.encode(samples.take(list(rows)))
        alone = alone.take(torch.arange(len(rows)))
        assert torch.equal(part["x"], alone["x"])
        draw = model.draw(part, 5, 3)
        high, wide, _ = samples.content[rows[0]].shape
        assert draw.noise.shape == (len(rows), 1, 4, high // 2, wide // 2)
        said, again = model.forward(part, draw).log_probs, model.forward(alone, model.draw(alone, 5, 3)).log_probs
        assert torch.equal(said, again) and bool(torch.isfinite(said).all())
    with pytest.raises(ValueError, match="several shapes"):
        batch.take(torch.arange(3))


def test_sizes_that_do_not_fit_are_named(folders: dict[str, Path]) -> None:
    model = TextToImage(folder=str(folders["sd3"]), size=16)
    with pytest.raises(UserError, match="both sides must be multiples of 4"):
        model.build(drawn(4, [(16, 16), (18, 16)]), key=1)
    model.build(drawn(2, [(16, 16)]), key=1)
    with pytest.raises(UserError, match="multiples of 4"):
        model.generate([Prompt("a")], np.arange(1), model.Sampling(steps=1, width=18, height=16))
    with pytest.raises(UserError, match="places for 64 a side"):
        model.generate([Prompt("a")], np.arange(1), model.Sampling(steps=1, width=68, height=16))
    with pytest.raises(UserError, match="several sizes"):
        TextToImage(config={"channels": [16, 32], "head_dim": 8}).build(drawn(4), key=1)
    with pytest.raises(ValueError, match="both of width and height"):
        model.Sampling(width=16)


class Stop(Exception):
    pass


@pytest.mark.long
def test_stopped_and_resumed_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    samples = drawn(20)

    def trained(folder: Path, stop: int | None = None) -> str:
        model = TextToImage(config={"channels": [16, 32], "head_dim": 8, "text_width": 16, "text_layers": 1}, size=16)
        model.build(samples, 1)
        encoded = model.encode(samples)
        feed = FixedFeed(Batch(encoded.columns, 1, {"weights": torch.ones(20)}), 4, 3)

        def on_step(step: int, total: int, loss: float) -> None:
            if step == stop:
                raise Stop

        made = TrainingSetup(
            spec=Training(steps=9, batch_size=4, ema=0.9, save_every=2, micro_batch=3),
            objective=components.make("objective", "likelihood"), adapter=components.make("adapter", "full"),
            feed=feed, key=5, where="test", progress=folder, on_step=on_step, held_out=model.encode(drawn(7)),
        )
        history = trainer.train(model, made)
        assert all(math.isfinite(point["held_out"]) for point in history.points)
        model.save(folder / "model")
        return tree_hash(folder / "model")

    whole = trained(tmp_path / "whole")
    with pytest.raises(Stop):
        trained(tmp_path / "stopped", stop=8)
    assert trained(tmp_path / "stopped") == whole


# A run.

RECIPE = """
name: shapes
threads: 1
data: {{name: imagefolder, path: {data}, caption: text, size: 16, held_out: 0.3, buckets: {{step: 8, at_most: 4}}}}
filter: {{score: ink, curate: {{name: top_fraction, fraction: 0.9}}}}
models: {{policy: {{name: text_to_image, size: 16, config: {{channels: [16, 32], head_dim: 8, text_width: 16,
  text_layers: 1}}}}}}
stages: [{{name: tune, epochs: 1, batch_size: 4}}]
rounds:
  count: 1
  sample: {{prompts: 4, candidates: 2, settings: {{steps: 2, width: 32, height: 8}}}}
  score: ink
  curate: choice
  mix: {{policy: accumulate}}
  train: {{epochs: 1, batch_size: 4}}
evaluate: {{prompts: 4, metrics: [reward, held_out_loss], settings: {{steps: 2, width: 8, height: 32}}}}
gate: {{metric: reward}}
grid: {{prompts: 1, per_prompt: 1}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, lines = tmp_path_factory.mktemp("data"), []
    for i in range(30):
        Image.new("RGB", SHAPES[i % len(SHAPES)], (8 * i, 4 * i, 0)).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"colour {i % 5}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def recipe_with(data: Path, *settings: str) -> Recipe:
    return parse(RECIPE.format(data=data), "shapes.yaml", settings)


@pytest.mark.long
def test_a_run_trains_on_buckets_and_samples_the_requested_sizes(data: Path, tmp_path: Path) -> None:
    run = loop.run(recipe_with(data), tmp_path, Observer())
    real = parquet_tables.read_samples(run.folder / "data" / "samples.parquet")
    sizes = Counter(row.shape for row in real.content)
    assert set(sizes) == {(16, 16, 3), (8, 32, 3), (32, 8, 3)}
    made = parquet_tables.read_samples(run.folder / "rounds" / "001" / "samples.parquet")
    assert made.content.shape[1:] == (8, 32, 3)
    shown = parquet_tables.read_samples(run.folder / "rounds" / "001" / "evaluation.parquet")
    assert shown.content.shape[1:] == (32, 8, 3)
    mixture = parquet_tables.read_mixture(run, run.folder / "rounds" / "001" / "mixture.parquet")
    assert {row.shape for row in mixture.samples.content} >= set(sizes)
    told = json.loads((run.folder / "rounds" / "001" / "metrics.json").read_text())
    assert told["held_out_loss"]["value"] > 0 and told["reward"]["n"] == 4
    used = parquet_tables.read_mixture(run, run.folder / "rounds" / "000" / "tune" / "mixture.parquet").samples
    steps = run.done("rounds/000/tune", "train").info["steps"]  # type: ignore[union-attr]
    assert steps == sum(math.ceil(n / 4) for n in Counter(row.shape for row in used.content).values())
    train = real.take(real.fields["split"].astype(str) == "train")
    rows = plan.plan(recipe_with(data, "filter=null")).rows
    planned = next(row for row in rows if (row.unit, row.step) == ("rounds/000/tune", "train"))
    assert planned.optimiser_steps == sum(math.ceil(n / 4) for n in Counter(r.shape for r in train.content).values())


@pytest.mark.parametrize(("settings", "says"), [
    (["evaluate.metrics=[reward, memorisation]"], "'memorisation' takes images of one size"),
    (["evaluate.metrics=[reward, frechet]"], "'pixels' takes images of one size"),
    (["rounds.curate=[deduplicate]"], "'deduplicate' takes images of one size"),
    (["filter.curate=[deduplicate]"], "'deduplicate' takes images of one size"),
    (["models.judge={name: dual_encoder, config: {}, fit: {epochs: 1, objective: contrastive}}"],
     "'dual_encoder' takes images of one size"),
    (["models.policy={name: pixels}", "rounds.sample.settings={}", "evaluate.settings={}"], "'pixels' takes images"),
])
def test_components_that_need_one_image_size_are_refused_by_name(data: Path, settings: list[str], says: str) -> None:
    assemble(recipe_with(data))
    with pytest.raises(UserError, match=says):
        assemble(recipe_with(data, *settings))


def test_a_size_in_the_settings_counts_as_another_size(data: Path) -> None:
    with pytest.raises(UserError, match="sets an image size"):
        assemble(recipe_with(data, "data.buckets=null", "rounds.curate=[deduplicate]"))
