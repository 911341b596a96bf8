"""Tests of the plan's counts before training: generated captions, the filter and frozen networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from upturn import plan
from upturn.config.recipe import Recipe, load, parse
from upturn.data.captions.generated import Generated
from upturn.errors import UserError
from upturn.loop import loop
from upturn.loop.assemble import assemble
from upturn.models._text_to_image.latents import Latents
from upturn.plan import expected_counts, preprocessing, timing
from upturn.plan.planner import Planner
from upturn.scorers.ink import Ink
from upturn.store import parquet_tables
from upturn.types import Samples, Scores, objects

pytestmark = pytest.mark.slow

RECIPE = """
name: before
threads: 1
data: {{name: imagefolder, path: {data}, label: sort, size: 8, held_out: 0.25}}
captions: {{name: template, template: "a ${{name}} thing"}}
filter: {{score: ink, curate: {{name: top_fraction, fraction: 0.7}}}}
models: {{policy: {{name: text_to_image, config: {{channels: [16, 32], head_dim: 8, text_width: 16, text_layers: 1}}}}}}
features: pixels
stages: [{{name: tune, steps: 2, batch_size: 8}}]
rounds:
  count: 1
  sample: {{prompts: 4, candidates: 2, settings: {{steps: 2}}}}
  score: ink
  curate: choice
  train: {{steps: 2, batch_size: 8}}
evaluate: {{prompts: 4, metrics: [reward], settings: {{steps: 2}}}}
grid: {{prompts: 1, per_prompt: 1}}
"""
COUNT = 32


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for i in range(COUNT):
        Image.new("RGB", (8, 8), (8 * i, 4 * i, 0)).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "name": f"colour {i}", "sort": f"k{i % 2}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def recipe_with(data: Path, *settings: str) -> Recipe:
    return parse(RECIPE.format(data=data), "before.yaml", settings)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that advances only with simulated work."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now.seconds)
    return now


@pytest.mark.long
def test_the_counts_of_a_plan_are_those_of_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_with(data)
    planned = {(row.unit, row.step): row for row in plan.plan(recipe).rows}
    looked: list[int] = []
    moments = Latents.moments
    monkeypatch.setattr(Latents, "moments", lambda self, pixels, *a, **k: (
        looked.append(len(pixels)), moments(self, pixels, *a, **k))[1])
    run = loop.run(recipe, tmp_path)
    record = run.done("data", "filter")
    assert record is not None and record.counts["kept"] == 17  # ceil(0.7 * 24)
    assert planned["data", "filter"].samples == record.counts["kept"] + record.counts["dropped"]
    for unit in ("rounds/000/tune", "rounds/001"):
        rows = len(parquet_tables.read_mixture(run, run.folder / unit / "mixture.parquet").samples)
        assert planned[unit, "train"].samples == rows
        assert planned[unit, "encode"].samples == rows + 8  # and the held-out part, for its loss
    assert sum(looked) == sum(row.samples for (_, step), row in planned.items() if step == "encode")


def test_a_caption_that_a_run_would_refuse_is_refused(data: Path) -> None:
    for place in ("captions", "evaluate.captions"):
        recipe = recipe_with(data, f"{place}={{name: template, template: 'a ${{colour}}'}}")
        parts = assemble(recipe)
        with pytest.raises(UserError, match="no such field"):
            preprocessing.worded(parts, parts.source.load())


@pytest.mark.parametrize("around", [False, True])
def test_captions_of_a_model_are_timed_on_a_few(
    around: bool, data: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def caption(self: Generated, samples: Samples, *rest: Any) -> tuple[Samples, tuple[str, ...]]:
        written.append(len(samples))
        clock.seconds += 5.0 + 0.5 * len(samples)  # the model is loaded, then it writes
        return samples, ()

    monkeypatch.setattr(Generated, "caption", caption)
    strategy = "{name: generated, folder: blip}"
    if around:
        strategy = f"{{name: quality, of: {strategy}, by: sort, words: {{k0: fine}}}}"
    parts = assemble(recipe_with(data, f"captions={strategy}", "evaluate.captions={name: generated, folder: other}"))
    splits, rows = preprocessing.worded(parts, parts.source.load())
    assert [(row.unit, row.step, row.samples) for row in rows] == [
        ("data", "captions", COUNT), ("data/main", "captions", COUNT // 4)]
    assert [row.seconds for row in rows] == pytest.approx([5.0 + 0.5 * COUNT, 5.0 + 0.5 * COUNT / 4])
    assert max(written) <= 8 and any("stored already" in note for note in splits.notes)


def test_the_filter_costs_what_its_scorers_do(
    data: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(self: Ink, samples: Samples, tools: Any) -> Scores:
        clock.seconds += 0.125 * len(samples)
        return Scores("ink", np.zeros(len(samples)), objects([""] * len(samples)))

    monkeypatch.setattr(Ink, "score", score)
    monkeypatch.setattr(preprocessing, "_FILTERED", 12)
    parts = assemble(recipe_with(data))
    planner = Planner(parts, parts.source.load(), 0.0)
    kept, row, notes = preprocessing.filtered(parts, planner.splits, planner.tools)
    assert row.samples == 24 and row.seconds == pytest.approx(0.125 * 24, abs=0.05) and not notes
    assert len(kept) == 17 and len(set(kept.ids)) == 17


@pytest.mark.parametrize(("curate", "kept"), [
    ("{name: top_fraction, fraction: 0.07}", 7), ("[deduplicate, {name: top_fraction, fraction: 0.5}]", 50),
    ("{name: threshold, at_least: 3}", 50),
])
def test_the_expected_share_kept_by_a_filter(curate: str, kept: int, data: Path) -> None:
    found = recipe_with(data, f"filter.curate={curate}").filter
    assert found is not None and expected_counts.after_filter(found, 100) == kept


COUNTED = [(20, None), (30, None), (34, 4), (38, 4)]  # samples of each training, and how many of them a round sampled


@pytest.mark.parametrize(("kept", "expensive", "wanted"), [
    (False, True, [20, 30, 34, 38]), (True, True, [20, 10, 4, 4]), (False, False, []),
])
def test_a_disk_cache_encodes_each_real_image_once(
    kept: bool, expensive: bool, wanted: Sequence[int], clock: SimpleNamespace
) -> None:
    encoding, model = preprocessing.Encoding(kept), SimpleNamespace(id="m", expensive=expensive)
    costs = [10.0, 0.0, 0.0, 0.0]
    rows = []
    for count, made in COUNTED:
        encoding.timed(model, 5, lambda: setattr(clock, "seconds", clock.seconds + costs.pop(0)))
        rows += encoding.row("u", model, count, made)
    # the first time tells: later ones know captions already
    assert [(row.samples, row.seconds) for row in rows] == [(count, 2.0 * count) for count in wanted]


def test_a_plan_writes_nothing_into_the_cache(data: Path, tmp_path: Path) -> None:
    parts = assemble(recipe_with(data, f"models.policy.cache={tmp_path / 'cache'}"))
    planner = Planner(parts, parts.source.load(), 0.0)
    planner.policy.encode(planner.splits.train)
    assert not (tmp_path / "cache").exists()


@pytest.mark.long
def test_a_plan_has_every_training_and_refit_of_a_round() -> None:
    """`recipes/llama-rounds.yaml`, smaller: two trainings a round, and the reward model's labels and fit in it."""
    changes = [
        "data.length=24", "stages.0.steps=4", "rounds.count=2", "rounds.sample.prompts=16",
        "rounds.sample.settings={max_tokens: 8}", "models.reward.refit.prompts=8", "evaluate.0.prompts=4",
        "evaluate.0.settings={max_tokens: 8}", "grid={prompts: 1, per_prompt: 1}",
    ]
    found = plan.plan(load(Path(__file__).parents[2] / "recipes" / "llama-rounds.yaml", changes))
    for unit in ("rounds/001", "rounds/002"):
        inside = [(row.unit, row.step) for row in found.rows if row.unit.startswith(unit)]
        assert inside == [
            (unit, "sample"), (f"{unit}/reward", "judge"), (f"{unit}/reward", "fit"), (unit, "score"),
            (f"{unit}/rejection-sampling", "train"), (unit, "train"), (unit, "evaluate"),
        ]
    assert all(row.seconds > 0 for row in found.rows)
    labelled = [row.samples for row in found.rows if row.step == "judge"]
    assert labelled == [8 * 4] * 2
